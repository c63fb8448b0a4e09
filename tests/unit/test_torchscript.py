"""TorchScript: read without running anything, and replayed so that it can be traced like any live module."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from graftkit import tracing
from graftkit.contracts import SourceRequest
from graftkit.core.errors import SourceError, TraceError
from graftkit.sources.torchscript import BAKED, FROZEN, TorchScript
from graftkit.sources.torchscript_safety import _calls
from graftkit.tracing.replay.interpreter import _MOST
from graftkit.tracing.scripted import capture_scripted, replayed
from graftkit.tracing.sites import calls
from graftkit.tracing.unlifting import unlift

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


class Net(nn.Module):
    """A convolution, a batch norm, dropout, a recurrent layer, and an `if` over the sizes: [N, 1, 8, 8] to [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.gru = nn.GRU(32, 6, batch_first=True)
        self.heads = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 3)])

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.relu(self.norm(self.conv(images))).permute(0, 2, 1, 3)
        rows = rows.reshape(rows.size(0), rows.size(1), -1)
        found = self.drop(self.gru(rows)[0][:, -1])
        for head in self.heads:
            found = head(found)
        return found


class Pair:
    """A class that TorchScript compiles."""

    def __init__(self, first: Tensor) -> None:
        self.first = first


class Holding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Pair(x).first


