"""Every form of input, traced: both graphs give what the module gives, at other numbers of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftkit import api as gk
from graftkit import tracing
from graftkit.calling import Arguments
from graftkit.core.errors import DataError


class Linear(nn.Module):
    """What the forms below share: a layer with dropout and batch norm, so that the modes differ."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.4)

    def core(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.layer(x)))


class Positional(Linear):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.core(left) - 2 * right


class Optional(Linear):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, shift: Tensor | None = None) -> Tensor:
        y = self.core(x) * scale
        y = y if mask is None else y.masked_fill(~mask, 0.0)
        return y if shift is None else y + shift


class Nested(Linear):
    def forward(self, pair: list[Tensor], more: dict[str, Any]) -> Tensor:
        left, right = pair
        return self.core(left) + right * more["deep"][0] - more["factor"]


class Star(Linear):
    def forward(self, *parts: Tensor) -> Tensor:
        return self.core(parts[0]) + torch.stack(parts[1:]).cumprod(0).sum(0)


class Stars(Linear):
    def forward(self, **parts: Tensor) -> Tensor:
        return self.core(parts["main"]) / (1 + parts["weight"].exp())


class Batch(Linear):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.core(batch["x"]) + batch["y"].sum(1, keepdim=True)


class Several(Linear):
    def forward(self, tensors: list[Tensor]) -> Tensor:
        return self.core(tensors[0]) * tensors[1] + len(tensors)


class Tokens(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids)
        mean = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.core(mean)


def rows(count: int) -> Tensor:
    return torch.randn(count, 4)


@dataclass(frozen=True)
class Form:
    """A way to call: how an example is made, how the module itself is called with it, what the inputs are called."""

    module: type[nn.Module]
    make: Callable[[int], Any]
    call: Callable[[nn.Module, Any], Tensor]
    names: tuple[str, ...]


def spread(module: nn.Module, example: Any) -> Tensor:
    return module(*example)


def by_name(module: nn.Module, example: Any) -> Tensor:
    return module(**example)


def whole(module: nn.Module, example: Any) -> Tensor:
    return module(example)


FORMS = {
    "positional": Form(Positional, lambda n: (rows(n), rows(n)), spread, ("left", "right")),
    "keywords": Form(Positional, lambda n: {"right": rows(n), "left": rows(n)}, by_name, ("right", "left")),
    "both": Form(
        Optional,
        lambda n: Arguments((rows(n),), {"shift": rows(n), "scale": 3.0}),
        lambda module, example: module(*example.args, **example.keywords),
        ("x", "shift"),
    ),
    "left out": Form(Optional, lambda n: rows(n), whole, ("x",)),
    "left out between": Form(Optional, lambda n: (rows(n), None, 0.5, rows(n)), spread, ("x", "shift")),
    "mask": Form(Optional, lambda n: (rows(n), rows(n) > 0), spread, ("x", "mask")),
    "nested": Form(
        Nested,
        lambda n: ([rows(n), rows(n)], {"factor": 3, "deep": (rows(n), None)}),
        spread,
        ("pair_0", "pair_1", "more_deep_0"),
    ),
    "star": Form(Star, lambda n: (rows(n), rows(n), rows(n)), spread, ("input_0", "input_1", "input_2")),
    "two stars": Form(Stars, lambda n: {"weight": rows(n), "main": rows(n)}, by_name, ("weight", "main")),
    "dict": Form(Batch, lambda n: {"y": rows(n), "x": rows(n)}, whole, ("batch_y", "batch_x")),
    "list": Form(Several, lambda n: [rows(n), rows(n), rows(n)], whole, ("tensors_0", "tensors_1", "tensors_2")),
    "tokens": Form(
        Tokens, lambda n: {"ids": torch.randint(9, (n, 5)), "mask": torch.rand(n, 5) > 0.4}, by_name, ("ids", "mask")
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_input_in_both_modes_at_other_sizes(name: str) -> None:
    form = FORMS[name]
    torch.manual_seed(0)
    module = form.module()
    traced = tracing.trace_module(module, form.make(2), name=name)
    assert traced.signature.input_names == form.names
    assert all(port.shape[0] == "batch" for port in traced.signature.inputs)
    assert [site.key for site in traced.sites] == ["layer"] and traced.notes == ()
    model = gk.graft(traced)
    for count in (3, 9):
        example = form.make(count)
        inputs = tracing.flat_inputs(module, example)
        assert inputs[0].dtype == getattr(torch, traced.signature.inputs[0].dtype)
        for training in (False, True):
            state = {key: value.clone() for key, value in module.state_dict().items()}
            torch.manual_seed(1)
            expected = form.call(module.train(training), example)
            module.load_state_dict(state)
            torch.manual_seed(1)
            torch.testing.assert_close(model.train(training)(*inputs), expected)
            module.load_state_dict(state)
    module.eval()


def test_inputs_by_name_are_brought_in_order() -> None:
    traced = tracing.trace_module(Positional(), (rows(2), rows(2)), name="net")
    model = gk.graft(traced).eval()
    left, right = rows(3), rows(3)
    expected = model(left, right)
    for given_ in ({"right": right, "unused": left, "left": left}, (left, right), [left, right]):
        assert torch.equal(model(*model.arrange(given_)), expected)
    with pytest.raises(DataError, match="the rows have no right; they have left"):
        model.arrange({"left": left})
    with pytest.raises(DataError, match=r"takes 2 inputs \(left, right\), but the rows have 1"):
        model.arrange(left)


def test_whole_number_and_bool_inputs_are_described() -> None:
    form = FORMS["tokens"]
    ports = tracing.trace_module(form.module(), form.make(2), name="net").signature.inputs
    assert [port.text() for port in ports] == ["ids: int64 [batch, length]", "mask: bool [batch, length]"]


def test_other_example_values_do_not_matter() -> None:
    """Constants of an example's arguments (a flag, a number) are kept; its tensors are not."""
    module = Optional()
    zeros = tracing.trace_module(module, (torch.zeros(2, 4), None, 4.0), name="net")
    x = rows(3)
    assert torch.equal(zeros.eval_graph(x), module.eval()(x, None, 4.0))
