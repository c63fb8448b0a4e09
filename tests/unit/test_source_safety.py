"""Hostile files: none of them runs anything without trust, and each is refused in one line."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_tools import HOSTILE, Evil, call, longer, model_file, saved, short, stacked
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim

from graftkit.contracts import SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources import load
from graftkit.sources.allowed_globals import ALLOWED_GLOBALS
from graftkit.sources.expression_grammar import is_expression, is_guard
from graftkit.sources.files import record_sizes
from graftkit.sources.pickle_safety import wanted_globals


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that any code which runs would make; it must not be there after the test."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        load(SourceRequest(str(path)))
    message = str(caught.value)
    assert "\n" not in message
    assert "\x1b" not in message
    return message


# ── pickles ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_named(tmp_path: Path, marker: Path, name: str) -> None:
    pickled = HOSTILE[name].replace(b"touch MARK", b"touch m@rk").replace(b"MARK", b"m@rk")
    path = model_file(tmp_path / "net.pt", longer(pickled, marker))
    message = refusal(path)
    assert f"wants to import {name}" in message or (name == "builtins.exec" and "execfile" in message)
    assert message.endswith("if you trust whoever made it, pass --trust")


def test_the_marker_would_be_made(tmp_path: Path) -> None:
    """The files above do run when they are trusted, or they would prove nothing."""
    made = tmp_path / "made"
    path = model_file(tmp_path / "net.pt", b"\x80\x02" + call("os", "system", f"touch {made}") + b".")
    with pytest.raises(SourceError):
        load(SourceRequest(str(path), trust=True))
    assert made.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        [b"h\x00", b"h\x01"],  # from an empty memo
        [short("o"), b"K\x01", short("s")],  # a number between
        [b"N", short("system")],
        [short("os") + short("x") + b"0", b"2"],  # popped and duplicated
        [b"(" + short("os") + b"t", short("system")],
    ],
)
def test_a_name_that_is_computed_is_refused(tmp_path: Path, marker: Path, opcodes: list[bytes]) -> None:
    message = refusal(model_file(tmp_path / "net.pt", stacked(*opcodes)))
    assert "computes while loading" in message


def test_an_extension_code_is_refused(tmp_path: Path) -> None:
    assert "computes while loading" in refusal(model_file(tmp_path / "net.pt", b"\x80\x02\x82\x01)R."))


def test_the_most_telling_names_come_first_and_few(tmp_path: Path) -> None:
    names = [f"cmodels.part{index}\nNet\n0" for index in range(7)] + ["cos\nsystem\n0"]
    message = refusal(model_file(tmp_path / "net.pt", b"\x80\x02" + "".join(names).encode() + b"N."))
    assert "wants to import os.system, models.part0.Net" in message
    assert "and 3 more" in message
    assert "part6" not in message


def test_a_name_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    assert "?[2J" in refusal(model_file(tmp_path / "net.pt", stacked(short("os\x1b[2J\nx"), short("abort"))))


def test_what_the_scan_overlooks_the_unpickler_refuses(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.sources.pickle_safety.wanted_globals", lambda pickled: ())
    for pickled in HOSTILE.values():
        refusal(model_file(tmp_path / "net.pt", longer(pickled.replace(b"MARK", b"m@rk"), marker)))


def test_loading_leaves_no_name_allowed_behind(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "net.pt")
    before = set(torch.serialization.get_safe_globals())
    load(SourceRequest(str(tmp_path / "net.pt")))
    assert set(torch.serialization.get_safe_globals()) == before


def test_no_allowed_name_is_a_door() -> None:
    words = "getattr setattr eval exec compile import open load save system partial attrgetter methodcaller apply map"
    last = {name.rpartition(".")[2] for name in ALLOWED_GLOBALS}
    assert not last & set(words.split())
    assert not {name for name in ALLOWED_GLOBALS if name.split(".")[0] not in ("torch", "collections", "builtins")}


def test_a_pickle_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    for name, size in (("data.pkl", 65 * 2**20), ("data/0", 400 * 2**20)):
        path = tmp_path / "net.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("net/data.pkl", b"N.") if name != "data.pkl" else None
            with archive.open(f"net/{name}", "w") as member:
                for _ in range(size // 2**20):
                    member.write(bytes(2**20))
        assert "do not use it" in refusal(path)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_weights_run_nothing(tmp_path: Path, marker: Path, options: dict[str, Any]) -> None:
    torch.save({"weight": Evil(marker)}, tmp_path / "weights.pt", **options)
    with pytest.raises(SourceError):
        load(SourceRequest("torch.nn:Identity", tmp_path / "weights.pt"))
    refusal(tmp_path / "weights.pt")


def test_trust_does_not_reach_the_weights(tmp_path: Path, marker: Path) -> None:
    torch.save({"weight": Evil(marker)}, tmp_path / "weights.pt")
    with pytest.raises(SourceError):
        load(SourceRequest("torch.nn:Identity", tmp_path / "weights.pt", trust=True))


def test_a_bare_pickle_runs_nothing(tmp_path: Path, marker: Path) -> None:
    for protocol in range(2, 6):
        (tmp_path / "net.pt").write_bytes(pickle.dumps(Evil(marker), protocol))
        refusal(tmp_path / "net.pt")


# Pickles in which the names are strings, so that a mistake in following the memo would show.
STRINGS = [short(word) for word in ("os", "torch", "Size", "system")]
PIECES = st.sampled_from([*STRINGS, b"\x94", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"0", b"2"])


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, min_size=2, max_size=9))
def test_the_scan_names_what_an_unpickler_would_import(pieces: list[bytes]) -> None:
    pickled = b"\x80\x04" + b"".join(pieces) + b"\x93."
    asked: list[str] = []

    class Asking(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> str:
            asked.append(f"{module}.{name}")
            return "found"

    try:
        Asking(io.BytesIO(pickled)).load()
    except Exception:
        return  # nothing could be imported
    found = wanted_globals(pickled)
    assert found == tuple(asked) or "a name that it computes while loading" in found


# ── exported programs ────────────────────────────────────────────────────────────────────────────


def test_a_members_name_that_is_no_text_is_refused(tmp_path: Path, program: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pt")
    for path in (tmp_path / "net.pt", program):
        name = path.stem.encode() + b"/"
        (tmp_path / "bad").write_bytes(path.read_bytes().replace(name, b"\xff" + name[1:]))
        assert "damaged" in refusal(tmp_path / "bad")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.shape[0] > 3:
            input = input.relu()
        return self.linear(input)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    found = torch.export.export(Net(), (torch.ones(5, 4),), dynamic_shapes=({0: Dim.DYNAMIC},))
    torch.export.save(found, path)
    return path


@pytest.fixture(scope="module")
def members(program: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(program) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def program_file(path: Path, members: dict[str, bytes]) -> Path:
    """An archive with these members; torch's own writer, because torch aligns what it maps."""
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in members.items():
        if not name.startswith(".data/"):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return path