class Deciding(nn.Module):
    """Takes one of two ways, by the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.up(x) if x.sum() > 0 else self.down(x)
        return self.last(y)


IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def trained(module: nn.Module) -> nn.Module:
    """In eval mode, with statistics that are not those of a fresh batch norm."""
    torch.manual_seed(0)
    for inner in module.modules():
        if isinstance(inner, nn.BatchNorm2d):
            inner.running_mean.uniform_(-1, 1)
            inner.running_var.uniform_(0.5, 2)
    return module.eval()


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def made(module: nn.Module, how: str) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "traced":
            return torch.jit.trace(module, IMAGES[:2], check_trace=False)
        script = torch.jit.script(module)
        return torch.jit.freeze(script) if how == "frozen" else script


def saved(module: torch.jit.ScriptModule, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, str(path))
    return path


def read(path: Path, *, trust: bool = False) -> nn.Module:
    return TorchScript().load(SourceRequest(str(path), trust=trust)).model  # type: ignore[return-value]


# ── what is read computes the same, can be traced, and is trained ────────────────────────────────


@pytest.mark.parametrize("how", ["scripted", "traced", "frozen"])
def test_an_archive_computes_what_was_saved(tmp_path: Path, how: str) -> None:
    model = trained(Net())
    loaded = TorchScript().load(SourceRequest(str(saved(made(model, how), tmp_path / "net.pt"))))
    assert loaded.provenance["format"] == "torchscript"
    assert loaded.name == "net"
    torch.testing.assert_close(loaded.model(IMAGES), model(IMAGES), atol=1e-6, rtol=1e-5)
    assert loaded.warnings == {"scripted": (), "traced": (BAKED,), "frozen": (FROZEN,)}[how]


@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_modules_and_weights_keep_their_names(tmp_path: Path, how: str) -> None:
    model = trained(Net())
    found = read(saved(made(model, how), tmp_path / "net.pt"))
    assert [name for name, _ in found.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert all(isinstance(parameter, nn.Parameter) and parameter.requires_grad for parameter in found.parameters())
    assert set(dict(found.named_buffers())) == set(dict(model.named_buffers()))


@pytest.mark.parametrize("how", ["scripted", "traced", "frozen"])
def test_every_call_with_weights_is_found_under_its_name(tmp_path: Path, how: str) -> None:
    model = read(saved(made(trained(Net()), how), tmp_path / "net.pt"))
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: Dim.DYNAMIC},))
    expected = ["conv", "gru.weight_ih_l0", "heads.0", "heads.1"]
    if how == "frozen":
        expected = ["conv2d_0", "gru_0.weights_0", "linear_0", "linear_1"]
    assert list(calls(unlift(program).graph)) == expected


@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_the_batch_stays_free_and_inputs_keep_their_names(tmp_path: Path, how: str) -> None:
    model = trained(Net())
    found = read(saved(made(model, how), tmp_path / "net.pt"))
    graph = unlift(torch.export.export(found, (IMAGES,), dynamic_shapes=({0: Dim.DYNAMIC},)))
    assert [node.target for node in graph.graph.nodes if node.op == "placeholder"] == ["images"]
    other = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(graph(other), model(other), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_training_mode_is_followed(tmp_path: Path, how: str) -> None:
    model = trained(Net())
    found = read(saved(made(model, how), tmp_path / "net.pt"))
    before = found.norm.running_mean.clone()
    torch.manual_seed(3)
    first = found.train()(IMAGES)
    torch.manual_seed(3)
    second = model.train()(IMAGES)
    torch.testing.assert_close(first, second)
    assert not torch.equal(before, found.norm.running_mean)
    torch.testing.assert_close(found.norm.running_mean, model.norm.running_mean)


def test_a_step_of_training_changes_what_it_computes(tmp_path: Path) -> None:
    model = read(saved(made(trained(Net()), "traced"), tmp_path / "net.pt"))
    before = model(IMAGES)
    before.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    assert not torch.allclose(before, model(IMAGES), atol=1e-3)


def test_a_model_scripted_here_shares_its_parameters() -> None:
    model = trained(Net())
    found = replayed(scripted(model))
    assert all(a is b for a, b in zip(model.parameters(), found.parameters(), strict=True))


def test_tied_weights_stay_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    found = replayed(scripted(Tied()))
    assert found.second.weight is found.first.weight


# ── control flow ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_decision_by_values_stays_in_the_graph(sign: float) -> None:
    torch.manual_seed(0)
    model = Deciding().eval()
    graph = unlift(capture_scripted(scripted(model), (torch.randn(2, 6),)))
    assert any(node.target is torch.ops.higher_order.cond for node in graph.graph.nodes)
    assert {id(p) for p in graph.parameters()} == {id(p) for p in model.parameters()}
    x = sign * torch.linalg.lstsq(model.first.weight, torch.ones(6)).solution.expand(5, 6)
    assert (model.first(x).sum() > 0) == (sign > 0)  # both ways are taken
    torch.testing.assert_close(graph(x), model(x))


def test_an_assertion_is_left_out() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            if x.max() > 1e9:
                raise ValueError("too large")
            return self.layer(x)

    model = Careful()
    graph = unlift(capture_scripted(scripted(model), (torch.randn(2, 3),)))
    x = torch.randn(4, 3)
    torch.testing.assert_close(graph(x), model(x))
    assert list(calls(graph.graph)) == ["layer"]


def test_a_loop_that_ends_by_values_is_refused_with_its_line() -> None:
    class Endless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while x.sum() < 10:
                x = x * 2
            return x

    with pytest.raises(TraceError, match=r"loop ends by the values of a tensor.*test_torchscript.py"):
        capture_scripted(scripted(Endless()), (torch.ones(2, 3),))


def test_what_cannot_be_captured_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A mean over all batches takes a tensor's value for its weight; torch prints how far it came."""
    model = scripted(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None)).train())
    with pytest.raises(TraceError) as told:
        capture_scripted(model, (torch.randn(3, 4),))
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")


def test_lists_dicts_and_optional_arguments_are_replayed() -> None:
    class Python(nn.Module):
        def forward(self, x: Tensor, scale: float = 2.0) -> dict[str, Tensor]:
            parts: list[Tensor] = []
            for index in range(3):
                if index % 2 == 0:
                    parts.append(x * index + scale)
            found = {"all": torch.cat(parts, 1)}
            found["count"] = torch.full([len(parts)], float(len(parts)))
            return found

    model = scripted(Python())
    x = torch.randn(2, 3)
    for arguments in ((x,), (x, 5.0)):
        right, found = model(*arguments), replayed(model)(*arguments)
        assert set(found) == set(right)
        for key in right:
            torch.testing.assert_close(found[key], right[key])


