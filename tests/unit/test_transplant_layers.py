"""Transplants into networks of other layers: told apart by what stands around them, shared, recurrent, attending."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from test_transplant import check, first, moved, refused, simplified, slimmed
from torch import Tensor, nn
from transplant_tools import Run, around, legacy, modern, run_of, said, woken

from graftkit import api
from graftkit.plan import Graft

SAMPLES = Path(__file__).parents[2] / "sample_models"


class Alike(nn.Module):
    """Three layers with the very same weights and biases in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        middle = nn.Linear(5, 5)
        self.middle = nn.ModuleList(copy.deepcopy(middle) for _ in range(4))
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for layer in self.middle:
            x = torch.tanh(layer(x))
        return self.last(x)


class Twins(nn.Module):
    """Two layers of the same weights, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 5)
        self.right = copy.deepcopy(self.left)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.left(x)) + torch.tanh(self.right(x)))


class Zeros(nn.Module):
    """Biases of zeros, which optimisers make one of or drop, and slopes that are all 0.25."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 5), nn.PReLU(), nn.Linear(5, 5))
        self.head = nn.Linear(5, 3)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


class Grouped(nn.Module):
    """A depthwise convolution, a grouped one, and one that is its own transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 4, 1)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.pairs = nn.Conv2d(4, 6, 3, groups=2, padding="same")
        self.up = nn.ConvTranspose2d(6, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.deep(torch.relu(self.wide(x)))))
        return self.up(torch.relu(self.pairs(x))).mean((2, 3))


class Lines(nn.Module):
    """Convolutions of one dimension, the second called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, padding=1)
        self.again = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.again(torch.relu(self.again(x))))
        return self.head(x.mean(2))


class Tokens(nn.Module):
    """A transformer layer over a sequence, behind a linear embedding with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.places = nn.Parameter(0.1 * torch.randn(1, 5, 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def of(kind: str, *sites: str, **more: object) -> list[Graft]:
    return [Graft(site, kind, **more) for site in sites]  # type: ignore[arg-type]


GATE = (("mode", "gate"),)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Sequence[Graft]]] = {
    "alike": (Alike, (6,), [*of("full", "middle.0", "middle.2"), *of("lowrank", "middle.3", "middle.0")]),
    "zeros": (Zeros, (6,), of("full", "body.2", "head", neurons=(0, 2))),
    "grouped": (
        Grouped,
        (2, 6, 6),
        [
            *of("depthwise", "deep"),
            *of("full", "pairs", "up"),
            *of("context", "pairs"),
            *of("own", "deep"),
            *of("around", "up"),
        ],
    ),
    "lines": (
        Lines,
        (2, 7),
        [*of("full", "again:0"), *of("context", "again:1", options=GATE), *of("lowrank", "first"), *of("own", "first")],
    ),
    "tokens": (
        Tokens,
        (5, 4),
        [*of("context", "blocks.0.linear1", options=GATE), *of("lowrank", "blocks.1.linear2"), *of("full", "head")],
    ),
}


@pytest.fixture(scope="module", params=NETS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    build, shape, grafts = NETS[request.param]
    torch.manual_seed(0)
    return run_of(woken(build()), shape, grafts, tmp_path_factory.mktemp(request.param) / "run")


EXPORTS: dict[str, Callable[[nn.Module, Tensor], onnx.ModelProto]] = {
    "legacy": legacy,
    "legacy, nothing folded": lambda m, x: legacy(m, x, folding=False, keep=True),
    "modern": modern,
    "onnxsim": lambda m, x: simplified(legacy(m, x)),
    "onnxslim": lambda m, x: slimmed(modern(m, x)),
}


@pytest.mark.parametrize("export", EXPORTS)
def test_layers_of_all_kinds(run: Run, export: str, tmp_path: Path) -> None:
    done = check(run, EXPORTS[export](run.module, first(run)), tmp_path)
    assert done.sites == run.model.plan.sites()


def test_layers_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twins = run_of(Twins().eval(), (6,), of("full", "left"), tmp_path / "made/run")
    (tmp_path / "to").mkdir()
    told = refused(twins, legacy(twins.module, first(twins)), tmp_path / "to")
    assert "'left'" in told and "'right'" in told


def test_twins_that_stayed_as_they_were_need_not_be_told_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twins = run_of(Twins().eval(), (6,), of("full", "last"), tmp_path / "made/run", moved=False)
    (tmp_path / "to").mkdir()
    done = check(twins, legacy(twins.module, first(twins)), tmp_path / "to")
    assert done.updated == () and done.sites == ("last",)


def test_one_weight_for_several_layers_becomes_several(tmp_path: Path) -> None:
    """An optimiser kept one of four equal weights; after training they differ."""
    torch.manual_seed(0)
    alike = run_of(Alike().eval(), (6,), of("full", "middle.1"), tmp_path / "made/run")
    made = legacy(alike.module, first(alike))
    kept: dict[bytes, str] = {}
    same = {t.name: kept.setdefault(t.raw_data, t.name) for t in made.graph.initializer}
    for node in made.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    left = [tensor for tensor in made.graph.initializer if tensor.name in same.values()]
    del made.graph.initializer[:]
    made.graph.initializer.extend(left)
    (tmp_path / "to").mkdir()
    done = moved(alike, made, tmp_path / "to")
    np.testing.assert_allclose(said(done.path, alike.rows)[0], alike.expected(alike.rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "gru", "mlp", "cnn"])
@pytest.mark.parametrize("folding", [True, False])
def test_the_sample_models(name: str, folding: bool, tmp_path: Path) -> None:
    module = api.load(SAMPLES / f"{name}.pt", trust=True).model
    sites = {"vit": "blocks.1.mlp.0", "gru": "convolution", "mlp": "linear2", "cnn": "block2.conv"}
    grafts = [*of("context", sites[name]), *of("lowrank", "head")]
    sample = run_of(module.eval(), (1, 8, 8), grafts, tmp_path / "made/run")
    (tmp_path / "to").mkdir()
    check(sample, legacy(sample.module, first(sample), folding=folding), tmp_path / "to")


def test_a_layer_within_an_if_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twins = run_of(Alike().eval(), (6,), of("full", "last"), tmp_path / "made/run")
    made = legacy(twins.module, first(twins))
    last = made.graph.node.pop()
    info = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
    branches = []
    for sign in ("a", "b"):
        inner = onnx.NodeProto.FromString(last.SerializeToString())
        inner.output[0] = f"inner_{sign}"
        info = helper.make_tensor_value_info(inner.output[0], onnx.TensorProto.FLOAT, ["n", 3])
        branches.append(helper.make_graph([inner], sign, [], [info]))
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    made.graph.node.append(
        helper.make_node("If", ["always"], [last.output[0]], then_branch=branches[0], else_branch=branches[1])
    )
    (tmp_path / "to").mkdir()
    assert "has the layer 'last' or its dendrites inside an If" in refused(twins, made, tmp_path / "to")


def test_convolutions_of_all_kinds_within_a_product(tmp_path: Path) -> None:
    torch.manual_seed(0)
    grouped = run_of(woken(Grouped()), (2, 6, 6), NETS["grouped"][2], tmp_path / "made/run")
    (tmp_path / "to").mkdir()
    done = moved(grouped, around(modern(grouped.module, first(grouped))), tmp_path / "to")
    assert done.proved == "sites" and done.parity < 1e-4