def changed(
    members: dict[str, bytes], change: Callable[[Any], None], name: str = "models/model.json"
) -> dict[str, bytes]:
    parsed = json.loads(members[name])
    change(parsed)
    return members | {name: json.dumps(parsed).encode()}


def graph(parsed: Any) -> Any:
    return parsed["graph_module"]["graph"]


def first_size(parsed: Any) -> Any:
    return next(
        size["as_expr"]
        for value in graph(parsed)["tensor_values"].values()
        for size in value["sizes"]
        if "as_expr" in size
    )


def signature(parsed: Any) -> Any:
    return parsed["graph_module"]["module_call_graph"][0]["signature"]


RUN = "__import__('os').system('touch MARK')"
DEFAULTDICT = {
    "default_factory_module": "antigravity_of_mine",
    "default_factory_name": "x",
    "dict_context": [],
}
LEAF = {"type": None, "context": None, "children_spec": []}


def tree(kind: str, context: Any) -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [LEAF]}])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "an expression": lambda p: first_size(p).update(expr_str=RUN),
    "an expression with attributes": lambda p: first_size(p).update(expr_str="().__class__.__base__.__subclasses__()"),
    "a symbol that is none": lambda p: first_size(p).update(expr_str=f"Symbol({RUN})"),
    "an expression beside a comment": lambda p: first_size(p).update(expr_str=f"s0 #\n+ {RUN}"),
    "an expression in a tensor called metadata": lambda p: graph(p)["tensor_values"].update(
        metadata={"dtype": 7, "sizes": [{"as_expr": {"expr_str": RUN, "hint": None}}]}
    ),
    "a guard": lambda p: p.update(guards_code=[RUN]),
    "a guard that ends its message": lambda p: p.update(guards_code=[f'L["x"]) or {RUN} or ("']),
    "a node target": lambda p: graph(p)["nodes"][0].update(target="torch.hub.load"),
    "a node target in os": lambda p: graph(p)["nodes"][0].update(target="torch.os.system"),
    "an operator that writes files": lambda p: graph(p)["nodes"][0].update(target="torch.ops.aten.from_file.default"),
    "an operator that is none": lambda p: graph(p)["nodes"][0].update(target="torch.ops.aten.add.__class__"),
    "another library's operator": lambda p: graph(p)["nodes"][0].update(target="torch.ops.mylib.run.default"),
    "a method caller": lambda p: graph(p)["nodes"][0].update(target="_operator.methodcaller"),
    "an operator as argument": lambda p: graph(p)["nodes"][0]["inputs"][0].update(
        arg={"as_operator": "torch.hub.load"}
    ),
    "a node name": lambda p: graph(p)["nodes"][0].update(name=f"x = {RUN}\n    y"),
    "an output name": lambda p: graph(p)["outputs"][0]["as_tensor"].update(name=f"x, {RUN}"),
    "an input name": lambda p: graph(p)["inputs"][0]["as_tensor"].update(name=f"x={RUN}"),
    "an input that is a text": lambda p: graph(p)["inputs"][0].update(as_string=f"' + {RUN} + '"),
    "a parameter name": lambda p: p["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
        parameter_name=f'a") + {RUN} + ("'
    ),
    "an argument name": lambda p: signature(p).update(forward_arg_names=[f"x={RUN}"]),
    "a tree that imports": lambda p: signature(p).update(in_spec=tree("collections.defaultdict", DEFAULTDICT)),
    "a tree with an enum that imports": lambda p: signature(p).update(
        in_spec=tree("builtins.dict", json.dumps([{"__enum__": True, "fqn": "antigravity_of_mine:X", "name": "x"}]))
    ),
    "a tree with a key": lambda p: signature(p).update(in_spec=tree("builtins.dict", json.dumps([f"x={RUN}"]))),
    "a tree of its own class": lambda p: signature(p).update(in_spec=tree("mylib.Thing", "null")),
    "a deep tree": lambda p: signature(p).update(in_spec="[" * 100_000),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_hostile_program_is_refused(
    tmp_path: Path, members: dict[str, bytes], marker: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "antigravity_of_mine.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    files = changed(members, CHANGES[name])
    files["models/model.json"] = files["models/model.json"].replace(b"MARK", str(marker).encode())
    assert "--trust" in refusal(program_file(tmp_path / "net.pt2", files))
    assert "antigravity_of_mine" not in sys.modules


def test_the_program_is_read_when_nothing_is_changed(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = program_file(tmp_path / "net.pt2", changed(members, lambda parsed: None))
    assert load(SourceRequest(str(path))).provenance["format"] == "pt2"


def test_an_expression_does_run_when_trusted(tmp_path: Path, members: dict[str, bytes]) -> None:
    """The hole that the checks close is there."""
    made = tmp_path / "made"
    run = f"__import__('os').system('touch {made}')"
    path = program_file(tmp_path / "net.pt2", changed(members, lambda p: first_size(p).update(expr_str=run)))
    with contextlib.suppress(SourceError):
        load(SourceRequest(str(path), trust=True))
    assert made.exists()


SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def test_sample_inputs_run_nothing(tmp_path: Path, members: dict[str, bytes], marker: Path) -> None:
    path = program_file(tmp_path / "net.pt2", members | {SAMPLES: saved(((Evil(marker),), {}))})
    assert "wants to import posix.system" in refusal(path)


def test_sample_inputs_that_are_a_bare_pickle_run_nothing(
    tmp_path: Path, members: dict[str, bytes], marker: Path
) -> None:
    refusal(program_file(tmp_path / "net.pt2", members | {SAMPLES: pickle.dumps(Evil(marker))}))


def test_what_the_checks_overlook_torch_does_not_unpickle(
    tmp_path: Path, members: dict[str, bytes], marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.sources.archive.check_archive", lambda reader, sizes, where: None)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    refusal(program_file(tmp_path / "net.pt2", members | {SAMPLES: saved(((Evil(marker),), {}))}))
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_reader_that_tells_no_sizes_takes_those_of_the_other_one() -> None:
    """As torch's does before 2.12."""

    class Reader:
        def get_all_records(self) -> list[str]:
            return ["data.pkl", "data/0"]

    assert record_sizes(Reader(), {"data.pkl": 3, "data/0": 8, "version": 1}) == {"data.pkl": 3, "data/0": 8}
    with pytest.raises(SourceError, match="'data/0' lies in the archive for some readers only; do not use this file"):
        record_sizes(Reader(), {"data.pkl": 3})


def test_pickled_weights_run_nothing(tmp_path: Path, members: dict[str, bytes], marker: Path) -> None:
    def pickle_all(parsed: Any) -> None:
        for payload in parsed["config"].values():
            payload["use_pickle"] = True

    files = changed(members, pickle_all, WEIGHTS)
    files |= {name: saved(Evil(marker)) for name in files if name.startswith("data/weights/weight_")}
    refusal(program_file(tmp_path / "net.pt2", files))


@pytest.mark.parametrize("name", ["custom_obj_0", "opaque_obj_0", "../weights/weight_0"])
def test_pickled_objects_run_nothing(tmp_path: Path, members: dict[str, bytes], marker: Path, name: str) -> None:
    def add(parsed: Any) -> None:
        parsed["config"]["thing"] = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}

    files = changed(members, add, CONSTANTS)
    refusal(program_file(tmp_path / "net.pt2", files))
    content = {f"data/constants/{name}": pickle.dumps(Evil(marker))} if "/" not in name else {}
    refusal(program_file(tmp_path / "net.pt2", members | content)) if content else None


@pytest.mark.parametrize(
    "member",
    [
        "data/aotinductor/model/model.so",
        "data/aotinductor/model/wrapper.cpp",
        "data/executorch/model.pte",
        "data/weights/libevil.so",
        "data/weights/../../evil",
        "code/evil.py",
    ],
)
def test_compiled_and_unknown_members_are_refused(tmp_path: Path, members: dict[str, bytes], member: str) -> None:
    assert "--trust" in refusal(program_file(tmp_path / "net.pt2", members | {member: b"\x7fELF"}))


def bomb(*names: str) -> bytes:
    """An archive whose members unpack to gigabytes."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, size in [("net/data.pkl", 4), *((name, 400 * 2**20) for name in names)]:
            with archive.open(name, "w") as member:
                member.write(b"\x80\x02N." + bytes(size - 4))
    return written.getvalue()


def test_an_archive_within_one_unpacks_to_no_more_than_it_may(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = program_file(tmp_path / "net.pt2", members | {SAMPLES: bomb("net/data/0")})
    assert "would unpack" in refusal(path)


def test_a_large_member_is_not_hidden_by_a_small_one_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(bomb("net/data/0"))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/0", b"small")
    assert "would unpack" in refusal(path)


def test_legacy_weights_run_nothing(tmp_path: Path, members: dict[str, bytes], marker: Path) -> None:
    for name in ("data/weights/model.pt", "data/constants/model.pt"):
        assert "posix.system" in refusal(
            program_file(tmp_path / "net.pt2", members | {name: saved({"a": Evil(marker)})})
        )


def test_two_members_of_one_name_do_not_hide_one(tmp_path: Path, members: dict[str, bytes], marker: Path) -> None:
    """zipfile reads the last, torch's reader may read the first: whichever, it is the one that was checked."""
    run = RUN.replace("MARK", str(marker))
    bad = changed(members, lambda p: first_size(p).update(expr_str=run))["models/model.json"]
    for first, second in ((bad, members["models/model.json"]), (members["models/model.json"], bad)):
        with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
            for name, content in members.items():
                if name != "models/model.json":
                    archive.writestr(f"net/{name}", content)
            archive.writestr("net/models/model.json", first)
            archive.writestr("net/models/model.json", second)
        with contextlib.suppress(SourceError):
            load(SourceRequest(str(tmp_path / "net.pt2")))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_program_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["models/model.json", WEIGHTS, CONSTANTS, SAMPLES]))
    content = bytearray(members[name])
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = program_file(tmp_path_factory.getbasetemp() / "damaged.pt2", members | {name: bytes(content)})
    try:
        load(SourceRequest(str(path)))
    except SourceError as error:
        assert "\n" not in str(error)


