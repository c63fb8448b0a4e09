"""What tracing finds in a module, what it shares with it, and what it leaves alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from graftkit import surgery, tracing
from graftkit.core.errors import TraceError
from graftkit.core.records import EdgeRecord
from graftkit.model import TracedModel


def trace(module: nn.Module, *inputs: Tensor, name: str = "net") -> TracedModel:
    return tracing.trace_module(module, inputs, name=name)


def export_program(module: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    return torch.export.export(module, inputs, dynamic_shapes=free, strict=False)


def keys(traced: TracedModel) -> list[str]:
    return [site.key for site in traced.sites]


def run(graph: Callable[[Tensor], Tensor], inputs: Tensor, *, seed: int = 0) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return graph(inputs)


class Convs(nn.Module):
    """Two blocks, the second with a shortcut, dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.inner = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2)
        self.shortcut = nn.Conv2d(4, 4, 1, stride=2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        x = functional.gelu(self.inner(x)) + self.shortcut(x)
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def convs() -> tuple[Convs, TracedModel]:
    """One trace of `Convs`; tests may change its buffers, and put nothing else out of place."""
    torch.manual_seed(0)
    module = Convs()
    return module, trace(module, torch.randn(2, 2, 6, 8))


# ── sites ────────────────────────────────────────────────────────────────────────────────────────


def test_sites_in_order_with_what_follows_them(convs: tuple[Convs, TracedModel]) -> None:
    _, traced = convs
    assert keys(traced) == ["block.0", "inner", "shortcut", "head"]
    followed = {site.key: site.followed_by for site in traced.sites}
    assert followed == {"block.0": ("batch_norm", "relu"), "inner": ("gelu",), "shortcut": (), "head": ()}
    assert [site.key for site in traced.sites if site.feeds_output] == ["head"]
    assert traced.skipped == () and traced.name == "net"


def test_shapes_parameters_and_macs_by_hand(convs: tuple[Convs, TracedModel]) -> None:
    _, traced = convs
    first, inner, shortcut, head = traced.sites
    assert (first.input_shape, first.output_shape) == ((-1, 2, -1, -1), (-1, 4, -1, -1))
    assert (first.parameters, first.macs, first.positions) == (2 * 4 * 9, 2 * 4 * 9 * 48, 48)
    assert (inner.parameters, inner.macs, inner.positions) == (4 * 2 * 9 + 4, 4 * 2 * 9 * 12, 12)
    assert (shortcut.parameters, shortcut.macs) == (4 * 4 + 4, 16 * 12)
    assert (head.parameters, head.macs, head.positions) == (15, 12, 1)
    assert first.operator == "conv2d" and head.operator == "linear" and first.weight == "block.0.weight"
    assert inner.geometry is not None
    assert (inner.geometry.kernel, inner.geometry.stride, inner.geometry.groups) == ((3, 3), (2, 2), 2)
    assert (first.in_channels, first.out_channels, head.in_channels, head.out_channels) == (2, 4, 4, 3)
    assert all(site.batch_dim == 0 for site in traced.sites)


def test_edges_are_the_data_flow_between_sites(convs: tuple[Convs, TracedModel]) -> None:
    _, traced = convs
    pairs = [("", "block.0"), ("block.0", "inner"), ("block.0", "shortcut"), ("inner", "head"), ("shortcut", "head")]
    assert traced.edges == tuple(EdgeRecord(*pair) for pair in [*pairs, ("head", "")])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def test_attention_has_two_sites() -> None:
    traced = trace(Attention(), torch.randn(2, 5, 8))
    assert keys(traced) == ["attention:0", "attention:1", "head"]
    assert [traced.site(f"attention:{i}").out_channels for i in (0, 1)] == [24, 8]
    assert traced.site("attention:0").path == "attention"
    assert EdgeRecord("attention:0", "attention:1") in traced.edges


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.relu(self.layer(torch.tanh(self.layer(x)))), self.weight)


