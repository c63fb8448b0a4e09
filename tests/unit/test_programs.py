"""Exported programs (.pt2): every form of input and output, and the other mode's graph made by flipping."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from graftkit import api as gk
from graftkit import tracing
from graftkit.core.errors import TraceError
from graftkit.model import TracedModel

ROWS = {0: Dim.DYNAMIC}


class Blocks(nn.Module):
    """Batch norm and dropout, so that the modes differ; several inputs and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, flip: bool = False, *, mask: Tensor | None = None, shift: Tensor | None = None) -> Any:
        y = self.drop(self.norm(self.layer(x)))
        y = -y if flip else y
        y = y if mask is None else y.masked_fill(~mask, 0.0)
        y = y if shift is None else y + shift
        return self.give(y)

    def give(self, y: Tensor) -> Any:
        return self.head(y)


class Dict(Blocks):
    def give(self, y: Tensor) -> Any:
        return {"hidden": y, "cache": None, "logits": self.head(y)}


class Deep(Blocks):
    def give(self, y: Tensor) -> Any:
        return y, (self.head(y), [y + 1])


class Batch(Blocks):
    def forward(self, batch: dict[str, Tensor], more: list[Tensor]) -> Tensor:  # type: ignore[override]
        return self.head(self.drop(self.norm(self.layer(batch["x"] + batch["y"]))) + more[0])


class Sizes(nn.Module):
    """A number among the inputs that the graph computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, factor: int) -> Tensor:
        return torch.cat([self.layer(x) * factor, x.new_full((x.shape[0], factor), 1.0)], 1).sum(1, keepdim=True)


def x(rows: int = 2) -> Tensor:
    return torch.randn(rows, 4)


@dataclass(frozen=True)
class Case:
    module: type[nn.Module]
    args: Callable[[int], tuple[Any, ...]]
    free: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output: str
    keywords: Callable[[int], Mapping[str, Any]] = field(default=lambda rows: {})

    def export(self, module: nn.Module) -> ExportedProgram:
        torch.manual_seed(0)
        return torch.export.export(module, self.args(2), dict(self.keywords(2)), dynamic_shapes=self.free, strict=False)


CASES = {
    "one": Case(Blocks, lambda n: (x(n),), (ROWS,), ("x",), ("output",), "output"),
    "keywords": Case(
        Blocks,
        lambda n: (x(n),),
        {"x": ROWS, "mask": ROWS, "shift": ROWS},
        ("x", "mask", "shift"),
        ("output",),
        "output",
        lambda n: {"mask": torch.rand(n, 4) > 0.5, "shift": x(n)},
    ),
    "constants": Case(
        Blocks,
        lambda n: (x(n), True),
        {"x": ROWS, "flip": None, "mask": None, "shift": ROWS},
        ("x", "shift"),
        ("output",),
        "output",
        lambda n: {"mask": None, "shift": x(n)},
    ),
    "dict": Case(Dict, lambda n: (x(n),), (ROWS,), ("x",), ("hidden", "logits"), "logits"),
    "deep": Case(Deep, lambda n: (x(n),), (ROWS,), ("x",), ("output_0", "output_1.0", "output_1.1.0"), "output_0"),
    "nested": Case(
        Batch,
        lambda n: ({"y": x(n), "x": x(n)}, [x(n)]),
        ({"y": ROWS, "x": ROWS}, [ROWS]),
        ("batch_y", "batch_x", "more_0"),
        ("output",),
        "output",
    ),
    "a number": Case(Sizes, lambda n: (x(n), 3), (ROWS, None), ("x",), ("output",), "output"),
    "a free number": Case(Sizes, lambda n: (x(n), 3), (ROWS, Dim.AUTO), ("x",), ("output",), "output"),
}


def flat(case: Case, rows: int) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Tensor, ...]]:
    args, keywords = case.args(rows), dict(case.keywords(rows))
    leaves = torch.utils._pytree.tree_leaves((args, keywords))
    return args, keywords, tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


def tensors_of(output: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def saved(program: ExportedProgram) -> ExportedProgram:
    """As it comes from a file."""
    file = BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_program_in_both_modes_at_other_sizes(name: str, train: bool) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module = case.module().train(train)
    twin = copy.deepcopy(module)
    program = case.export(module)
    traced = tracing.trace_program(saved(program) if train else program, name=name)
    assert traced.signature.input_names == case.inputs and traced.signature.output_names == case.outputs
    assert traced.signature.output == case.output and traced.source is None
    assert all(port.shape[0] == "batch" for port in traced.signature.inputs)
    trainable = isinstance(module, Blocks)
    assert [site.key for site in traced.sites] == [n for n, m in module.named_modules() if isinstance(m, nn.Linear)][
        : None if case.output != "output_0" else 1
    ]
    for rows in (3, 7):
        args, keywords, inputs = flat(case, rows)
        for graph, mode in ((traced.eval_graph, False), (traced.train_graph, True)):
            if mode and not trainable:
                continue
            torch.manual_seed(1)
            expected = tensors_of(twin.train(mode)(*args, **keywords))
            torch.manual_seed(1)
            found = graph(*inputs)
            torch.testing.assert_close([found] if isinstance(found, Tensor) else list(found), expected)
    counted = {n: v for n, v in twin.named_buffers() if "running" in n}
    assert {n: v for n, v in traced.tensors().items() if n in counted}.keys() == counted.keys()
    for n, value in counted.items():
        torch.testing.assert_close(traced.tensors()[n], value)


def test_an_output_that_is_none_takes_no_name_away() -> None:
    traced = tracing.trace_program(saved(CASES["dict"].export(Dict().eval())), name="net")
    assert traced.signature.output_names == ("hidden", "logits")
    named = tracing.trace_program(CASES["dict"].export(Dict().eval()), name="net", output="hidden")
    assert named.signature.output == "hidden" and [site.key for site in named.sites] == ["layer"]
    with pytest.raises(TraceError, match=r"no output 'cache'; it gives hidden, logits"):
        tracing.trace_program(CASES["dict"].export(Dict().eval()), name="net", output="cache")


def test_what_is_grafted_on_a_program_learns() -> None:
    torch.manual_seed(0)
    traced = tracing.trace_program(saved(CASES["keywords"].export(Blocks().eval())), name="net")
    model = gk.graft(traced, gk.make_plan(traced, sites="layer")).train()
    rows, target = model.arrange({"shift": x(16), "mask": torch.rand(16, 4) > 0.5, "x": x(16)}), torch.randn(16, 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(*rows) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(strength.any() for d in model.at("layer").members() for strength in d.strengths())
    fresh = gk.fresh_graph(model)
    with torch.no_grad():
        assert torch.equal(fresh(*rows), model.eval()(*rows))


def _program(module: nn.Module, example: tuple[Any, ...], free: Any) -> ExportedProgram:
    return torch.export.export(module, example, dynamic_shapes=free, strict=False)


class Positions(nn.Module):
    """Takes something beside the rows that has no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, rows: Tensor, table: Tensor) -> Tensor:
        return self.layer(rows + table)


