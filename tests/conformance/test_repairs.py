"""Every repair of tracing: where it applies, the graph computes and learns what the module does; elsewhere it changes
nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.nn import functional

from graftkit import tracing
from graftkit.tracing.capture import unlift
from graftkit.tracing.repairs import GRAPH_REPAIRS, MODULE_REPAIRS

aten = torch.ops.aten
Inputs = tuple[Tensor, ...]


def exported(module: nn.Module, inputs: Inputs) -> fx.GraphModule:
    """As tracing gets it from torch.export, before any repair."""
    free = tuple({0: Dim.DYNAMIC} for _ in inputs)
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
    expected, found = (outcome(run, module, inputs) for run in (module, graph))
    torch.testing.assert_close(found[0], expected[0])
    assert {n: g is None for n, g in found[1].items()} == {n: g is None for n, g in expected[1].items()}
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, msg=lambda text, name=name: f"gradient of {name}: {text}")
    torch.testing.assert_close(found[2], expected[2])


# ── repairs of the graph ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Example:
    """A module and its inputs."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]


class Body(nn.Module):
    """Two layers, a buffer and a function of them."""

    def __init__(self, body: Callable[[Body, Tensor], Tensor]):
        super().__init__()
        self.one, self.two, self.body = nn.Linear(4, 4), nn.Linear(4, 4), body
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def _frozen(self: Body, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = self.one(x)
    return self.two(h) + x


def _several(self: Body, x: Tensor) -> Tensor:
    h = self.one(x)
    with torch.no_grad():
        a, b = self.one(x).chunk(2, 1)
    return self.two(h) + torch.cat([b, a], 1)


def _nested(self: Body, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = self.one(x)
        with torch.enable_grad():
            y = self.two(h)
        z = self.one(h) * 2
    k = self.two(y + 0.5)
    with torch.no_grad():
        late = self.one(k) * 3
        with torch.enable_grad(), torch.no_grad():
            later = self.one(late)
    return y * z + k + late - later


def _running_average(self: Body, x: Tensor) -> Tensor:
    h = self.one(x)
    with torch.no_grad():
        self.average.mul_(0.9).add_(h.mean(0), alpha=0.1)
    return self.two(h - self.average)


def _clamped_weight(self: Body, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.two.weight.clamp_(-0.2, 0.2)
    return self.two(self.one(x))


def _written_afterwards_used(self: Body, x: Tensor) -> Tensor:
    h = self.one(x) * 1.5
    with torch.no_grad():
        h.add_(self.two(x))
    return self.two(h + 1)


def _detach(self: Body, x: Tensor) -> Tensor:
    return self.two(self.one(x).detach()) + self.one(x)


class Attention(nn.Module):
    """Attention over `dims` dimensions: heads within windows for five, one head for three."""

    def __init__(self, dims: int = 5, dropout: float = 0.0, **how: Any):
        super().__init__()
        self.qkv, self.out, self.dims, self.dropout, self.how = nn.Linear(4, 12), nn.Linear(4, 4), dims, dropout, how

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        heads = {3: (), 4: (2,), 5: (1, 2)}[self.dims]
        parts = [self._split(part, heads) for part in self.qkv(x).chunk(3, -1)]
        dropout = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(*parts, attn_mask=mask, dropout_p=dropout, **self.how)
        return self.out(y.flatten(1, -3).transpose(1, 2).flatten(2) if heads else y)

    def _split(self, part: Tensor, heads: tuple[int, ...]) -> Tensor:
        return part if not heads else part.unflatten(-1, (*heads, 4 // heads[-1])).movedim(1, -2)


def mask_of(kind: str) -> Tensor:
    """For two rows of five tokens, to spread over the heads of five dimensions."""
    torch.manual_seed(1)
    seen = (torch.rand(2, 1, 1, 5, 5) > 0.4) | torch.eye(5, dtype=torch.bool)
    if "dead" in kind:
        seen[0, ..., 2, :] = False  # a query that may look at nothing
    return torch.where(seen, torch.randn(2, 1, 1, 5, 5), -torch.inf) if "float" in kind else seen


def tokens(*masks: str) -> Callable[[], Inputs]:
    return lambda: (torch.randn(2, 5, 4), *map(mask_of, masks))


class Distances(nn.Module):
    def __init__(self, power: float):
        super().__init__()
        self.layer, self.codes, self.power = nn.Linear(4, 4), nn.Parameter(torch.randn(3, 4)), power

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return torch.cat([torch.cdist(h, self.codes, self.power), torch.cdist(h, h, self.power)], -1)


class Subtracts(nn.Module):
    """A number minus whole numbers, as masks are turned round."""

    def __init__(self, number: float, factor: float = 1):
        super().__init__()
        self.embed, self.layer, self.number, self.factor = nn.Embedding(9, 4), nn.Linear(4, 4), number, factor

    def forward(self, ids: Tensor) -> Tensor:
        turned = torch.rsub(ids, self.number, alpha=self.factor)
        return self.layer(self.embed(ids)) * turned.unsqueeze(-1)


def ids() -> Inputs:
    return (torch.randint(9, (2, 5)),)


def body(function: Callable[[Body, Tensor], Tensor]) -> Example:
    return Example(lambda: Body(function), lambda: (torch.randn(2, 4),))


APPLIES: dict[str, dict[str, Example]] = {
    "no_grad_regions": {
        "frozen layer": body(_frozen),
        "several results": body(_several),
        "nested, with enable_grad": body(_nested),
        "running average": body(_running_average),
        "clamped weight": body(_clamped_weight),
        "written to, then used": body(_written_afterwards_used),
    },
    "attention": {
        "five dimensions": Example(Attention, tokens()),
        "three dimensions": Example(lambda: Attention(3), tokens()),
        "causal": Example(lambda: Attention(is_causal=True), tokens()),
        "scale": Example(lambda: Attention(scale=0.3), tokens()),
        "bool mask": Example(Attention, tokens("bool")),
        "float mask": Example(Attention, tokens("float")),
        "nothing to look at": Example(Attention, tokens("dead")),
        "nothing to look at, in floats": Example(Attention, tokens("dead float")),
        "dropout": Example(lambda: Attention(dropout=0.5), tokens()),
    },
    "distances": {
        "euclidean": Example(lambda: Distances(2.0), tokens()),
        "city block": Example(lambda: Distances(1.0), tokens()),
        "third power": Example(lambda: Distances(3.0), tokens()),
        "largest": Example(lambda: Distances(torch.inf), tokens()),
    },
    "subtraction": {
        "from a number": Example(lambda: Subtracts(1.5), ids),
        "several times": Example(lambda: Subtracts(0.5, 3), ids),
    },
}
SPARES: dict[str, Example] = {
    "no_grad_regions": body(_detach),
    "attention": Example(lambda: Attention(4, is_causal=True), tokens()),
    "distances": Example(lambda: nn.Linear(4, 4), tokens()),
    "subtraction": Example(lambda: Subtracts(2), ids),  # a whole number from whole numbers
}
TAKEN_OUT: dict[str, Callable[[fx.Node], bool]] = {  # what must be left of it nowhere
    "no_grad_regions": lambda node: "wrap_with_set_grad_enabled" in str(node.target),
    "attention": lambda node: "scaled_dot_product_attention" in str(node.target),
    "distances": lambda node: "dist" in str(node.target),
    "subtraction": lambda node: "rsub" in str(node.target),
}


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
        assert_learns_the_same(graph, module, values)


@pytest.mark.parametrize("name", SPARES)
def test_a_repair_leaves_other_graphs_alone(name: str) -> None:
    module, inputs = SPARES[name].make(), SPARES[name].inputs()
    graph = exported(module, inputs)
    before, code = list(graph.graph.nodes), graph.code
    assert GRAPH_REPAIRS[name](graph) is None
    graph.recompile()
    assert list(graph.graph.nodes) == before and graph.code == code


@pytest.mark.parametrize("name", APPLIES)
def test_every_new_call_says_what_it_gives(name: str) -> None:
    """Sites, sizes and outputs are read from it."""
    case = next(iter(APPLIES[name].values()))
    graph = exported(case.make(), case.inputs())
    GRAPH_REPAIRS[name](graph)
    assert all("val" in node.meta for node in graph.graph.nodes if node.op == "call_function")


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


class Dropping(nn.Module):
    """Leaves out layers as Python's dice fall; `where` says who knows how often."""

    def __init__(self, where: str, share: float):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        match where:
            case "module":
                self.layerdrop = share
            case "config":
                self.config = SimpleNamespace(encoder_layerdrop=share, hidden=4)
            case _:
                self.config = {"hidden": 4}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and random.random() < self.share()):
                x = layer(x).tanh()
        return x

    def share(self) -> float:
        config = getattr(self, "config", {})
        return getattr(self, "layerdrop", getattr(config, "encoder_layerdrop", 0.0))


class Counting(nn.Module):
    """Asks for the number of rows the way that fixes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.zeros(len(x), 4) + len([1, 2])


class Experts(nn.Module):
    """Each row goes to the expert of its choice: one after the other, which no graph can hold, or all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.choose, self.experts = nn.Linear(4, 3), nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.config = SimpleNamespace(_experts_implementation="eager", hidden=4)

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.choose(x).softmax(1).max(1, keepdim=True)
        if self.config._experts_implementation == "batched_mm":
            every = torch.stack([expert(x) for expert in self.experts], 1)
            return weight * (every * functional.one_hot(chosen, 3).movedim(-1, 1)).sum(1)
        result = torch.zeros_like(x)
        for number in chosen.unique().tolist():
            rows = (chosen[:, 0] == number).nonzero()[:, 0]
            result[rows] = self.experts[number](x[rows])
        return weight * result


@dataclass(frozen=True)
class Found:
    """A module where a repair applies, and words of what the user is told of it."""

    make: Callable[[], nn.Module]
    note: str | None


MODULE_APPLIES: dict[str, dict[str, Found]] = {
    "layerdrop": {
        "of the module": Found(lambda: Dropping("module", 0.9), "layer drop"),
        "of its config": Found(lambda: Dropping("config", 0.9), "layer drop"),
        "always": Found(lambda: Dropping("module", 1), "layer drop"),
    },
    "length": {"number of rows": Found(Counting, None)},
    "experts": {"of its config": Found(Experts, None)},
}
MODULE_SPARES: dict[str, Callable[[], nn.Module]] = {
    "layerdrop": lambda: Dropping("dict", 0.0),
    "length": lambda: nn.Sequential(nn.Linear(4, 4)),
    "experts": lambda: Dropping("config", 0.0),
}


def test_every_repair_of_the_module_has_examples() -> None:
    assert set(MODULE_APPLIES) == set(MODULE_SPARES) == set(MODULE_REPAIRS)


@pytest.mark.parametrize(
    ("name", "example"), [(name, example) for name in MODULE_APPLIES for example in MODULE_APPLIES[name]]
)
def test_a_repaired_module_can_be_traced_and_is_left_as_it_was(name: str, example: str) -> None:
    torch.manual_seed(0)
    case = MODULE_APPLIES[name][example]
    module = case.make().train()
    known, spaces = _attributes(module), set(globals())
    with MODULE_REPAIRS[name](module, True) as note:
        assert (note is None) == (case.note is None) and (case.note or "") in (note or "")
    assert _attributes(module) == known and set(globals()) == spaces
    with pytest.raises(RuntimeError, match="in between"), MODULE_REPAIRS[name](module, True):
        raise RuntimeError("in between")
    assert _attributes(module) == known and set(globals()) == spaces

    traced = tracing.trace_module(module, torch.randn(2, 4), name="net")
    assert len(traced.sites) == sum(isinstance(part, nn.Linear) for part in module.modules())
    assert any((case.note or "") in note for note in traced.notes) or case.note is None
    x = torch.randn(5, 4)
    expected = module.eval()(x)
    torch.testing.assert_close((traced.eval_graph(x), traced.train_graph(x)), (expected, expected))
    module.train()
    assert _attributes(module) == known and set(globals()) == spaces


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