def test_a_shared_module_and_a_functional_call() -> None:
    traced = trace(Shared(), torch.randn(2, 4))
    assert keys(traced) == ["layer:0", "layer:1", "weight"]
    assert [site.weight for site in traced.sites] == ["layer.weight", "layer.weight", "weight"]
    assert [site.followed_by for site in traced.sites] == [("tanh",), ("relu",), ()]
    assert sum(p.numel() for p in surgery.empty(traced).parameters()) == 20 + 12


class Conv1D(nn.Module):
    """As in GPT-2: a Linear whose weight lies the other way."""

    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(given, wanted)), nn.Parameter(torch.randn(wanted))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


def test_addmm_is_a_linear_site() -> None:
    traced = trace(nn.Sequential(Conv1D(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)), torch.randn(2, 3, 4))
    first = traced.site("0")
    assert (first.operator, first.in_channels, first.out_channels, first.parameters) == ("linear", 4, 6, 30)
    assert first.batch_dim is None and first.positions == 3 and first.macs == 24 * 3


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normed = parametrizations.weight_norm(nn.Linear(4, 4))
        self.gru = nn.GRU(4, 3, batch_first=True)
        self.pair = nn.Bilinear(3, 3, 4)
        self.matrix = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.gru(self.normed(x))[0][:, -1]
        return self.head(self.pair(hidden, hidden) @ self.matrix)


def test_calls_that_cannot_be_sites_are_skipped_with_a_reason() -> None:
    traced = trace(Odd(), torch.randn(2, 5, 4))
    assert keys(traced) == ["normed", "head"]  # a dendrite does not mind that its neuron's weight is computed
    reasons = {call.key: (call.operator, call.reason) for call in traced.skipped}
    assert reasons["gru"] == ("gru", "its Linear calls are inside one recurrent operator")
    assert reasons["pair"] == ("bilinear", "a bilinear call has two inputs")
    assert reasons["matrix"] == ("matmul", "a matrix product with a parameter, not a Linear call")
    assert len(reasons) == 3


class OnlyInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.extra, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        return self.head(x + self.extra(x) if self.training else x)


def test_a_call_of_one_mode_alone_is_no_site() -> None:
    traced = trace(OnlyInTraining(), torch.randn(2, 4))
    assert keys(traced) == ["body", "head"]
    assert [(call.key, call.reason) for call in traced.skipped] == [("extra", "called only in training mode")]


# ── what is shared with the module, and what is left alone ───────────────────────────────────────


def test_graphs_share_every_parameter_and_buffer_with_the_module(convs: tuple[Convs, TracedModel]) -> None:
    module, traced = convs
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for graph in (traced.train_graph, traced.eval_graph):
        held = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
        assert held and all(tensor is own[name] for name, tensor in held.items())
    assert set(traced.tensors()) == set(own)
    grafted = surgery.empty(traced)
    assert {id(p) for p in grafted.base.parameters()} == {id(p) for p in module.parameters()}


