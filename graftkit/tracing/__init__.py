"""Turns a module or an exported program into a traced model: two graphs, their sites, their data flow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from graftkit.calling import Calling, OutputError, calling_of, choose_output
from graftkit.core.errors import TraceError
from graftkit.core.signature import BATCH, Signature
from graftkit.model import TracedModel, copied
from graftkit.tracing.capture import Captured, How, buffers_kept, capture, capture_as, depends_on_data
from graftkit.tracing.checks import Traced, cannot_take, check_sizes, eager, run_graph
from graftkit.tracing.core import outside, trace_core
from graftkit.tracing.dataflow import ACTIVATIONS
from graftkit.tracing.flip import flipped, holds_training
from graftkit.tracing.free import Free, Names, SizeError, resized
from graftkit.tracing.full_precision import taken_out
from graftkit.tracing.lasting import lasting, still_norms
from graftkit.tracing.outputs import same_output
from graftkit.tracing.positions import views
from graftkit.tracing.precision import in_single_precision
from graftkit.tracing.programs import plain_program
from graftkit.tracing.reasons import reason
from graftkit.tracing.renaming import named_as, with_fixed
from graftkit.tracing.scripted import Replay, replayed
from graftkit.tracing.sites import find_sites, mark_sites
from graftkit.tracing.training_checks import check_training, left_behind
from graftkit.tracing.unlifting import output_nodes
from graftkit.tracing.weights import compute_weights

_ONE_MODE = (
    "its TorchScript code holds one mode: batch norm, dropout and recurrent layers follow training all the same;"
    " dropout of attention that was traced in evaluation, and other branches of training, if the model had any, stay as"
    " they were traced"
)

__all__ = [
    "call_source",
    "cannot_take",
    "draws",
    "ends_in",
    "flat_inputs",
    "in_single_precision",
    "named_as",
    "resized",
    "retrace",
    "trace_module",
    "trace_program",
    "views",
]


def trace_module(
    module: nn.Module,
    example: Any,
    *,
    name: str,
    output: str | None = None,
    free: Free = "auto",
    parts: bool = False,
) -> TracedModel:
    """Trace a live module by exporting it in `train()` and in `eval()`.

    Args:
        module: any module that `torch.export` can capture, or a ScriptModule; it is not changed.
        example: a tensor, a tuple of positional arguments or a dict of keyword arguments; the first dimension of
            each tensor is the batch, at least 2.
        name: what to call it.
        output: which output feeds the loss; found where it is None.
        free: "auto": the batch, and each other size that the model leaves open; "batch": the batch alone; "none".
        parts: where the whole cannot be traced, take the largest part that can, and say what stays outside.

    Raises:
        TraceError: it fails on the example, or has no such output.
        CaptureError: as a whole it cannot be captured.
    """
    if isinstance(module, torch.jit.ScriptModule):
        module = replayed(module)
    calling, inputs = calling_of(module, example)
    with buffers_kept(module):
        failure = cannot_take(module, example)  # and what the module makes when it first runs is there from now on
    if failure:
        raise TraceError(f"{name} cannot be traced: it fails itself on the example: {failure}")
    try:
        return _trace(module, calling, inputs, name=name, output=output, free=free)
    except TraceError as error:
        if isinstance(error, OutputError):
            raise
        found = _trace_part(module, calling, inputs, error, name=name, free=free) if parts else None
        if found is None:
            raise
        return found


def _trace_part(
    module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...], error: TraceError, *, name: str, free: Free
) -> TracedModel | None:
    """The largest part that can be traced, with what a user has to know of it."""

    def trace(part: nn.Module, example: Any, path: str) -> TracedModel:
        return trace_module(part, example, name=f"{name}.{path}", free=free)

    found = trace_core(module, calling, inputs, trace)
    if found is None:
        return None
    traced, path, share = found
    beside = ", ".join(outside(module, path))
    notes = (f"only {path} is traced, {share:.0%} of the weights: {error}", f"outside stay {beside}")
    return replace(traced, notes=(*notes, *traced.notes))


def trace_program(program: ExportedProgram, *, name: str, output: str | None = None) -> TracedModel:
    """Trace an exported program: its own graph, and the other mode's by flipping. Raises TraceError."""
    given, inputs, names = plain_program(program, name=name)
    training = holds_training(given)
    other, notes = flipped(given, train=not training)
    train, evaluation = (given, other) if training else (other, given)
    how = How()
    return _traced(
        name, None, None, Captured(train, names, how), Captured(evaluation, names, how, notes), inputs, output
    )