def test_an_old_traced_linear_is_a_linear_call() -> None:
    """torch before 1.8 traced a Linear over a sequence as matmul(x, t(weight)) + bias."""

    class Old(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.matmul(x, self.weight.t()).add_(self.bias)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.trace(Old(), torch.randn(2, 4, 3))
    graph = unlift(capture_scripted(model, (torch.randn(2, 4, 3),)))
    assert torch.ops.aten.linear.default in {node.target for node in graph.graph.nodes}
    x = torch.randn(6, 4, 3)
    torch.testing.assert_close(graph(x), model(x))


# ── regions ──────────────────────────────────────────────────────────────────────────────────────


class Regions(nn.Module):
    """A part that no error reaches, in a region that also asks how many rows there are."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed, self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.fixed(x)
            if x.size(0) > 1:
                h = h * 2
        with torch.autograd.profiler.record_function("layer"):
            h = self.layer(h + x)
        return self.head(h)


class Switches(Regions):
    def forward(self, x: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        h = self.fixed(x)
        torch.set_grad_enabled(True)
        return self.head(self.layer(h + x))


@pytest.mark.parametrize("kind", [Regions, Switches])
def test_no_error_passes_a_region_without_gradients(tmp_path: Path, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind()
    found = read(saved(scripted(model), tmp_path / "net.pt"), trust=True)  # record_function is a class of torch's own
    traced = tracing.trace_module(found, (torch.randn(3, 4),), name="net")
    assert {site.key for site in traced.sites} == {"layer", "head"}
    x = torch.randn(5, 4)
    torch.testing.assert_close(traced.eval_graph(x), model(x))
    model(x).square().sum().backward()
    for run in (found, traced.train_graph):
        found.zero_grad()
        run(x).square().sum().backward()
        learned = {name: p.grad for name, p in found.named_parameters() if p.grad is not None}
        expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        torch.testing.assert_close(learned, expected)
        assert "fixed.weight" not in learned


def test_gradients_are_on_again_after_an_error_in_a_region() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = x.reshape(7, 13)
            return x + 1

    with pytest.raises(RuntimeError, match="shape"):
        replayed(scripted(Breaks()))(torch.randn(2, 3))
    assert torch.is_grad_enabled()


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu"):
            x = self.layer(x)
        return x + 1


class Full(Half):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.layer(x)
        return x + 1


@pytest.mark.parametrize("kind", [Half, Full])
def test_a_region_of_another_precision_is_kept(kind: type[nn.Module]) -> None:
    model, x = kind(), torch.randn(3, 4)
    found = replayed(scripted(model))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind is Full):
        torch.testing.assert_close(found(x), model(x))  # dtypes, too


def test_an_object_of_another_class_is_refused_with_its_name_and_line() -> None:
    model = Holding()
    with pytest.raises(TraceError, match=r"object of the class \S*Pair, which is not replayed .*test_torchscript.py"):
        replayed(scripted(model))(torch.randn(2, 3))


# ── hostile archives ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that any code which runs would make; it must not be there after the test."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def archive() -> dict[str, bytes]:
    """The members of a good archive."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(3, 2))), buffer)
    with zipfile.ZipFile(buffer) as zipped:
        return {name.split("/", 1)[1]: zipped.read(name) for name in zipped.namelist()}


def code_of(archive: dict[str, bytes]) -> str:
    """The member that holds the code of the Linear; what was scripted before in this process changes its name."""
    return next(n for n, content in archive.items() if n.endswith(".py") and b"torch.linear(input" in content)


def written(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(f"net/{name}", content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_archive_as_it_is_can_be_read(tmp_path: Path, archive: dict[str, bytes]) -> None:
    assert read(written(tmp_path / "net.pt", archive))(torch.zeros(1, 3)).shape == (1, 2)


@pytest.mark.parametrize(
    ("true", "told", "said"),
    [
        (b"K\x06t", b"K\xfat", "names a storage larger than what it holds"),
        (b"K\x02K\x03t", b"K\xf2K\xf3t", "reaches beyond its storage"),
        (b"K\x03K\x01t", b"J\xff\xff\xff\x7fK\x01t", "reaches beyond its storage"),
        (b"K\x03K\x01t", b"J\xfd\xff\xff\xffK\x01t", "with arguments of its own"),
    ],
)
def test_a_tensor_shows_nothing_but_its_record(
    tmp_path: Path, archive: dict[str, bytes], true: bytes, told: bytes, said: str
) -> None:
    """Torch's reader believes what the pickle says, and would show, or train and ship, what else lies in memory."""
    assert true in archive["data.pkl"]
    broken = archive | {"data.pkl": archive["data.pkl"].replace(true, told, 1)}
    assert said in refusal(written(tmp_path / "net.pt", broken))


def test_nothing_in_a_script_is_called_by_a_number(tmp_path: Path, archive: dict[str, bytes]) -> None:
    """As torch's reader would: it keeps the functions that were named in a list."""
    pickled = archive["data.pkl"][:2] + b"ctorch._utils\n_rebuild_tensor_v2\nK\x00)R."
    assert "by a number" in refusal(written(tmp_path / "net.pt", archive | {"data.pkl": pickled}))


def hostile_module(marker: Path) -> torch.jit.ScriptModule:
    """Writes the marker when it is unpickled."""

    class Hostile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = str(marker)

        def forward(self, x: Tensor) -> Tensor:
            return x

        @torch.jit.export
        def __getstate__(self) -> tuple[str, bool]:
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.path = state[0]
            self.training = state[1]
            torch.save(torch.ones(1), state[0])

    return scripted(Hostile())


def test_code_that_runs_while_loading_is_refused(tmp_path: Path, marker: Path) -> None:
    path = saved(hostile_module(marker), tmp_path / "net.pt")
    message = refusal(path)
    assert "__getstate__" in message
    assert message.endswith("pass --trust")


def test_it_would_have_run(tmp_path: Path) -> None:
    """The archive above does write the file when it is trusted, or refusing it would prove nothing."""
    made_by_it = tmp_path / "made"
    path = saved(hostile_module(made_by_it), tmp_path / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._C.import_ir_module(torch._C.CompilationUnit(), str(path), torch.device("cpu"), {}, False)
    assert made_by_it.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("    torch.save(weight, 'MARK')", "torch.save"),
        ("    ops.aten.save(weight, 'MARK')", "aten.save"),
        ("    (ops.aten\n    .save)(weight, 'MARK')", "aten"),
        ("    (torch.  # a word\n    save)(weight, 'MARK')", "torch."),
        ("    weight = torch.from_file('MARK', True, 4)", "from_file"),
        ("    weight = ops.mylib.run(weight)", "ops.mylib"),
        ("    weight = ops.quantized.linear_prepack(weight)", "ops.quantized"),
        ("    q = __torch__.torch.classes.dist_rpc.Thing()", "torch.classes"),
        ("    import os", "import"),
    ],
)
def test_code_that_reaches_beyond_the_model_is_refused(
    tmp_path: Path, archive: dict[str, bytes], marker: Path, line: str, words: str
) -> None:
    code = code_of(archive)
    text = archive[code].decode().replace("    bias = self.bias\n", "    bias = self.bias\n" + line + "\n", 1)
    assert line in text
    changed = archive | {code: text.replace("MARK", str(marker)).encode()}
    message = refusal(written(tmp_path / "net.pt", changed))
    assert words in message
    assert "--trust" in message


@pytest.mark.parametrize("name", ["__torch__.torch.classes.rpc.Thing", "os.system", "builtins.eval", "torch.load"])
def test_a_pickle_that_names_more_is_refused(tmp_path: Path, archive: dict[str, bytes], name: str) -> None:
    module, _, last = name.rpartition(".")
    pickled = archive["data.pkl"][:2] + f"c{module}\n{last}\n0".encode() + archive["data.pkl"][2:]
    assert name in refusal(written(tmp_path / "net.pt", archive | {"data.pkl": pickled}))


def test_bare_pickles_inside_are_not_unpickled_in_python(
    tmp_path: Path, archive: dict[str, bytes], marker: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return exec, (f"open({str(marker)!r}, 'w')",)

    for protocol in range(2, 6):
        for member in ("data.pkl", "constants.pkl", code_of(archive) + ".debug_pkl"):
            changed = archive | {member: pickle.dumps(Evil(), protocol)}
            refusal(written(tmp_path / "net.pt", changed))


def deep(text: str, levels: int) -> str:
    return text.replace(
        "torch.linear(input, weight, bias)", "-(" * levels + "torch.linear(input, weight, bias)" + ")" * levels
    )


@pytest.mark.parametrize("levels", [200, 5000, 200_000])
def test_nesting_does_not_crash(tmp_path: Path, archive: dict[str, bytes], levels: int) -> None:
    code = code_of(archive)
    message = refusal(written(tmp_path / "net.pt", archive | {code: deep(archive[code].decode(), levels).encode()}))
    assert "nests deeper" in message or "damaged" in message


def test_what_doubles_at_every_call_is_refused(tmp_path: Path, archive: dict[str, bytes]) -> None:
    """Forty functions, each of which calls the one before twice: a trillion operations in a few lines."""
    doubling = [f"def f{i + 1}(x: Tensor) -> Tensor:\n  y = __torch__.f{i}\n  return y(y(x, ), )\n" for i in range(40)]
    functions = "def f0(x: Tensor) -> Tensor:\n  return torch.neg(x)\n" + "".join(doubling)
    code, call = code_of(archive), "torch.linear(input, weight, bias)"
    text = archive[code].decode().replace(call, f"__torch__.f40({call}, )")
    changed = archive | {
        code: text.encode(),
        "code/__torch__.py": functions.encode() + archive.get("code/__torch__.py", b""),
    }
    assert "would grow to over" in refusal(written(tmp_path / "net.pt", changed))


def test_the_size_of_a_real_model_is_known() -> None:
    model = scripted(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert _calls(model.forward.graph)[""] < _calls(model.forward.inlined_graph)[""] < 20


@pytest.mark.parametrize(
    "body",
    [
        "    n = torch.dim(bias)\n    for i in range(9223372036854775807):\n      n = n + 1\n    bias = bias * n\n",
        "    n = torch.dim(bias) + 2\n    while bool(n > 0):\n      n = n * n\n    bias = bias * n\n",
        "    n = torch.dim(bias) + 9\n    bias = bias * n ** 1000000000\n",
        "    l = [bias]\n    for i in range(100):\n      l = torch.add(l, l)\n    bias = torch.stack(l)\n",
        "    l = [torch.dim(bias)] * 100000000000\n    bias = bias * l[0]\n",
        "    bias = torch.zeros([1000000000, 100000000])\n",
    ],
)
def test_code_that_never_ends_or_fills_the_memory_fails(tmp_path: Path, archive: dict[str, bytes], body: str) -> None:
    code = code_of(archive)
    text = archive[code].decode().replace("    bias = self.bias\n", "    bias = self.bias\n" + body, 1)
    model = read(written(tmp_path / "net.pt", archive | {code: text.encode()}))
    with pytest.raises((TraceError, RuntimeError)) as caught:
        model(torch.zeros(2, 3))
    assert re.search(f"{_MOST}|no model needs|any model needs|allocate|memory", str(caught.value))


def test_a_damaged_archive_is_refused(tmp_path: Path, archive: dict[str, bytes]) -> None:
    whole = written(tmp_path / "net.pt", archive).read_bytes()
    for cut in (len(whole) // 3, len(whole) - 30):
        (tmp_path / "cut.pt").write_bytes(whole[:cut])
        with pytest.raises(SourceError):
            read(tmp_path / "cut.pt")
    missing = {name: content for name, content in archive.items() if name != "data.pkl"}
    refusal(written(tmp_path / "net.pt", missing))
    refusal(written(tmp_path / "net.pt", archive | {code_of(archive): b"class Linear(Module):\n  x : Tensor\n"}))


def test_a_bomb_is_refused(tmp_path: Path, archive: dict[str, bytes]) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in archive.items():
            zipped.writestr(f"net/{name}", content)
        with zipped.open("net/data/99", "w") as member:
            for _ in range(300):
                member.write(bytes(2**20))
    assert "do not use it" in refusal(path)
