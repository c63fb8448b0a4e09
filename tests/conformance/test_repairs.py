"""Every repair of tracing: where it applies, the graph computes and learns what the module does; elsewhere it changes
nothing."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import module_repair_examples
import pytest
import torch
from graph_repair_examples import APPLIES, SPARES, TAKEN_OUT
from module_repair_examples import MODULE_APPLIES, MODULE_SPARES, Dropping, Landmarks, Masking
from repair_example import Inputs
from torch import Tensor, fx, nn
from torch.export import Dim

from graftkit import tracing
from graftkit.core.errors import TraceError
from graftkit.tracing.free import fixed_size
from graftkit.tracing.quietly import quiet
from graftkit.tracing.repairs import GRAPH_REPAIRS, MODULE_REPAIRS
from graftkit.tracing.unlifting import unlift

WRONG = "buffers that the module moves in training stay as they are"
SPACE = vars(module_repair_examples)  # where the modules find Python's own functions


def exported(module: nn.Module, inputs: Inputs) -> fx.GraphModule:
    """As tracing gets it from torch.export, before any repair."""
    free = tuple({0: Dim.DYNAMIC} for _ in inputs)
    with quiet():
        return unlift(torch.export.export(module, inputs, dynamic_shapes=free, strict=False))


def more_rows(inputs: Inputs) -> Inputs:
    return tuple(torch.cat([x, x.flip(0), x[:1]]) for x in inputs)


def outcome(
    run: Callable[..., Tensor], module: nn.Module, inputs: Inputs
) -> tuple[Tensor, dict[str, Tensor | None], dict[str, Tensor]]:
    """(output, gradient of each parameter and input, buffers and weights afterwards) of one step of training."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.zero_grad()
    leaves = tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs)
    torch.manual_seed(0)
    output = run(*leaves)
    if output.requires_grad:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    gradients |= {f"input {i}": x.grad for i, x in enumerate(leaves) if x.is_floating_point()}
    after = {name: value.detach().clone() for name, value in module.state_dict().items()}
    assert not any(b.requires_grad for b in module.buffers()), "a buffer has become part of autograd's graph"
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(state[name])
    return output.detach(), gradients, after


def assert_learns_the_same(graph: fx.GraphModule, module: nn.Module, inputs: Inputs) -> None:
    # the graph first: a module that assigns its buffers anew no longer shares them afterwards
    found, expected = (outcome(run, module, inputs) for run in (graph, module))
    torch.testing.assert_close(found[0], expected[0])
    assert {n: g is None for n, g in found[1].items()} == {n: g is None for n, g in expected[1].items()}
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, msg=lambda text, name=name: f"gradient of {name}: {text}")
    torch.testing.assert_close(found[2], expected[2])


@pytest.fixture(autouse=True)
def masking(monkeypatch: pytest.MonkeyPatch) -> Masking:
    """In the place of transformers, which is no test's need."""
    stand_in = Masking("transformers.masking_utils")
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    return stand_in


# ── repairs of the graph ─────────────────────────────────────────────────────────────────────────


def test_every_repair_of_the_graph_has_examples() -> None:
    assert set(APPLIES) == set(SPARES) == set(TAKEN_OUT) == set(GRAPH_REPAIRS)


@pytest.mark.parametrize(("name", "example"), [(name, example) for name in APPLIES for example in APPLIES[name]])
def test_a_repaired_graph_computes_and_learns_the_same(name: str, example: str) -> None:
    torch.manual_seed(0)
    case = APPLIES[name][example]
    module, inputs = case.make().train(), case.inputs()
    graph = exported(copy.deepcopy(module), inputs)  # what is noted on a graph may not stick to the module
    graph = _over(graph, module)
    assert any(TAKEN_OUT[name](node) for node in graph.graph.nodes)
    GRAPH_REPAIRS[name](graph)
    graph.recompile()
    graph.graph.lint()
    assert not any(TAKEN_OUT[name](node) for node in graph.graph.nodes)
    for values in (inputs, more_rows(inputs)):
        assert_learns_the_same(_over(graph, module), module, values)


@pytest.mark.parametrize(("name", "example"), [(name, example) for name in SPARES for example in SPARES[name]])
def test_a_repair_leaves_other_graphs_alone(name: str, example: str) -> None:
    case = SPARES[name][example]
    module, inputs = case.make(), case.inputs()
    graph = exported(module, inputs)
    before, code = list(graph.graph.nodes), graph.code
    assert GRAPH_REPAIRS[name](graph) is None
    graph.recompile()
    assert list(graph.graph.nodes) == before and graph.code == code


@pytest.mark.parametrize(("name", "example"), [(name, example) for name in APPLIES for example in APPLIES[name]])
def test_every_new_call_says_what_it_gives_and_leaves_sizes_free(name: str, example: str) -> None:
    """Sites, sizes and outputs are read from it."""
    case = APPLIES[name][example]
    graph = exported(case.make(), case.inputs())
    GRAPH_REPAIRS[name](graph)
    assert all("val" in node.meta for node in graph.graph.nodes if node.op == "call_function")
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    assert [fixed_size(value.shape[0]) for value in inputs] == [None] * len(inputs)


