"""`--allow`: which further names a pickle may have, and that nothing else gets in with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile_tools import HOSTILE, call, longer, model_file, short, stacked, text
from hypothesis import given, settings
from hypothesis import strategies as st

from graftkit.contracts import SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources import load
from graftkit.sources.permission import forbidden


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that any code which runs would make; it must not be there after the test."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        load(SourceRequest(str(path)))
    return str(caught.value)


OWN = """
from os import system as run
from functools import partial
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.bend = bend

    def forward(self, input):
        return self.bend(self.linear(input))

def bend(value):
    return torch.tanh(value)

made = Net()
deeper = partial(bend)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pickled model of a class beside it, whose module is forgotten."""
    (tmp_path / "allowed_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import allowed_net

    torch.save(allowed_net.Net(), tmp_path / "net.pt")
    monkeypatch.undo()
    del sys.modules["allowed_net"]
    yield tmp_path / "net.pt"
    sys.modules.pop("allowed_net", None)


NAMES = ("allowed_net.Net", "allowed_net.bend")


def allowing(path: Path, *names: str, trust: bool = False) -> str:
    """The refusal of a file for which these names are allowed."""
    with pytest.raises(SourceError) as caught:
        load(SourceRequest(str(path), allow=names, trust=trust))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_refusal_names_the_options_that_let_it_pass(own: Path) -> None:
    message = refusal(own)
    assert "pass --allow allowed_net.Net --allow allowed_net.bend; " in message
    assert "allowed_net" not in sys.modules
    model = load(SourceRequest(str(own), allow=NAMES)).model
    assert model(torch.ones(2, 4)).shape == (2, 3)


def test_what_is_allowed_is_said_and_nothing_stays_allowed(own: Path) -> None:
    before, path = set(torch.serialization.get_safe_globals()), list(sys.path)
    loaded = load(SourceRequest(str(own), allow=NAMES))
    assert loaded.provenance["allow"] == list(NAMES) and loaded.provenance["trust"] is False
    assert set(torch.serialization.get_safe_globals()) == before
    assert sys.path == path


def test_allowing_one_name_opens_no_other(own: Path) -> None:
    message = allowing(own, "allowed_net.Net")
    assert "wants to import allowed_net.bend," in message
    assert "--allow allowed_net.bend;" in message
    assert "allowed_net" not in sys.modules


def test_a_module_beside_the_file_hides_no_installed_one(
    own: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the user allowed is imported from there, and only where nothing else is called so."""
    (own.parent / "click.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.delitem(sys.modules, "click", raising=False)
    load(SourceRequest(str(own), allow=(*NAMES, "click.Choice")))
    assert Path(sys.modules["click"].__file__).parent != own.parent


DANGEROUS = (
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "builtins.type",
    "subprocess.Popen",
    "functools.partial",
    "functools.reduce",
    "operator.methodcaller",
    "importlib.import_module",
    "pickle.loads",
    "copyreg._reconstructor",
    "types.FunctionType",
    "torch.load",
    "torch.hub.load",
    "torch.serialization.load",
    "torch.fx.graph_module.reduce_graph_module",
    "torch.utils.cpp_extension.load_inline",
    "torch.ops.load_library",
    "torch._tensor._rebuild_from_type_v2",
    "numpy.load",
    "yaml.unsafe_load",
    "joblib.load",
    "graftkit.api.load",
    "__main__.Net",
)


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_dangerous_name_is_not_opened_by_allowing_it(tmp_path: Path, marker: Path, name: str) -> None:
    module, _, last = name.rpartition(".")
    path = model_file(tmp_path / "net.pt", b"\x80\x02" + call(module, last, f"touch {marker}") + b".")
    assert f"--allow {name}: through that name a file can run any code" in allowing(path, name)
    assert "--allow" not in refusal(path)


def test_a_dangerous_name_is_refused_also_where_the_file_does_not_want_it(own: Path) -> None:
    assert "any code" in allowing(own, *NAMES, "os.system")
    assert load(SourceRequest(str(own), allow=("os.system",), trust=True)).provenance["trust"] is True


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("allowed_net.run", "any code"),  # another module's function under a name of its own
        ("allowed_net.partial", "any code"),
        ("torch.nn.functional.importlib", "not a class or a function"),
        ("allowed_net.made", "of type Net, not a class or a function"),
        ("allowed_net.deeper", "of type partial, not a class"),
        ("allowed_net.Nte", "allowed_net has no Nte. Did you mean Net?"),
        ("no_such_package.Net", "importing no_such_package raised ModuleNotFoundError"),
        ("Net", "write the whole name"),
        ("allowed_net:Net", "write the whole name"),
        ("allowed net.Net", "write the whole name"),
    ],
)
def test_an_allowed_name_has_to_be_a_class_of_its_own_module(own: Path, marker: Path, name: str, said: str) -> None:
    assert said in allowing(own, *NAMES, name)