def retrace(traced: TracedModel) -> fx.GraphModule:
    """A fresh evaluation graph with the sites marked, from the live module with the weights it has now.

    Models that cache values in `eval()` would otherwise ship what they cached before training.
    """
    if traced.source is None or traced.calling is None:
        return copied(traced.eval_graph)
    how = How(*traced.how)
    graph = capture_as(traced.source, traced.calling, traced.inputs, train=False, how=how, to_train=False).graph
    taken_out(graph)
    missing = mark_sites(graph, traced.sites)
    if missing:
        raise TraceError(f"traced again after training, the model no longer calls {', '.join(sorted(missing))}")
    compute_weights(graph)
    return graph


def call_source(traced: TracedModel, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the live module itself gives in `eval()`, all outputs in the signature's order.

    Raises TraceError where the model did not come from a live module.
    """
    if traced.source is None or traced.calling is None:
        raise TraceError(f"{traced.name} did not come from a live module")
    modes = {m: m.training for m in traced.source.modules()}
    # a value cached in eval() is dropped by whoever passes through train(), as a training loop does
    traced.source.train()
    traced.source.eval()
    try:
        return tuple(eager(traced.source, traced.calling, inputs).values())
    finally:
        for m, mode in modes.items():
            m.training = mode


def draws(traced: TracedModel) -> bool:
    """Whether what feeds the loss is random in evaluation."""
    at = traced.output_at[1]
    first, other = (run_graph(traced.eval_graph, traced.inputs, seed=seed)[at] for seed in (0, 1))
    return not torch.equal(first.nan_to_num(), other.nan_to_num())


def ends_in(traced: TracedModel) -> str:
    """The activation that gives the output that feeds the loss, "" where it is none."""
    return ACTIVATIONS.get(output_nodes(traced.eval_graph)[traced.output_at[1]].target, "")


def flat_inputs(module: nn.Module, example: Any) -> tuple[Tensor, ...]:
    """An example's tensors in the order in which a traced model takes them. Raises TraceError."""
    return calling_of(module, example)[1]


def _trace(
    module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...], *, name: str, output: str | None, free: Free
) -> TracedModel:
    """With as many free sizes as prove right."""
    try:
        return _trace_as(module, calling, inputs, name=name, output=output, free=free)
    except SizeError as error:
        found = _trace_as(module, calling, inputs, name=name, output=output, free="batch")
        return replace(found, notes=(*found.notes, f"sizes other than the batch's are fixed: {error}"))


def _trace_as(
    module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...], *, name: str, output: str | None, free: Free
) -> TracedModel:
    evaluation = capture(module, calling, inputs, train=False, how=How(free))
    own_training = True
    try:
        train = capture(module, calling, inputs, train=True, how=evaluation.how)
    except TraceError as error:
        if not depends_on_data(error):
            raise
        train, own_training = _flipped(evaluation, error), False
    if train.how != evaluation.how:  # what only one mode needs, both get
        evaluation = capture_as(module, calling, inputs, train=False, how=train.how)
    traced = _traced(name, module, calling, train, evaluation, inputs, output)
    limits, in_training = (_limits(mode, inputs) for mode in (evaluation, train))
    other = next((size for size in limits if limits[size] != in_training.get(size)), None)
    if other is not None:
        raise SizeError(f"{name} asks in training, and only there, how large {other} is")
    what = Traced(name, module, calling, traced.eval_graph, inputs, traced.signature.inputs)
    with buffers_kept(module):
        fixed, notes = check_sizes(what, limits, evaluation.guards)
        training = replace(what, graph=traced.train_graph)
        notes += check_training(training, train.guards) if own_training else left_behind(training)
    one_mode = (_ONE_MODE, *still_norms(train.graph)) if isinstance(module, Replay) and module.baked else ()
    return replace(with_fixed(traced, fixed), notes=(*one_mode, *traced.notes, *notes))


