"""The other mode of what holds one mode: what is flipped, and that whatever is not has a note that names it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from graftkit import api as gk
from graftkit import tracing
from graftkit.model import TracedModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Body(nn.Module):
    """Two layers, and a function in between that sees the module: [N, 4] to [N, 2]."""

    def __init__(self, between: Callable[[Body, Tensor], Tensor] = lambda self, h: h, **parts: nn.Module):
        super().__init__()
        self.layer, self.head, self.between = nn.Linear(4, 4), nn.Linear(4, 2), between
        self.register_buffer("ema", torch.zeros(4))
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.layer(x)))


def program(module: nn.Module, *, decomposed: bool = False) -> ExportedProgram:
    found = torch.export.export(module, (torch.randn(4, 4),), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    return found.run_decompositions() if decomposed else found


def traced(module: nn.Module, *, decomposed: bool = False) -> TracedModel:
    return tracing.trace_program(program(module, decomposed=decomposed), name="net")


def is_random(graph: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    return not torch.equal(graph(x), graph(x))


# ── what has a flag is flipped ───────────────────────────────────────────────────────────────────

SWITCHED: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "dropout": lambda h, train: functional.dropout(h, 0.5, train),
    "dropout_": lambda h, train: torch.dropout_(h + 1, 0.5, train),
    "feature_dropout": lambda h, train: torch.feature_dropout(h[..., None], 0.5, train)[..., 0],
    "feature_dropout_": lambda h, train: torch.feature_dropout_(h[..., None] + 1, 0.5, train)[..., 0],
    "alpha_dropout": lambda h, train: torch.alpha_dropout(h, 0.5, train),
    "alpha_dropout_": lambda h, train: torch.alpha_dropout_(h + 1, 0.5, train),
    "feature_alpha_dropout": lambda h, train: torch.feature_alpha_dropout(h[..., None], 0.5, train)[..., 0],
    "feature_alpha_dropout_": lambda h, train: torch.feature_alpha_dropout_(h[..., None] + 1, 0.5, train)[..., 0],
    "native_dropout": lambda h, train: torch.native_dropout(h, 0.5, train)[0],
    "rrelu": lambda h, train: functional.rrelu(h, training=train),
    "rrelu_": lambda h, train: torch.rrelu_(h + 0, training=train),
}


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", SWITCHED)
def test_every_operator_with_a_flag_is_found_and_flipped(name: str, decomposed: bool) -> None:
    torch.manual_seed(0)
    module = Body(lambda self, h: SWITCHED[name](h, self.training)).train()
    found = traced(module, decomposed=decomposed)
    x = torch.randn(8, 4)
    assert is_random(found.train_graph, x)
    if not is_random(found.eval_graph, x):
        torch.testing.assert_close(found.eval_graph(x), module.eval()(x))
    else:  # what decomposing made of it is no longer one operator
        assert decomposed and any("random numbers are drawn in evaluation" in note for note in found.notes)


def test_a_decomposed_program_in_training_has_an_evaluation() -> None:
    torch.manual_seed(0)
    module = Body(lambda self, h: self.drop(self.norm(h)), norm=nn.BatchNorm1d(4), drop=nn.Dropout(0.5)).train()
    module.norm.running_mean.uniform_(-1, 1)
    found = traced(copy.deepcopy(module), decomposed=True)
    assert found.notes == ()
    x = torch.randn(8, 4)
    before = {name: value.clone() for name, value in found.tensors().items()}
    torch.testing.assert_close(found.eval_graph(x), module.eval()(x))
    assert all(torch.equal(before[name], value) for name, value in found.tensors().items())
    found.train_graph(x).sum().backward()
    module.train()(x)
    assert found.tensors()["norm.num_batches_tracked"] == 1
    torch.testing.assert_close(found.tensors()["norm.running_mean"], module.norm.running_mean)
    onnx = gk.to_onnx(gk.graft(found))
    assert not {"Dropout", "RandomUniformLike", "Bernoulli"} & {node.op_type for node in onnx.graph.node}


def test_a_decomposed_norm_in_evaluation_learns_in_training() -> None:
    torch.manual_seed(0)
    module = Body(lambda self, h: self.norm(h), norm=nn.BatchNorm1d(4)).eval()
    found = traced(copy.deepcopy(module), decomposed=True)
    x = torch.randn(8, 4)
    torch.testing.assert_close(found.eval_graph(x), module(x))
    torch.testing.assert_close(found.train_graph(x), module.train()(x))
    torch.testing.assert_close(found.tensors()["norm.running_mean"], module.norm.running_mean)
    assert not any("batch norm" in note for note in found.notes)


def test_dropout_within_a_region_is_flipped_and_the_program_stays_what_it_was() -> None:
    def within(self: Body, h: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.drop(h * 2).float()

    given = program(Body(within, drop=nn.Dropout(0.5)).train())
    found = tracing.trace_program(given, name="net")
    x = torch.randn(8, 4)
    assert is_random(found.train_graph, x) and not is_random(found.eval_graph, x)
    assert is_random(given.module(), torch.randn(4, 4))


# ── what has none is told ────────────────────────────────────────────────────────────────────────

DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda h: h + torch.normal(0.0, 1.0, (4,)),
    "normal_": lambda h: h + torch.zeros(4).normal_(),
    "uniform_": lambda h: h + torch.zeros(4).uniform_(),
    "exponential_": lambda h: h + torch.zeros(4).exponential_(),
    "randint": lambda h: h + torch.randint(0, 100_000, (4,)),
    "multinomial": lambda h: h + torch.multinomial(torch.ones(1000), 4),
    "randperm": lambda h: h + torch.randperm(1000)[:4],
    "bernoulli": lambda h: h * torch.bernoulli(torch.full((16, 4), 0.5)).sum(0),
    "poisson": lambda h: h + torch.poisson(torch.full((4,), 1000.0)),
    "rand_like": lambda h: h + torch.rand_like(h),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", DRAWS)
def test_what_stays_random_in_evaluation_is_named(name: str, train: bool) -> None:
    found = traced(Body(lambda self, h: DRAWS[name](h)).train(train))
    assert is_random(found.eval_graph, torch.randn(8, 4))
    (note,) = [note for note in found.notes if "random numbers are drawn in evaluation" in note]
    assert note.startswith(name.rstrip("_"))


def test_a_live_model_that_draws_in_evaluation_is_told_so() -> None:
    found = tracing.trace_module(Body(lambda self, h: DRAWS["uniform_"](h)), (torch.randn(4, 4),), name="net")
    assert any(note.startswith("uniform_") for note in found.notes)


UPDATES: dict[str, Callable[[Body, Tensor], object]] = {
    "in place": lambda self, h: self.ema.mul_(0.9).add_(h.detach().mean(0), alpha=0.1),
    "a view": lambda self, h: self.ema[1:].mul_(0.9),
    "a new one": lambda self, h: setattr(self, "ema", 0.9 * self.ema + 0.1 * h.detach().mean(0)),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", UPDATES)
def test_a_buffer_that_evaluation_writes_into_is_named(name: str, decomposed: bool, train: bool) -> None:
    module = Body(lambda self, h: (UPDATES[name](self, h), h + self.ema)[1]).train(train)
    found = traced(module, decomposed=decomposed)
    assert any(note.startswith("ema: evaluation writes into it") for note in found.notes)


def test_what_is_not_written_in_evaluation_needs_no_note() -> None:
    module = Body(lambda self, h: self.norm(h) + self.ema, norm=nn.BatchNorm1d(4))
    for decomposed in (False, True):
        assert traced(module.train(), decomposed=decomposed).notes == ()
    assert tracing.trace_module(module, (torch.randn(4, 4),), name="net").notes == ()


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_a_norm_whose_statistics_stay_is_named(momentum: float | None) -> None:
    module = Body(lambda self, h: self.norm(h), norm=nn.BatchNorm1d(4, momentum=momentum)).eval()
    found = traced(module)
    found.train_graph(torch.randn(8, 4) + 5)
    moved = bool(found.tensors()["norm.running_mean"].any())
    assert moved == (momentum is not None)
    assert moved != any("in norm: its momentum is 0" in note for note in found.notes)


# ── TorchScript that holds one mode ──────────────────────────────────────────────────────────────


class Recurrent(nn.Module):
    """Two recurrent layers with dropout between them: [N, 5, 4] to [N, 2]."""

    def __init__(self, kind: type[nn.Module]):
        super().__init__()
        self.recurrent, self.head = kind(4, 6, 2, dropout=0.5, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class Attends(nn.Module):
    """Attention with dropout, in training: [N, 5, 4] to [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)[:, None]
        y = functional.scaled_dot_product_attention(h, h, h, dropout_p=0.5 if self.training else 0.0)
        return self.head(y[:, 0].mean(1))


