"""Weights at two places, modules called twice, computed weights: one dendrite a call, one weight for all."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations

from graftkit import api as gk
from graftkit import tracing
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import Graft, GraftPlan


class Tied(nn.Module):
    """An embedding that is the decoder, too; a layer called twice; another layer that has its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.decode = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.twice, self.borrows, self.drop = nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout(0.2)
        self.decode.weight = self.embed.weight
        self.borrows.weight = self.twice.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.twice(self.embed(ids)).relu()
        return self.decode(self.borrows(self.drop(self.twice(h).tanh())))


@pytest.fixture
def tied() -> tuple[Tied, TracedModel]:
    torch.manual_seed(0)
    module = Tied()
    return module, tracing.trace_module(module, ids(2), name="tied")


def ids(rows: int) -> Tensor:
    return torch.randint(7, (rows, 5))


def full(*sites: str) -> GraftPlan:
    return GraftPlan(tuple(Graft(site, "full", ()) for site in sites))


def loud(model: GraftedModel) -> GraftedModel:
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.normal_(0, 0.5)
    return model


def gradients(run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    torch.manual_seed(0)
    output = run(x)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same_training(module: nn.Module, traced: TracedModel, x: Tensor) -> None:
    """Two steps of training in eager and in the graph: gradients, weights and buffers."""
    twin = copy.deepcopy(module).train()
    module.train()
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (module, twin))
    for _ in range(2):
        expected, found = gradients(twin, twin, x), gradients(traced.train_graph, module, x)
        torch.testing.assert_close(found, expected)
        ours.step(), theirs.step()
        torch.testing.assert_close(module.state_dict(), twin.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(tracing.retrace(traced)(x), twin.eval()(x))
        torch.testing.assert_close(module.eval()(x), twin(x))


def assert_same_in_onnx(model: GraftedModel, path: Path, *batches: Tensor) -> None:
    gk.export(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = model.traced.signature.input_names
    for x in batches:
        with torch.no_grad():
            expected = model.eval()(x).numpy()
        (found, *_) = session.run(None, {name: x.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ── one weight, several calls ────────────────────────────────────────────────────────────────────


def test_every_call_is_a_site_of_its_own(tied: tuple[Tied, TracedModel]) -> None:
    module, traced = tied
    assert [site.key for site in traced.sites] == ["twice:0", "twice:1", "borrows", "decode"]
    shared = {site.key: site.weight for site in traced.sites}
    assert shared["twice:0"] == shared["twice:1"] == shared["borrows"] != shared["decode"]
    assert traced.train_graph.get_parameter(shared["twice:0"]) is module.twice.weight
    assert traced.train_graph.get_parameter(shared["decode"]) is module.embed.weight


def test_a_shared_weight_counts_once(tied: tuple[Tied, TracedModel]) -> None:
    module, traced = tied
    assert gk.graft(traced).parameter_count() == sum(p.numel() for p in module.parameters()) == 28 + 16 + 4 + 4


def test_gradients_of_shared_weights_are_summed_as_in_eager(tied: tuple[Tied, TracedModel]) -> None:
    module, traced = tied
    assert_same_training(module, traced, ids(3))
    assert module.decode.weight is module.embed.weight and module.borrows.weight is module.twice.weight


def test_one_dendrite_a_call(tied: tuple[Tied, TracedModel]) -> None:
    module, traced = tied
    x = ids(3)
    silent = gk.graft(traced).eval()(x)
    assert torch.equal(silent, module.eval()(x))
    changed = [loud(gk.graft(traced, full(site))).eval()(x) for site in ("twice:0", "twice:1", "borrows", "decode")]
    assert all(not torch.allclose(one, silent, atol=1e-3) for one in changed)
    assert not any(torch.allclose(a, b, atol=1e-3) for i, a in enumerate(changed) for b in changed[:i])

    torch.manual_seed(0)
    model = loud(gk.graft(traced, full("twice:0", "twice:1"))).train()
    model(x).square().sum().backward()
    first, second = ([p.grad for p in model.at(site).parameters()] for site in ("twice:0", "twice:1"))
    assert len(first) == len(second) > 0
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_site_called_twice_ships_with_both_dendrites(tied: tuple[Tied, TracedModel], tmp_path: Path) -> None:
    module, traced = tied
    model = loud(gk.graft(traced, full("twice:0", "twice:1", "borrows", "decode")))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(ids(4)).square().mean().backward()
        optimizer.step()
    assert module.decode.weight is module.embed.weight
    x = ids(6)
    fresh = gk.fresh_graph(model)
    with torch.no_grad():
        torch.testing.assert_close(fresh(x), model.eval()(x))
    assert_same_in_onnx(model, tmp_path / "tied.onnx", x, torch.randint(7, (1, 9)))
    (proto,) = [gk.read_onnx(tmp_path / "tied.onnx")]
    squares = [t.name for t in proto.graph.initializer if list(t.dims) == [7, 4]]
    assert len(squares) <= 1  # what is tied is stored once, in whichever direction


# ── weights that are computed from parameters ────────────────────────────────────────────────────


def normed(how: str) -> nn.Sequential:
    torch.manual_seed(0)
    apply: Callable[[nn.Module], nn.Module] = {
        "weight_norm": lambda m: parametrizations.weight_norm(m),
        "weight_norm, old": lambda m: utils.weight_norm(m),
        "spectral_norm": lambda m: parametrizations.spectral_norm(m),
        "spectral_norm, old": lambda m: utils.spectral_norm(m),
        "orthogonal": lambda m: parametrizations.orthogonal(m),
    }[how]
    first: nn.Module = nn.Linear(4, 4) if how == "orthogonal" else nn.Conv1d(4, 4, 3, padding=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old forms are deprecated, and many files hold them
        return nn.Sequential(apply(first), nn.Tanh(), nn.Flatten(), apply(nn.Linear(20, 3)))


def signals(rows: int, how: str) -> Tensor:
    return torch.randn(rows, 5, 4) if how == "orthogonal" else torch.randn(rows, 4, 5)


HOW = ("weight_norm", "weight_norm, old", "spectral_norm", "spectral_norm, old", "orthogonal")


@pytest.mark.parametrize("how", HOW)
def test_a_computed_weight_trains_as_in_eager(how: str) -> None:
    module = normed(how)
    before = copy.deepcopy(module.state_dict())
    traced = tracing.trace_module(module, signals(2, how), name="net")
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)  # no power iteration while tracing
    assert [site.key for site in traced.sites] == ["0", "3"]
    parameters = dict(traced.train_graph.named_parameters())
    assert all(site.weight in parameters for site in traced.sites)
    x = signals(6, how)
    state = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        traced.eval_graph(x)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)  # nor in evaluation
    assert_same_training(module, traced, x)
    moved = any("_u" in name and not torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert moved == ("spectral" in how)


@pytest.mark.parametrize("how", ["weight_norm, old", "spectral_norm"])
def test_a_computed_weight_ships_as_it_was_trained(how: str, tmp_path: Path) -> None:
    module = normed(how)
    model = loud(gk.graft(tracing.trace_module(module, signals(2, how), name="net"), full("0", "3"))).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(signals(5, how)).square().mean().backward()
        optimizer.step()
    assert_same_in_onnx(model, tmp_path / "net.onnx", signals(7, how), signals(1, how))


def test_a_weight_that_is_put_together_in_place() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(4, 2))
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            weight = torch.zeros(4, 4)
            weight[:, :2] = self.left
            weight[:, 2:].copy_(self.right)
            return self.head(nn.functional.linear(x, weight).relu())

    torch.manual_seed(0)
    module = Halves()
    traced = tracing.trace_module(module, torch.randn(2, 4), name="net")
    assert len(traced.sites) == 2 and traced.skipped == ()
    assert_same_training(module, traced, torch.randn(5, 4))  # and a fresh graph gives what the module gives


def test_a_weight_that_the_input_makes_is_no_site() -> None:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.body = nn.Linear(4, 16), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.body(x), self.make(x).mean(0).view(4, 4))

    traced = tracing.trace_module(Hyper(), torch.randn(2, 4), name="net")
    assert {site.key for site in traced.sites} == {"body", "make:0"}
    assert [call.reason for call in traced.skipped] == ["its weight is computed from the input"]


# ── the graphs themselves ────────────────────────────────────────────────────────────────────────


def test_edits_of_a_grafted_models_graphs_stay_there(tied: tuple[Tied, TracedModel]) -> None:
    _, traced = tied
    codes = traced.train_graph.code, traced.eval_graph.code
    places = [len(graph.graph.nodes) for graph in (traced.train_graph, traced.eval_graph)]
    first, second = gk.graft(traced, full("twice:0")), gk.graft(traced)
    for graph in first.graphs:
        next(n for n in graph.graph.nodes if n.op == "call_function").meta["mine"] = True
        graph.graph.erase_node(next(n for n in reversed(graph.graph.nodes) if n.op == "output"))
    fresh = tracing.retrace(traced)
    fresh.graph.erase_node(next(n for n in reversed(fresh.graph.nodes) if n.op == "output"))
    assert (traced.train_graph.code, traced.eval_graph.code) == codes
    assert [len(graph.graph.nodes) for graph in (traced.train_graph, traced.eval_graph)] == places
    for graph in (traced.train_graph, traced.eval_graph, *second.graphs):
        assert not any("mine" in node.meta for node in graph.graph.nodes)
        assert not any("dendrites" in name for name, _ in graph.named_modules() if graph not in second.graphs)
    assert second.eval()(ids(2)).shape == (2, 5, 7)