def test_an_input_without_a_batch_may_stand_beside_one_with() -> None:
    module = Positions().eval()
    traced = tracing.trace_program(_program(module, (x(3), torch.randn(1, 4)), (ROWS, None)), name="net")
    assert [port.shape for port in traced.signature.inputs] == [("batch", 4), (1, 4)]
    rows, table = x(6), torch.randn(1, 4)
    assert torch.equal(traced.eval_graph(rows, table), module(rows, table))


def test_a_program_without_any_free_batch_is_refused() -> None:
    with pytest.raises(TraceError, match="fixes the batch size"):
        tracing.trace_program(_program(Positions().eval(), (x(3), torch.randn(1, 4)), None), name="net")


def test_a_free_length_is_kept_and_counted_as_in_the_example() -> None:
    program = _program(nn.Sequential(nn.Linear(4, 4)), (torch.randn(3, 6, 4),), ({0: Dim("n"), 1: Dim("t", max=64)},))
    for given in (program, saved(program)):
        traced: TracedModel = tracing.trace_program(given, name="net")
        assert traced.signature.inputs[0].shape == ("batch", "length", 4)
        (site,) = traced.sites
        assert (site.positions, site.macs) == (6, 96)
        assert traced.eval_graph(torch.randn(5, 11, 4)).shape == (5, 11, 4)


def test_neither_the_program_nor_its_other_graph_is_changed_by_tracing() -> None:
    program = CASES["one"].export(Blocks().eval())
    code = program.graph_module.code
    state = {name: value.clone() for name, value in program.state_dict.items()}
    traced = tracing.trace_program(program, name="net")
    traced.train_graph(x(5))
    assert program.graph_module.code == code
    again = tracing.trace_program(program, name="net")
    assert again.eval_graph.code == traced.eval_graph.code and again.train_graph.code == traced.train_graph.code
    assert all(torch.equal(program.state_dict[n], v) for n, v in state.items() if "norm" not in n)