def scripted(module: nn.Module, x: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, x, check_trace=False)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_dropout_of_a_traced_script_follows_training(kind: type[nn.Module], train: bool) -> None:
    torch.manual_seed(0)
    module, x = Recurrent(kind).train(train), torch.randn(3, 5, 4)
    found = tracing.trace_module(scripted(module, x), (x,), name="net")
    x = torch.randn(6, 5, 4)
    assert is_random(found.train_graph, x) and not is_random(found.eval_graph, x)
    torch.testing.assert_close(found.eval_graph(x), module.eval()(x))
    assert any("recurrent layers follow training" in note for note in found.notes)


@pytest.mark.parametrize("train", [True, False])
def test_dropout_in_attention_of_a_traced_script_is_off_in_evaluation(train: bool) -> None:
    torch.manual_seed(0)
    module, x = Attends().train(train), torch.randn(3, 5, 4)
    found = tracing.trace_module(scripted(module, x), (x,), name="net")
    x = torch.randn(6, 5, 4)
    torch.testing.assert_close(found.eval_graph(x), module.eval()(x))
    assert is_random(found.train_graph, x) == train
    assert any("dropout of attention that was traced in evaluation" in note for note in found.notes)


def test_a_traced_script_that_stays_random_or_still_is_told() -> None:
    module = Body(lambda self, h: self.norm(h) + torch.rand_like(h), norm=nn.BatchNorm1d(4, momentum=None)).eval()
    x = torch.randn(4, 4)
    found = tracing.trace_module(scripted(module, x), (x,), name="net")
    assert any("random numbers are drawn" in note for note in found.notes)
    assert any("its momentum is 0" in note for note in found.notes)