# ── the grammar ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Pow(Symbol('s27', positive=True, integer=True), Integer(2)))",
        "TruncToInt(Mul(Float('1.5', precision=53), ToFloat(Symbol('s0', integer=True))))",
        "GreaterThan(Symbol('u0', integer=True), Integer(0))",
        "2*s0 + s1//2",
        "Max(1, s0 - 3) <= 7",
        "-s0 % 2",
    ],
)
def test_what_torch_writes_is_an_expression(written: str) -> None:
    assert is_expression(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s0.args",
        "s0[0]",
        "'text'",
        "lambda: 0",
        "[s0 for s0 in s1]",
        "eval('1')",
        "Symbol(eval('1'))",
        "Symbol('s0', evaluate=eval('1'))",
        "Symbol('s0', **s1)",
        "Add(*s1)",
        "(Add)(1)(2)",
        "sympify('1')",
        "Symbol('s0').func('1')",
        "__import__",
        "Symbol('__import__(1)')",
        "Pow(9, Pow(9, 99))",
        "Pow(9, Pow(9, Pow(9, 9)))",
        "Pow(Pow(Pow(9, 64), 64), 64)",
        "Pow(9, Mul(64, 64, 64))",
        "9**9**9",
        "s0 # x",
        "s0\n+1",
        "f'{s0}'",
        "s0 if s1 else s2",
        "(" * 5000 + "1" + ")" * 5000,
        "9" * 30_000,
        "1;2",
        "s0:=2",
    ],
)
def test_anything_else_is_none(written: str) -> None:
    assert not is_expression(written)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("L['x'].size()[0] > 4", True),
        ("((L['x'].size()[1]*L['y'].stride()[0]) % 2) == 0", True),
        ("math.trunc(1.5*torch.sym_float(1 + (((-1) + L['input'].size()[2]) // 2))) >= 2", True),
        ("torch.load('x')", False),
        ("L['x'].size(1)", False),
        ("L['x'].data", False),
        ("L['x'].size.__globals__", False),
        ("M['x'].size()[0] > 4", False),
        ("L['x\"'].size()[0] > 4", False),
        ('L["x"].size()[0] > 4', False),
        ("L['a b'].size()[0] > 4", False),
        ("L['x'].size()[0] > 4 and open('x')", False),
    ],
)
def test_guards(written: str, right: bool) -> None:
    assert is_guard(written) is right


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="s0129LSymbolA'dx.()[]=+-*/_,<> ", max_size=30))
def test_the_grammar_never_fails_and_lets_no_attribute_through(written: str) -> None:
    assert isinstance(is_guard(written), bool)
    if is_expression(written):
        assert "__" not in written.replace("'", "") or "Symbol" in written


def test_collections_stay_what_they_are() -> None:
    """OrderedDict is allowed, and the restricted unpickler fills its own kinds only."""
    assert "collections.OrderedDict" in ALLOWED_GLOBALS
    assert f"collections.{collections.defaultdict.__name__}" not in ALLOWED_GLOBALS


@pytest.mark.parametrize("number", ["9" * 40, "seven", "-1", ""])
@pytest.mark.parametrize("ending", [".pt", ".pt2", ".torchscript"])
def test_a_version_that_is_no_number_is_damage(tmp_path: Path, ending: str, number: str) -> None:
    """Torch's reader takes it for a number, and raises what C++ raises."""
    net, path = nn.Sequential(nn.Linear(3, 2)), tmp_path / f"net{ending}"
    if ending == ".pt":
        torch.save(net, path)
    elif ending == ".pt2":
        torch.export.save(torch.export.export(net, (torch.randn(2, 3),)), path)
    else:
        with pytest.warns(DeprecationWarning):
            torch.jit.script(net).save(str(path))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, number if name.endswith(("/version", "/.format_version")) else content)
    message = refusal(path)
    assert f"net{ending}" in message