def test_an_allowed_class_gives_no_way_to_a_dotted_name(own: Path, marker: Path) -> None:
    """The name in the file is looked up whole: what hangs off an allowed class is another name."""
    for last in ("Net.forward.__globals__", "Net.__init__", "run"):
        path = model_file(own.parent / "bad.pt", b"\x80\x02" + call("allowed_net", last, f"touch {marker}") + b".")
        assert f"wants to import allowed_net.{last}" in allowing(path, *NAMES)


def test_an_allowed_class_carries_nothing_that_is_not(own: Path, marker: Path) -> None:
    """As an argument, in the state, under a key: every name in the pickle is held to the list."""
    evil = call("os", "system", f"touch {marker}")
    net = b"callowed_net\nNet\n"
    nested = {
        "argument": net + evil + b"\x85R",
        "new object's argument": net + evil + b"\x85\x81",
        "state": net + b")\x81}" + text("x") + evil + b"sb",
        "key": net + b")\x81}" + evil + text("x") + b"sb",
        "twice": net + b")\x81}" + text("x") + net + b")\x81}" + text("y") + evil + b"sbsb",
    }
    for pickled in nested.values():
        path = model_file(own.parent / "bad.pt", b"\x80\x02" + pickled + b".")
        assert "wants to import os.system" in allowing(path, *NAMES)


def test_an_allowed_function_may_be_named_and_not_called(own: Path) -> None:
    """Through the arguments of many a library's function a file could have its own code run."""
    for pickled in (call("allowed_net", "bend", "x"), call("allowed_net", "bend", "x").replace(b"R", b"\x81")):
        path = model_file(own.parent / "bad.pt", b"\x80\x02" + pickled + b".")
        assert "calls allowed_net.bend" in allowing(path, *NAMES)


def test_what_the_scan_overlooks_is_refused_when_names_are_allowed_too(
    own: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.sources.pickle_safety.wanted_globals", lambda pickled: ())
    for pickled in HOSTILE.values():
        allowing(model_file(own.parent / "bad.pt", longer(pickled.replace(b"MARK", b"m@rk"), marker)), *NAMES)


def test_where_allowing_is_not_enough_it_is_not_offered(tmp_path: Path) -> None:
    many = b"\x80\x02" + b"".join(f"cmodels.part{index}\nNet\n0".encode() for index in range(13)) + b"N."
    newer = stacked(short("models"), short("Net")).replace(b"touch MARK", b"touch m@rk")
    for pickled in (many, newer, b"\x80\x02cmodels\nNet\n0cos\nsystem\n."):
        assert "--allow" not in refusal(model_file(tmp_path / "net.pt", pickled))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_name_of_python_itself_is_allowed_but_for_plain_values(module: str, name: str) -> None:
    for top in ("os", "builtins", "subprocess", "ctypes", module):
        whole = f"{top}.{name}"
        plain = {f"builtins.{word}" for word in ("int", "str", "list", "dict", "set", "tuple", "bool", "float")}
        if top in sys.stdlib_module_names and whole not in plain:
            assert forbidden(whole)
