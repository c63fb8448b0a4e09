"""A model's own `torch.autograd.Function` trains as it does outside: with the backward pass that it defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from graftkit import api as gk
from graftkit.model import TracedModel
from graftkit.tracing.own_backward import NAMESPACE


class Reversed(Function):
    """Domain-adversarial training: the error turns round, scaled (Ganin and Lempitsky, 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * error, None


class Signs(Function):
    """A straight-through estimator: steps forward, the error passes where |x| <= 1 (Bengio et al., 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return error * (x.abs() <= 1)


class Both(Function):
    """The newer form, with two inputs and two outputs."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x * y, x + y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return 3 * first * y + second, first * x - second


class Product(Function):
    """A linear layer as the tutorials write it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x.mm(weight.t())

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return error.mm(weight), error.t().mm(x)


class InPlace(Function):
    """Writes into what it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor:
        return 2 * error


class Rows(Function):
    """Is told a size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int) -> Tensor:
        return x / rows

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, None]:
        return error, None


class Net(nn.Module):
    """Two layers with something in between."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.between, self.first, self.second = between, nn.Linear(4, 6), nn.Linear(6, 3)
        self.binary = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self, self.first(x)))


def _both(net: Net, x: Tensor) -> Tensor:
    product, total = Both.apply(x, x.tanh())
    return product + total


def _binary_weights(net: Net, x: Tensor) -> Tensor:
    return nn.functional.linear(x, Signs.apply(net.binary))


KEPT: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "reversed": lambda net, x: Reversed.apply(x, 0.5),
    "straight through": lambda net, x: Signs.apply(x),
    "two of each": _both,
    "weights": _binary_weights,
    "twice": lambda net, x: Signs.apply(Reversed.apply(x, 2.0)),
}
LEFT: dict[str, tuple[Callable[[Net, Tensor], Tensor], str]] = {
    "a layer": (lambda net, x: Product.apply(x, net.binary), "Linear or Conv calls"),
    "in place": (lambda net, x: InPlace.apply(x * 1), "writes into its arguments"),
    "a size": (lambda net, x: Rows.apply(x, x.shape[0]), "SymInt"),
}


def gradients(net: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor | None]:
    net.zero_grad()
    output = run(x)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return {name: p.grad for name, p in net.named_parameters()}


def traced(between: Callable[[Net, Tensor], Tensor]) -> tuple[Net, TracedModel]:
    torch.manual_seed(0)
    net = Net(between)
    return net, gk.trace(net, torch.randn(3, 4))


@pytest.mark.parametrize("name", KEPT)
def test_both_graphs_learn_what_the_module_learns(name: str) -> None:
    net, model = traced(KEPT[name])
    x = torch.randn(5, 4)
    for graph in (model.train_graph, model.eval_graph):
        torch.testing.assert_close(graph(x), net(x))
        found, expected = gradients(net, graph, x), gradients(net, net, x)
        assert {k for k, g in found.items() if g is not None} == {k for k, g in expected.items() if g is not None}
        for key, gradient in expected.items():
            if gradient is not None:
                torch.testing.assert_close(found[key], gradient, msg=lambda text, key=key: f"{key}: {text}")
    assert not model.notes


def test_a_layer_behind_a_step_is_a_site() -> None:
    assert [site.key for site in traced(KEPT["straight through"])[1].sites] == ["first", "second"]
    binary = traced(KEPT["weights"])[1]
    assert not binary.skipped and len(binary.sites) == 3


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_kept_is_told(name: str) -> None:
    between, words = LEFT[name]
    net, model = traced(between)
    assert any("backward pass" in note and words in note for note in model.notes)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model.eval_graph(x), net(x))


def test_torchs_own_functions_are_left_alone() -> None:
    def recomputed(net: Net, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False)

    model = traced(recomputed)[1]
    assert not [n for n in model.train_graph.graph.nodes if n.op == "call_module"] and not model.notes


@pytest.mark.parametrize("name", KEPT)
def test_the_file_has_standard_operators_alone(name: str) -> None:
    _, model = traced(KEPT[name])
    grafted = gk.graft(model)
    optimizer = torch.optim.SGD(grafted.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        grafted.train()(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    x = torch.randn(7, 4)
    session = onnxruntime.InferenceSession(gk.to_onnx(grafted).SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, grafted.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_nothing_is_left_registered() -> None:
    traced(KEPT["twice"])
    assert not [name for name in dir(getattr(torch.ops, NAMESPACE)) if name.startswith("at_")]
    assert Reversed.apply(torch.ones(2), 2.0).tolist() == [1, 1]
