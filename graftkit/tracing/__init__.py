"""Turns a module or an exported program into a traced model: two graphs, their sites, their data flow."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from graftkit.core.errors import TraceError
from graftkit.model import TracedModel, copied
from graftkit.tracing.capture import capture, check_sizes, dynamic_batch, export_program, unlift
from graftkit.tracing.flip import flipped, holds_training
from graftkit.tracing.sites import find_sites, mark_sites

__all__ = ["dynamic_batch", "export_program", "retrace", "trace_module", "trace_program"]


def trace_module(module: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> TracedModel:
    """Trace a live module by exporting it in `train()` and in `eval()`.

    Args:
        module: any module that `torch.export` can capture with a free batch size; it is not changed.
        inputs: positional inputs; the first dimension of each is the batch, at least 2.
        name: what to call it.

    Raises:
        TraceError: it cannot be captured, or returns something else than one tensor.
    """
    train = capture(module, inputs, train=True)
    evaluation = capture(module, inputs, train=False)
    check_sizes(module, evaluation, inputs, name=name)
    return _traced(name, module, train, evaluation, inputs, ())


def trace_program(program: ExportedProgram, *, name: str) -> TracedModel:
    """Trace an exported program: its own graph, and the other mode's by flipping. Raises TraceError."""
    given = unlift(program)
    if program.example_inputs is None:
        raise TraceError(f"{name} was saved without example inputs; export it again with them")
    inputs, keywords = program.example_inputs
    if keywords or not all(isinstance(value, Tensor) for value in inputs):
        raise TraceError(f"{name} takes inputs that are not plain positional tensors, which is not supported")
    placeholders = [node for node in given.graph.nodes if node.op == "placeholder"]
    fixed = next((n for n in placeholders if n.meta["val"].ndim and isinstance(n.meta["val"].shape[0], int)), None)
    if fixed is not None:
        raise TraceError(
            f"{name} fixes the batch size of {fixed.name!r} to {fixed.meta['val'].shape[0]}; export it again with"
            " dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"
        )
    training = holds_training(given)
    other, notes = flipped(given, train=not training)
    train, evaluation = (given, other) if training else (other, given)
    rows = tuple(x if x.ndim == 0 or len(x) > 1 else torch.cat([x, x]) for x in inputs)  # one row fixes the batch size
    return _traced(name, None, train, evaluation, rows, notes)


def retrace(traced: TracedModel) -> fx.GraphModule:
    """A fresh evaluation graph with the sites marked, from the live module with the weights it has now.

    Models that cache values in `eval()` would otherwise ship what they cached before training.
    """
    if traced.source is None:
        return copied(traced.eval_graph)
    graph = capture(traced.source, traced.inputs, train=False)
    missing = mark_sites(graph, traced.sites)
    if missing:
        raise TraceError(f"traced again after training, the model no longer calls {', '.join(sorted(missing))}")
    return graph


def _traced(
    name: str,
    source: nn.Module | None,
    train: fx.GraphModule,
    evaluation: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    notes: tuple[str, ...],
) -> TracedModel:
    with torch.no_grad():
        output = evaluation(*inputs)
    if not isinstance(output, Tensor):
        raise TraceError(
            f"{name} returns {type(output).__name__}, not one tensor; wrap it so that forward returns the tensor"
            " that feeds the loss"
        )
    sites, skipped, edges = find_sites(train, evaluation)
    return TracedModel(name, source, train, evaluation, sites, skipped, edges, inputs, notes)