def test_a_projected_lstm_that_is_given_its_state_is_refused() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.LSTM(4, 6, proj_size=3)

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x.transpose(0, 1), (x[None, :, 0, :3], x.new_ones(1, x.shape[0], 6)))[0]

    graph = exported(Given(), (torch.randn(2, 5, 4),))
    with pytest.raises(TraceError, match="the LSTM with proj_size in 'part' is given the state that it starts from"):
        GRAPH_REPAIRS["projected_lstm"](graph)


def _over(graph: fx.GraphModule, module: nn.Module) -> fx.GraphModule:
    """The graph over a module's own parameters and buffers."""
    for name, parameter in module.named_parameters():
        owner, _, leaf = name.rpartition(".")
        setattr(graph.get_submodule(owner), leaf, parameter)
    for name, buffer in module.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(graph.get_submodule(owner), leaf, buffer)
    return graph


# ── repairs of the module ────────────────────────────────────────────────────────────────────────


def test_every_repair_of_the_module_has_examples() -> None:
    assert set(MODULE_APPLIES) == set(MODULE_SPARES) == set(MODULE_REPAIRS)


@pytest.mark.parametrize(
    ("name", "example"), [(name, example) for name in MODULE_APPLIES for example in MODULE_APPLIES[name]]
)
def test_a_repaired_module_can_be_traced_and_is_left_as_it_was(name: str, example: str) -> None:
    torch.manual_seed(0)
    case = MODULE_APPLIES[name][example]
    module = case.make().train()
    known, spaces = _attributes(module), set(SPACE)
    with MODULE_REPAIRS[name](module, True) as note:
        assert (note is None) == (case.note is None) and (case.note or "") in (note or "")
    assert _attributes(module) == known and set(SPACE) == spaces
    with pytest.raises(RuntimeError, match="in between"), MODULE_REPAIRS[name](module, True):
        raise RuntimeError("in between")
    assert _attributes(module) == known and set(SPACE) == spaces

    traced = tracing.trace_module(module, torch.randn(2, 4), name="net")
    assert tuple(site.key for site in traced.sites) == case.sites
    assert any((case.note or "") in note for note in traced.notes) or case.note is None
    x = torch.randn(5, 4)
    expected = module.eval()(x)
    torch.testing.assert_close(traced.eval_graph(x), expected)
    if case.drawn:
        torch.testing.assert_close(traced.train_graph(x), expected)
    else:
        assert_learns_the_same(traced.train_graph, module.train(), (x,))
    assert _attributes(module.train()) == known and set(SPACE) == spaces


@pytest.mark.parametrize("name", MODULE_APPLIES)
def test_without_the_repair_it_goes_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or torch has mended it, and the repair can go."""
    assert isinstance(MODULE_REPAIRS, dict)
    monkeypatch.delitem(MODULE_REPAIRS, name)
    case = next(iter(MODULE_APPLIES[name].values()))
    random.seed(0)
    try:
        traced = tracing.trace_module(case.make(), torch.randn(2, 4), name="net")
    except TraceError:
        return
    assert tuple(site.key for site in traced.sites) != case.sites or any(WRONG in note for note in traced.notes)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", MODULE_SPARES)
def test_a_repair_leaves_other_modules_alone(name: str, train: bool) -> None:
    module = MODULE_SPARES[name]().eval()
    known, output = _attributes(module), module(torch.ones(2, 4))
    with MODULE_REPAIRS[name](module, train) as note:
        assert note is None and _attributes(module) == known
        assert torch.equal(module(torch.ones(2, 4)), output)


def test_layers_are_dropped_in_evaluation_nowhere() -> None:
    """There the share counts for nothing, and is not touched."""
    module = Dropping("module", 0.9).eval()
    with MODULE_REPAIRS["layerdrop"](module, False) as note:
        assert note is None and module.layerdrop == 0.9


def _attributes(module: nn.Module) -> list[dict[str, Any]]:
    """Everything plain that hangs on its parts."""
    plain = [{k: v for k, v in vars(part).items() if not k.startswith("_")} for part in module.modules()]
    return [{k: vars(v) | {} if isinstance(v, SimpleNamespace) else v for k, v in part.items()} for part in plain]


def test_a_mask_that_is_needed_is_left_alone(masking: Masking) -> None:
    """A window over part of the sequence is a mask of its own."""
    repair = MODULE_REPAIRS["needless_mask"]
    with repair(Landmarks(local=2), False):
        assert masking._ignore_bidirectional_mask_sdpa(None, 4)
        assert not masking._ignore_bidirectional_mask_sdpa(None, 4, 2)
        assert not masking._ignore_bidirectional_mask_sdpa(None, 4, local_attention_size=2)
        assert not masking._ignore_bidirectional_mask_sdpa(torch.ones(2, 4), 4)
        assert MODULE_REPAIRS and vars(masking)["_ignore_bidirectional_mask_sdpa"](None)  # as transformers 5.0 calls it
    assert "_ignore_bidirectional_mask_sdpa" not in vars(masking)
