"""Sources: what is read, by content, and what is refused in one line."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim, ExportedProgram

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources import SOURCES, load

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, input):
        return self.linear(input)

def build():
    return Net()

def needs(width):
    return Net()

def broken():
    raise ValueError("no such width\\nand more")

def other():
    return 3

made = Net()
number = 7
"""


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3))


def read(spec: object, *, trust: bool = False, weights: Path | None = None) -> LoadedModel:
    return load(SourceRequest(str(spec), weights, trust))


def refusal(spec: object, *, trust: bool = False, weights: Path | None = None) -> str:
    """The one line that a request is refused with."""
    with pytest.raises(SourceError) as caught:
        read(spec, trust=trust, weights=weights)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def net_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `own_net.py` in it, which is on nobody's path."""
    (tmp_path / "own_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    yield tmp_path
    sys.modules.pop("own_net", None)


@pytest.fixture
def own_pickle(net_folder: Path) -> Path:
    """A pickled model with a class of its own, whose module is forgotten again."""
    torch.save(read("own_net:build").model, net_folder / "own.pt")
    del sys.modules["own_net"]
    return net_folder / "own.pt"


# ── pickles ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trust", [True, False])
def test_a_pickled_module_comes_back_as_it_was(tmp_path: Path, training: bool, trust: bool) -> None:
    net = small_net().train(training)
    torch.save(net, tmp_path / "net.pt")
    loaded = read(tmp_path / "net.pt", trust=trust)
    assert isinstance(loaded.model, nn.Sequential)
    assert all(module.training is training for module in loaded.model.modules())
    assert torch.equal(loaded.model.eval()(torch.ones(2, 4)), net.eval()(torch.ones(2, 4)))
    assert loaded.name == "net"
    assert loaded.provenance == {
        "path": str(tmp_path / "net.pt"),
        "format": "pickle",
        "sha256": hashlib.sha256((tmp_path / "net.pt").read_bytes()).hexdigest(),
        "trust": trust,
        "allow": [],
    }


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, activation="gelu"), 2),
        lambda: nn.TransformerEncoderLayer(4, 2),
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.Sequential(nn.LSTM(3, 3), nn.GRU(3, 3, bidirectional=True), nn.RNN(3, 3)),
        lambda: nn.ModuleDict({"a": nn.ModuleList([nn.PReLU(), nn.Unflatten(1, (2, 2)), nn.ConstantPad2d(1, 0.5)])}),
        lambda: nn.ParameterDict({"a": nn.Parameter(torch.zeros(1))}),
        lambda: nn.Sequential(nn.Embedding(3, 4), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d((1, None))),
        lambda: nn.Linear(2, 2, dtype=torch.bfloat16),
    ],
)
def test_torch_nn_needs_no_trust(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    net = make()
    torch.save(net, tmp_path / "net.pt")
    found = read(tmp_path / "net.pt").model.state_dict()
    assert found.keys() == net.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in net.state_dict().items())


def test_the_ending_does_not_matter(tmp_path: Path) -> None:
    torch.save(small_net(), tmp_path / "net.onnx")
    assert read(tmp_path / "net.onnx").provenance["format"] == "pickle"


def test_a_class_of_its_own_needs_trust(own_pickle: Path) -> None:
    message = refusal(own_pickle)
    assert "wants to import own_net.Net" in message
    assert "--trust" in message
    assert "own_net" not in sys.modules
    assert type(read(own_pickle, trust=True).model).__name__ == "Net"