def test_tracing_leaves_modes_buffers_and_randomness_alone() -> None:
    module = Convs()
    module.block[1].eval()
    module.drop.eval()
    modes = [m.training for m in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(3)
    random.seed(3)
    expected, python = torch.rand(4), random.random()
    torch.manual_seed(3)
    random.seed(3)
    trace(module, torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(4), expected) and random.random() == python
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


class Caching(nn.Module):
    """Makes a buffer the first time it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "cached"):
            self.register_buffer("cached", torch.ones(3))
        return self.layer(x) + self.cached


def test_a_buffer_made_on_the_way_gives_a_trace_or_one_line() -> None:
    try:
        traced = trace(Caching(), torch.randn(2, 4))
    except TraceError as error:
        assert "\n" not in str(error)
    else:
        assert keys(traced) == ["layer"]


def test_graphs_compute_what_the_module_computes_in_each_mode(convs: tuple[Convs, TracedModel]) -> None:
    module, traced = convs
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    inputs = torch.randn(5, 2, 6, 8)
    for train, graph in ((False, traced.eval_graph), (True, traced.train_graph)):
        expected = run(module.train(train), inputs)
        module.load_state_dict(state)
        assert torch.equal(run(graph, inputs), expected)
        module.load_state_dict(state)


def test_batch_norm_learns_and_dropout_drops_in_training_alone(convs: tuple[Convs, TracedModel]) -> None:
    module, traced = convs
    norm = module.block[1]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = surgery.empty(traced)
    inputs = 3 + torch.randn(16, 2, 6, 8)
    run(model.eval(), inputs)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    first, second = (run(model.train(), inputs, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert int(norm.num_batches_tracked) == int(state["block.1.num_batches_tracked"]) + 2
    seen = torch.nn.functional.conv2d(inputs, module.block[0].weight, padding=1).mean((0, 2, 3))
    mean = state["block.1.running_mean"]
    for _ in range(2):
        mean = 0.9 * mean + 0.1 * seen
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)
    assert torch.equal(run(model.eval(), inputs, seed=0), run(model.eval(), inputs, seed=1))
    module.load_state_dict(state)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(2, 4))


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> str:
        return str(x.ndim)


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no\nsuch thing")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (FixedBatch(), "it fixes its batch size, which has to stay free"),
        (Nothing(), "Nothing returns no tensor"),
        (Failing(), "net cannot be traced: it fails itself on the example: ValueError: no"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_one_line(module: nn.Module, words: str) -> None:
    with pytest.raises(TraceError, match=words) as caught:
        trace(module, torch.randn(2, 4))
    assert "\n" not in str(caught.value)


# ── tracing again ────────────────────────────────────────────────────────────────────────────────


class Stale(nn.Module):
    """Keeps a value in `eval()` that depends on its weights, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.kept: Tensor | None = None

    def train(self, mode: bool = True) -> Stale:
        super().train(mode)
        self.kept = None if mode else (2 * self.scale).detach()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (2 * self.scale if self.training or self.kept is None else self.kept)


def test_a_fresh_graph_has_the_weights_of_now() -> None:
    module = Stale()
    traced = trace(module, torch.randn(2, 4))
    with torch.no_grad():
        module.scale.fill_(3)
    inputs = torch.randn(3, 4)
    fresh = tracing.retrace(traced)
    assert torch.allclose(run(fresh, inputs), 6 * run(module.layer, inputs))
    marked = [node.meta["graftkit_site"] for node in fresh.graph.nodes if "graftkit_site" in node.meta]
    assert marked == ["layer"]


def test_retrace_changes_neither_graph(convs: tuple[Convs, TracedModel]) -> None:
    _, traced = convs
    before = (traced.train_graph.code, traced.eval_graph.code)
    fresh = tracing.retrace(traced)
    assert (traced.train_graph.code, traced.eval_graph.code) == before
    assert fresh is not traced.eval_graph
    inputs = torch.randn(3, 2, 6, 8)
    assert torch.equal(run(fresh, inputs), run(traced.eval_graph, inputs))


# ── exported programs ────────────────────────────────────────────────────────────────────────────


class Norms(nn.Module):
    """What behaves differently in the two modes, and norms that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.norm, self.own = nn.BatchNorm2d(4), nn.InstanceNorm2d(4)
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.maps, self.drop = nn.Dropout2d(0.3), nn.Dropout(0.4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps(torch.relu(self.norm(self.first(x))))
        return self.head(self.drop(self.batch(self.own(x) + x).square().mean((2, 3))))


@pytest.mark.parametrize("train", [False, True])
def test_a_program_flips_both_ways_exactly(train: bool) -> None:
    torch.manual_seed(1)
    module = Norms().train(train)
    inputs = torch.randn(4, 2, 6, 6)
    traced = tracing.trace_program(export_program(module, (inputs[:3],)), name="program")
    assert traced.source is None and keys(traced) == ["first", "head"]
    for mode, graph in ((False, traced.eval_graph), (True, traced.train_graph)):
        assert torch.equal(run(graph, inputs), run(module.train(mode), inputs))
    one, two = run(traced.train_graph, inputs, seed=1), run(traced.train_graph, inputs, seed=2)
    assert not torch.equal(one, two)
    assert torch.equal(run(traced.eval_graph, inputs, seed=1), run(traced.eval_graph, inputs, seed=2))
    assert bool(traced.notes) is (not train)


def test_a_training_programs_evaluation_counts_nothing() -> None:
    module = Convs().train()
    traced = tracing.trace_program(export_program(module, (torch.randn(2, 2, 6, 8),)), name="program")
    held = {name: tensor for name, tensor in traced.tensors().items() if "num_batches_tracked" in name}
    before = {name: int(tensor) for name, tensor in held.items()}
    run(traced.eval_graph, torch.randn(3, 2, 6, 8))
    assert {name: int(tensor) for name, tensor in held.items()} == before


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1) + torch.rand_like(x[:, 0]) if self.training else x.mean(1))


def test_notes_say_what_cannot_be_flipped() -> None:
    inputs = torch.randn(2, 5, 8)
    module = Noisy()
    training = tracing.trace_program(export_program(module.train(), (inputs,)), name="program")
    assert len(training.notes) == 1 and "random numbers are drawn in evaluation as well" in training.notes[0]
    evaluation = tracing.trace_program(export_program(module.eval(), (inputs,)), name="program")
    assert any("dropout inside attention" in note for note in evaluation.notes)
    assert any("stochastic depth" in note for note in evaluation.notes)
    assert torch.allclose(run(evaluation.eval_graph, inputs), run(module.eval(), inputs), atol=1e-6)


def test_a_program_with_a_fixed_batch_is_refused() -> None:
    program = torch.export.export(nn.Linear(4, 3), (torch.randn(2, 4),), strict=False)
    with pytest.raises(TraceError, match=r"fixes the batch size of 'input_1' to 2.*Dim.DYNAMIC") as caught:
        tracing.trace_program(program, name="program")
    assert "\n" not in str(caught.value)


def test_a_program_without_examples_is_refused_and_keywords_are_inputs() -> None:
    module = nn.Linear(4, 3)
    program = export_program(module, (torch.randn(2, 4),))
    program.example_inputs = None
    with pytest.raises(TraceError, match="saved without example inputs"):
        tracing.trace_program(program, name="program")
    named = torch.export.export(
        module, (), {"input": torch.randn(2, 4)}, dynamic_shapes={"input": {0: torch.export.Dim.DYNAMIC}}, strict=False
    )
    traced = tracing.trace_program(named, name="program")
    assert (traced.signature.input_names, keys(traced)) == (("input",), ["weight"])


def test_a_programs_fresh_graph_shares_its_weights() -> None:
    traced = tracing.trace_program(export_program(Convs().eval(), (torch.randn(2, 2, 6, 8),)), name="program")
    fresh = tracing.retrace(traced)
    own = dict(traced.eval_graph.named_parameters())
    assert all(p is own[name] for name, p in fresh.named_parameters())


def test_a_graph_module_takes_its_inputs_by_name() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(a) - b, "other": b}

    module = torch.fx.symbolic_trace(Pair())
    example = {"b": torch.randn(2, 4), "a": torch.randn(2, 4)}
    traced = tracing.trace_module(module, example, name="pair")
    assert traced.signature.input_names == ("b", "a") and traced.signature.output_names == ("logits", "other")
    found = traced.eval_graph(*(example[name] for name in traced.signature.input_names))
    assert torch.allclose(found[0], module(**example)["logits"])