def _flipped(evaluation: Captured, error: TraceError) -> Captured:
    """The training graph where only evaluation can be traced."""
    graph, notes = flipped(evaluation.graph, train=True)
    told = f"its training mode cannot be traced, so it is made from its evaluation by flipping flags: {error}"
    return replace(evaluation, graph=graph, notes=(*evaluation.notes, told, *notes))


def _limits(captured: Captured, inputs: tuple[Tensor, ...]) -> dict[str, tuple[int, int | None]]:
    """The smallest and largest number for which a graph is the model, by the size's name."""
    names = Names(captured.graph, inputs).names
    return {names[symbol]: limit for symbol, limit in captured.limits.items() if symbol in names}


def _traced(
    name: str,
    source: nn.Module | None,
    calling: Calling | None,
    train: Captured,
    evaluation: Captured,
    inputs: tuple[Tensor, ...],
    output: str | None,
) -> TracedModel:
    taken_out(evaluation.graph)
    with buffers_kept(evaluation.graph):
        values = dict(zip(evaluation.outputs, _first_run(evaluation.graph, inputs, name), strict=True))
    chosen = choose_output(values, output)
    places = (same_output(train, evaluation, chosen), list(values).index(chosen))
    sizes = Names(evaluation.graph, inputs)
    names = [str(n.target) for n in evaluation.graph.graph.nodes if n.op == "placeholder"]
    signature = Signature(
        tuple(sizes.port(n, value) for n, value in zip(names, sizes.values, strict=True)),
        tuple(sizes.port(n, v.meta["val"]) for n, v in zip(values, output_nodes(evaluation.graph), strict=True)),
        chosen,
    )
    if not any(BATCH in port.shape for port in signature.inputs) and evaluation.how.free != "none":
        raise TraceError(f"{name} fixes its batch size, which has to stay free")
    sites, skipped, edges = find_sites(train.graph, evaluation.graph, inputs, places)
    told = (*evaluation.notes, *train.notes, *lasting(evaluation.graph), *_fixed(evaluation.how))
    notes = tuple(dict.fromkeys((*told, *_beside(train, evaluation, chosen))))
    return TracedModel(
        name=name,
        source=source,
        calling=calling,
        how=(evaluation.how.free, evaluation.how.gradients, evaluation.how.scripted),
        train_graph=train.graph,
        eval_graph=evaluation.graph,
        sites=sites,
        skipped=skipped,
        edges=edges,
        inputs=inputs,
        signature=signature,
        output_at=places,
        notes=notes,
    )


def _beside(train: Captured, evaluation: Captured, chosen: str) -> tuple[str, ...]:
    """That training gives more than evaluation, where it does."""
    more = len(train.outputs) - len(evaluation.outputs)
    return (f"of its outputs {chosen} alone feeds the loss, not the {more} that training adds",) if more > 0 else ()


def _first_run(graph: fx.GraphModule, inputs: tuple[Tensor, ...], name: str) -> tuple[Tensor, ...]:
    try:
        return run_graph(graph, inputs)
    except Exception as error:  # torch.export may write a graph that does not run
        raise TraceError(f"{name} was traced, but its graph does not run: {reason(error)}") from error


def _fixed(how: How) -> tuple[str, ...]:
    if how.free == "none":
        return ("it traces with fixed sizes alone: its ONNX file takes what the example had, batch included",)
    return ("its control flow was read by TorchScript",) if how.scripted else ()