def test_trust_finds_the_class_beside_the_file_and_leaves_the_path_alone(
    own_pickle: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    before = list(sys.path)
    assert type(read(own_pickle, trust=True).model).__name__ == "Net"
    assert sys.path == before


def test_a_missing_module_is_named(own_pickle: Path) -> None:
    (own_pickle.parent / "own_net.py").unlink()
    message = refusal(own_pickle, trust=True)
    assert "needs the module own_net" in message
    assert "PYTHONPATH" in message


def test_a_missing_class_is_named(own_pickle: Path) -> None:
    (own_pickle.parent / "own_net.py").write_text("")
    assert "'Net'" in refusal(own_pickle, trust=True)


def test_a_class_from_a_script_gets_a_hint(own_pickle: Path) -> None:
    rewrite(own_pickle, lambda data: data.replace(b"cown_net\nNet", b"c__main__\nNet"))
    assert "script that saved it" in refusal(own_pickle, trust=True)


def rewrite(path: Path, change: Callable[[bytes], bytes], member: str = "data.pkl") -> None:
    """Write the archive again with one member changed."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, change(content) if name.endswith("/" + member) else content)


# ── exported programs ────────────────────────────────────────────────────────────────────────────


class Branching(nn.Module):
    """Leaves guards, symbolic sizes, control flow and an assertion in its program."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(2, ceil_mode=True)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:
        if input.shape[0] > 2:
            input = input * self.scale
        with torch.no_grad():
            kept = input + 1
        count = input.sum().int().item()
        torch._check(count >= 0)
        bent = torch.cond(input.sum() > 0, torch.sin, torch.cos, (input,))
        mixed = torch.einsum("bi,bi->b", bent, kept).softmax(0)
        return {"pooled": self.pool(input), "mixed": mixed, "ones": torch.ones(count)}


@pytest.fixture(scope="module")
def program_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "branching.pt2"
    program = torch.export.export(Branching(), (torch.ones(4, 6),), dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},))
    assert program._guards_code
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize("trust", [True, False])
def test_an_exported_program_comes_back(program_file: Path, trust: bool) -> None:
    loaded = read(program_file, trust=trust)
    assert isinstance(loaded.model, ExportedProgram)
    assert loaded.provenance["format"] == "pt2"
    input = torch.rand(5, 8)
    found = loaded.model.module(check_guards=False)(input)
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        key: tuple(value.shape) for key, value in Branching()(input).items()
    }


def test_an_exported_program_is_read_under_any_name(program_file: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(program_file.read_bytes())
    assert read(tmp_path / "net.pt").name == "net"


# ── factories ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("factory", ["build", "Net", "made"])
def test_a_factory_gives_a_module(net_folder: Path, factory: str) -> None:
    loaded = read(f"own_net:{factory}")
    assert type(loaded.model).__name__ == "Net"
    assert loaded.name == factory
    assert loaded.provenance["factory"] == f"own_net:{factory}"
    assert loaded.provenance["sha256"] is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("own_nte:build", "Did you mean own_net?"),
        ("own_net.deeper:build", "no module own_net.deeper"),
        ("own_net:bulid", "Did you mean build?"),
        ("own_net:needs", "width"),
        ("own_net:broken", "ValueError: no such width"),
        ("own_net:other", "of type int, not an nn.Module"),
        ("own_net:number", "is of type int"),
        ("own_net.py:build", "own_net:build"),
        ("models/own_net.py:build", "models.own_net:build"),
        ("failing:build", "ZeroDivisionError"),
        ("leaving:build", "SystemExit"),
        ("importing:build", "needs the module no_such_package"),
    ],
)
def test_a_factory_that_does_not_work_says_why(net_folder: Path, spec: str, said: str) -> None:
    (net_folder / "failing.py").write_text("1 / 0")
    (net_folder / "leaving.py").write_text("raise SystemExit")
    (net_folder / "importing.py").write_text("import no_such_package")
    assert said in refusal(spec)


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_weights_fill_a_factory(net_folder: Path, form: str) -> None:
    state = {"linear.weight": torch.ones(3, 4), "linear.bias": torch.zeros(3)}
    path = net_folder / "weights.bin"
    save_file(state, path) if form == "safetensors" else torch.save(state, path)
    loaded = read("own_net:build", weights=path)
    assert torch.equal(loaded.model.linear.weight, state["linear.weight"])
    assert loaded.provenance["weights"] == str(path)
    assert loaded.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"linear.weight": torch.ones(3, 4)}, "lacks linear.bias"),
        ({"linear.weight": torch.ones(3, 5), "linear.bias": torch.ones(3)}, "linear.weight ([3, 5] instead of [3, 4])"),
        ({f"layer{index}": torch.ones(1) for index in range(9)}, "unexpected layer0, layer1, layer2 and 6 more"),
        ({"epoch": 3, "model": {}}, "holds a dict of epoch, model"),
        ([1, 2], "holds a list"),
    ],
)
def test_weights_that_do_not_fit_are_told(net_folder: Path, state: object, said: str) -> None:
    torch.save(state, net_folder / "weights.pt")
    assert said in refusal("own_net:build", weights=net_folder / "weights.pt")


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"hello", "neither"), (b"PK\x03\x04", "cut short")])
def test_weights_that_are_none(net_folder: Path, content: bytes, said: str) -> None:
    (net_folder / "weights.pt").write_bytes(content)
    assert said in refusal("own_net:build", weights=net_folder / "weights.pt")


def test_a_whole_module_is_no_weights(net_folder: Path) -> None:
    torch.save(nn.Linear(2, 2), net_folder / "net.pt")
    assert "whole module" in refusal("own_net:build", weights=net_folder / "net.pt")


