"""What can be found wrong, or has to be told, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from graftkit import surgery, tracing
from graftkit.contracts import Data, Inputs, LoadedModel
from graftkit.core.errors import DataError, TraceError
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import GraftPlan
from graftkit.reading import in_order


def single_precision(loaded: LoadedModel) -> LoadedModel:
    """The model with weights in float32, which is what is trained."""
    if isinstance(loaded.model, ExportedProgram):
        return loaded
    module, notes = tracing.in_single_precision(loaded.model, copies=False)
    return replace(loaded, model=module, warnings=(*loaded.warnings, *notes))


def check_repeatable(traced: TracedModel) -> None:
    """Raise TraceError where evaluation draws random numbers: no file could be compared with such a model."""
    if tracing.draws(traced):
        raise TraceError(
            f"{traced.name} gives something else each time in eval(): it draws random numbers there (a dropout without"
            " training=self.training?), so that no file could be verified against it"
        )


def output_notes(traced: TracedModel, *, output: str | None, loss: str) -> list[str]:
    """What a user who named neither output nor loss has to know of what was chosen."""
    notes, names = [], traced.signature.output_names
    if len(names) > 1 and output is None:
        notes.append(f"of the outputs {', '.join(names)} it is {traced.signature.output} that is trained (--output)")
    last = tracing.ends_in(traced)
    if last in ("softmax", "sigmoid") and loss in ("cross_entropy", "bce"):
        notes.append(
            f"{traced.signature.output} ends in a {last}, while the loss applies its own: leave the model's out, or"
            " name a loss that takes probabilities with --loss file.py:function"
        )
    return notes


def check_shapes(loaded: LoadedModel, rows: Data, spec: str) -> None:
    """Raise DataError where the module cannot take two rows; tracing would say so less plainly."""
    if isinstance(loaded.model, ExportedProgram):
        return  # it knows its shapes, and is asked for them once it is traced
    example = in_order(rows.example(), loaded)
    ports = loaded.signature.inputs if loaded.signature else ()
    for port, given in zip(ports, tree_leaves(example), strict=False):
        if port.dtype == "uint8" and given.is_floating_point():
            raise DataError(
                f"the model takes {port.name} as uint8 and scales it itself, but --data {spec} is scaled to 0..1"
                " already: give uint8 tensors with --data data.py:make"
            )
    reason = tracing.cannot_take(loaded.model, example)
    if reason:
        raise DataError(f"the model cannot take the rows of --data {spec}, {_shapes(rows.example())}: {reason}")


def _shapes(inputs: Inputs) -> str:
    """The shape of one row of each input."""
    if isinstance(inputs, torch.Tensor):
        return str(list(inputs.shape[1:]))
    named = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return ", ".join(f"{name} {list(tensor.shape[1:])}" for name, tensor in named)


def reached_plan(
    model: GraftedModel, plan: GraftPlan, left_out: tuple[str, ...], *, named: bool
) -> tuple[GraftPlan, tuple[str, ...]]:
    """The plan without the sites that no error reaches, and why they are left out; such sites are an error if named."""
    if named:
        surgery.check_reached(model, plan.grafts, build_dendrite)
        return plan, left_out
    lost = surgery.lost_grafts(model, plan.grafts, build_dendrite)
    kept = GraftPlan(tuple(graft for graft in plan.grafts if graft.site not in lost))
    if not kept.grafts:
        surgery.check_reached(model, plan.grafts, build_dendrite)
    return kept, (*left_out, *(f"{site}: no error reaches a dendrite there" for site in lost))
