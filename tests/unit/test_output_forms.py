"""Every form of output, traced, and training that gives other outputs than evaluation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from graftkit import api as gk
from graftkit import tracing
from graftkit.core.errors import TraceError


def rows(count: int) -> Tensor:
    return torch.randn(count, 4)


@dataclass
class Result:
    loss: Tensor | None
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class Pair(NamedTuple):
    first: Tensor
    second: Tensor | None


class Opaque:
    """What graftkit cannot look into."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


Body = Callable[[Tensor, Tensor], Any]  # (input, hidden) -> the model's output


class Gives(nn.Module):
    def __init__(self, body: Body):
        super().__init__()
        self.layer, self.body, self.scale = nn.Linear(4, 4), body, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Any:
        return self.body(x, self.layer(x) * self.scale)


OUTPUTS: dict[str, tuple[Body, tuple[str, ...], str, tuple[str, ...]]] = {  # body, names, chosen, notes on
    "tensor": (lambda x, h: h, ("output",), "output", ()),
    "tuple": (lambda x, h: (h, h + 1), ("output_0", "output_1"), "output_0", ()),
    "list of one": (lambda x, h: [h], ("output_0",), "output_0", ()),
    "nested": (lambda x, h: (h.tanh(), (h, [x + h])), ("output_0", "output_1.0", "output_1.1.0"), "output_0", ()),
    "dict": (lambda x, h: {"hidden": h, "logits": h * 2}, ("hidden", "logits"), "logits", ()),
    "ordered": (lambda x, h: OrderedDict(aux=h, out=h * 2), ("aux", "out"), "out", ()),
    "dataclass": (lambda x, h: Result(None, h, (h + 1, h + 2)), ("logits", "hidden.0", "hidden.1"), "logits", ()),
    "named tuple": (lambda x, h: Pair(h, None), ("first",), "first", ()),
    "named tuple inside": (lambda x, h: {"all": Pair(h, x * 2)}, ("all.first", "all.second"), "all.first", ()),
    "none": (lambda x, h: (None, h, None), ("output_1",), "output_1", ()),
    "not tensors": (
        lambda x, h: (h, "word", x.shape[0], 0.5, Opaque(h)),
        ("output_0",),
        "output_0",
        ("str", "int", "float", "Opaque"),
    ),
    "twice": (lambda x, h: {"a": h, "b": h}, ("a", "b"), "a", ()),
    "input returned": (lambda x, h: {"x": x, "y": h}, ("x", "y"), "y", ()),
    "whole numbers": (lambda x, h: (h.argmax(1), h > 0, h), ("output_0", "output_1", "output_2"), "output_2", ()),
    "one number": (lambda x, h: {"loss": h.mean(), "logits": h}, ("loss", "logits"), "logits", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_form_of_output_in_both_modes(name: str) -> None:
    body, names, chosen, others = OUTPUTS[name]
    torch.manual_seed(0)
    module = Gives(body)
    # the input returned as it is holds floats, too: the output that is trained has to be named
    traced = tracing.trace_module(module, rows(2), name=name, output=chosen if name == "input returned" else None)
    assert traced.signature.output_names == names and traced.signature.output == chosen
    assert traced.notes == tuple(f"its output of type {other} stays outside" for other in others)
    model, x = gk.graft(traced), rows(5)
    for training in (False, True):
        expected = [t for t in _leaves(module.train(training)(x)) if isinstance(t, Tensor)]
        found = model.train(training).outputs(x)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        assert torch.equal(model(x), expected[names.index(chosen)])


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Result):
        value = (value.loss, value.logits, value.hidden)
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for member in value for leaf in _leaves(member)] if isinstance(value, list | tuple) else [value]


def test_parameters_among_the_outputs_are_given_as_they_are_now() -> None:
    class Scaled(Gives):
        def forward(self, x: Tensor) -> Any:
            return {"logits": self.layer(x), "scale": self.scale}

    module = Scaled(lambda x, h: h)
    traced = tracing.trace_module(module, rows(2), name="net")
    with torch.no_grad():
        module.scale.fill_(3.0)
    assert traced.eval_graph(rows(3))[1].item() == 3.0


def test_a_model_without_any_tensor_is_refused() -> None:
    with pytest.raises(TraceError, match=r"returns no tensor \(str\)"):
        tracing.trace_module(Gives(lambda x, h: ["nothing", None]), rows(2), name="net")


# ── training gives other outputs than evaluation ─────────────────────────────────────────────────


class Auxiliary(nn.Module):
    """A head and an auxiliary head of the same size; `body` says what each mode gives."""

    def __init__(self, body: Callable[[bool, Tensor, Callable[[], Tensor], Tensor], Any]):
        super().__init__()
        self.trunk, self.head, self.aux, self.body = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3), body

    def forward(self, x: Tensor) -> Any:
        h = self.trunk(x).relu()
        return self.body(self.training, self.head(h), lambda: self.aux(h), h)


AUXILIARY: dict[str, Callable[..., Any]] = {
    "tuple": lambda training, main, aux, h: (main, aux()) if training else main,
    "tuple, auxiliary first": lambda training, main, aux, h: (aux(), main) if training else main,
    "dict": lambda training, main, aux, h: {"out": main, "aux": aux()} if training else {"out": main},
    "dict, auxiliary first": lambda training, main, aux, h: {"aux": aux(), "out": main} if training else main,
    "named tuple": lambda training, main, aux, h: Pair(main, aux()) if training else main,
    "named tuple, second is None": lambda training, main, aux, h: Pair(main, aux() if training else None),
    "other order": lambda training, main, aux, h: (h, main) if training else (main, h),
    "other order of equals": lambda training, main, aux, h: (aux(), main) if training else (main, aux()),
    "hidden states in training alone": lambda training, main, aux, h: (h, h.tanh(), main) if training else main,
}


@pytest.mark.parametrize("name", AUXILIARY)
def test_the_same_output_is_trained_whatever_else_training_gives(name: str) -> None:
    torch.manual_seed(0)
    module = Auxiliary(AUXILIARY[name])
    traced = tracing.trace_module(module, rows(2), name=name)
    assert [site.key for site in traced.sites] == ["trunk", "head"]
    model, x = gk.graft(traced), rows(3)
    expected = module.head(module.trunk(x).relu())
    assert torch.equal(model.eval()(x), expected)
    assert torch.equal(model.train()(x), expected)
    model(x).square().sum().backward()
    assert module.head.weight.grad is not None and module.aux.weight.grad is None


def test_a_training_mode_that_never_gives_the_output_is_refused() -> None:
    module = Auxiliary(lambda training, main, aux, h: h if training else main)
    with pytest.raises(TraceError, match="in training the model gives output"):
        tracing.trace_module(module, rows(2), name="net")


def test_an_output_that_training_has_too_is_offered_instead() -> None:
    """As a detector's head, whose boxes are decoded in evaluation alone."""
    module = Auxiliary(lambda training, main, aux, h: (main.flip(1)[:, :2], h) if training else (main, h))
    with pytest.raises(TraceError, match="none has the shape of 'output_0'; --output names another: output_1"):
        tracing.trace_module(module, rows(2), name="net", output="output_0")
    assert tracing.trace_module(module, rows(2), name="net", output="output_1").sites