def test_options_that_do_not_belong_together_are_told(net_folder: Path, program_file: Path) -> None:
    torch.save(small_net(), net_folder / "net.pt")
    torch.save({"linear.weight": torch.ones(3, 4)}, net_folder / "weights.pt")
    whole, weights = str(net_folder / "net.pt"), net_folder / "weights.pt"
    cases = {
        SourceRequest(whole, weights): "brings its own weights; --weights goes with package.module:factory",
        SourceRequest(str(weights), weights, arch="own_net:build"): "brings its own weights",
        SourceRequest(whole, arch="own_net:build"): "is a whole module, not a state dict; give it alone",
        SourceRequest(str(program_file), arch="own_net:build"): "brings its own architecture; --arch goes with",
        SourceRequest("own_net:build", arch="own_net:build"): "is an architecture itself",
        SourceRequest(whole, arch_args=(("width", "3"),)): "is made already; --arch-args go with --arch",
        SourceRequest(str(weights), arch="own_net"): "own_net is no architecture; write timm:NAME, hf:FOLDER",
    }
    for request, said in cases.items():
        with pytest.raises(SourceError) as caught:
            load(request)
        assert said in str(caught.value)


# ── what is none of these ────────────────────────────────────────────────────────────────────────


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"net/{name.replace('_dot_', '.')}", content)
    return buffer.getvalue()


def saved(value: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"just words\n", "is a text file"),
        ("schön".encode() * 100, "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"),
        (b"\xff\xfe\x00\x01\x02" * 9, "is not a model file that graftkit knows"),
        (b"\x08\x0a\x12\x07pytorch", "ONNX"),
        (b'\x20\x00\x00\x00\x00\x00\x00\x00{"a":{}}', "safetensors"),
        (zipped(hello=b""), "neither torch.save"),
        (zipped(data_dot_pkl=b"")[:40], "cut short"),
        (zipped(data_dot_pkl=b"junk"), "damaged"),
        (zipped(archive_format=b"pt2"), "damaged"),
        (pickle.dumps([1]), "bare pickle"),
        (saved(small_net(), _use_new_zipfile_serialization=False), "before torch 1.6"),
        (saved(small_net().state_dict()), "is a state dict"),
        (saved({"epoch": 3, "loss": 0.5}), "holds a dict of epoch, loss"),
        (saved([torch.ones(2)]), "holds a list"),
        (saved(small_net())[:3000], "cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the bytes of an archive hold the time
)
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "net.pt").write_bytes(content)
    assert said in refusal(tmp_path / "net.pt")


def test_torchscript_is_read_as_a_model_and_not_as_weights(net_folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(4, 3)), net_folder / "net.pt")
    assert read(net_folder / "net.pt").provenance["format"] == "torchscript"
    assert "is a TorchScript archive, which holds a whole model" in refusal(
        "own_net:build", weights=net_folder / "net.pt"
    )


def test_an_old_format_is_read_with_trust(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(saved(small_net(), _use_new_zipfile_serialization=False))
    assert isinstance(read(tmp_path / "net.pt", trust=True).model, nn.Sequential)


def test_a_bare_pickle_is_none_with_trust_either(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(pickle.dumps([1]))
    assert "cannot be loaded" in refusal(tmp_path / "net.pt", trust=True)


@pytest.mark.parametrize("spec", ["nowhere.pt", "no/such/folder/net.pt2", "net\0.pt"])
def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(spec)


def test_a_folder_is_none(tmp_path: Path) -> None:
    assert "folder" in refusal(tmp_path)


def test_the_table_knows_its_names() -> None:
    assert list(SOURCES) == [source.name for source in SOURCES.values()]


# ── damage ───────────────────────────────────────────────────────────────────────────────────────

GOOD = saved(small_net())
PICKLE = zipfile.ZipFile(io.BytesIO(GOOD)).read("archive/data.pkl")


def reads_or_refuses(path: Path) -> None:
    try:
        assert isinstance(read(path), LoadedModel)
    except SourceError as error:
        assert "\n" not in str(error)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(GOOD) - 1))
def test_a_file_cut_short_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pt"
    path.write_bytes(GOOD[:length])
    refusal(path)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 8 * len(GOOD) - 1))
def test_a_flipped_bit_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    flipped = bytearray(GOOD)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    reads_or_refuses(path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(PICKLE) - 1), st.integers(0, 255))
def test_a_changed_pickle_with_a_right_checksum_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    path.write_bytes(GOOD)
    rewrite(path, lambda data: data[:place] + bytes([byte]) + data[place + 1 :])
    reads_or_refuses(path)
