"""From what a user has to a traced model: a file or an architecture is loaded, a module is traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from graftkit import ranks, sources, tracing
from graftkit.calling import SINGLE
from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import TraceError
from graftkit.model import TracedModel


def load(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    trust: bool = False,
    arch: str | None = None,
    arch_args: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
    part: str | None = None,
) -> LoadedModel:
    """Read a model: a file by its content, or an architecture.

    Args:
        source: a path, or "package.module:factory", "timm:NAME", "hf:FOLDER".
        weights: a state dict or safetensors file for an architecture.
        trust: run code that the file brings along. Only for files whose maker you trust.
        arch: the architecture for a file that holds weights alone.
        arch_args: arguments for the architecture.
        allow: further classes that a pickle may name, as "package.module.Class".
        part: the path of one part to take alone, such as "backbone.body".

    Raises:
        SourceError: it cannot be read, or wants to run code and `trust` is not set.
    """
    given = tuple((arch_args or {}).items())
    path = Path(weights) if weights else None
    return sources.load(SourceRequest(str(source), path, trust, arch, given, tuple(allow), part))


def trace(
    model: LoadedModel | nn.Module | ExportedProgram,
    example: Any = None,
    *,
    device: str = "cpu",
    name: str | None = None,
    output: str | None = None,
    dynamic: str = "auto",
    parts: bool = False,
) -> TracedModel:
    """Trace a model into a training and an evaluation graph that share its parameters.

    Args:
        model: as `load` gives it, or a live module, or an exported program.
        example: example inputs, at least two rows: a tensor, a tuple of positional arguments, or a dict of keyword
            arguments, with tensors at any depth; an exported program brings its own.
        device: where the graphs are to live; a graph stays on the device it was traced on.
        name: what to call it.
        output: which output feeds the loss; found where it is None.
        dynamic: "auto" leaves every size free that the model leaves open (sequence length, image size), "batch" the
            batch alone, "none" nothing: then the model takes the example's sizes and no other.
        parts: where the whole cannot be traced (a detector), trace its largest part that can be, and say in the
            notes what stays outside.

    Raises:
        TraceError: it cannot be captured.
    """
    loaded = model if isinstance(model, LoadedModel) else LoadedModel(model, {}, name or type(model).__name__)
    title = name or loaded.name
    if dynamic not in ("auto", "batch", "none"):
        raise TraceError(f"dynamic {dynamic!r}: choose auto, batch or none")
    if isinstance(loaded.model, ExportedProgram):
        if find_device(device).type != "cpu":
            raise TraceError(f"{title} is an exported program, which stays on the device it was exported on")
        return _as_in_file(tracing.trace_program(loaded.model, name=title, output=_own(output, loaded)), loaded)
    if example is None:
        raise TraceError("a module is traced by running it: give an example input of at least two rows")
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    if not tensors or tensors[0].ndim == 0 or len(tensors[0]) < 2:
        raise TraceError("the example input needs at least two rows, or the batch size could not stay free")
    place = find_device(device)
    module, notes = tracing.in_single_precision(loaded.model, copies=loaded is not model)  # what was read is ours
    example = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(place), in_order(example, loaded))
    _check_sizes(example, loaded)
    if notes:  # the weights became single precision, and so do the inputs
        example = pytree.tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, example)
    wanted = _own(output, loaded)
    traced = tracing.trace_module(
        module.to(place),
        example,
        name=title,
        output=wanted,
        free=_free(dynamic, loaded),  # type: ignore[arg-type]
        parts=parts,
    )
    return _as_in_file(replace(traced, notes=(*notes, *traced.notes)), loaded)


def in_order(example: Any, loaded: LoadedModel) -> Any:
    """An example by the names that the model's file uses, in the order of its inputs."""
    names = loaded.signature.input_names if loaded.signature else ()
    if isinstance(example, Mapping) and names and set(names) <= set(example):
        return tuple(example[name] for name in names)
    return example


def _own(output: str | None, loaded: LoadedModel) -> str | None:
    """What tracing calls the output that the model's file calls `output`."""
    names = loaded.signature.output_names if loaded.signature else ()
    if output not in names:
        return output
    return SINGLE if len(names) == 1 else f"{SINGLE}_{names.index(output)}"


def _check_sizes(example: Any, loaded: LoadedModel) -> None:
    """Raise TraceError where an example has other sizes than those that the file fixes; the batch's may be any."""
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    ports = loaded.signature.inputs if loaded.signature else ()
    for tensor, port in zip(tensors, ports, strict=False):
        pairs = [*zip(tensor.shape, port.shape, strict=False)][1:]
        if tensor.ndim == len(port.shape) and any(isinstance(fixed, int) and n != fixed for n, fixed in pairs):
            raise TraceError(
                f"{loaded.name} takes {port.text()}, and was given {list(tensor.shape)}: give data of that size, or"
                " export the file with free sizes"
            )


def _free(dynamic: str, loaded: LoadedModel) -> str:
    """Which sizes are to stay free: the batch alone where the file fixes every other."""
    ports = loaded.signature.inputs if loaded.signature else ()
    fixed = bool(ports) and all(isinstance(size, int) for port in ports for size in port.shape[1:])
    return "batch" if fixed and dynamic == "auto" else dynamic


def _as_in_file(traced: TracedModel, loaded: LoadedModel) -> TracedModel:
    named = tracing.named_as(traced, loaded.signature) if loaded.signature else traced
    return replace(named, metadata=dict(loaded.metadata))


def find_device(name: str) -> torch.device:
    """The device called `name`, "auto" being an accelerator where there is one. Raises TraceError."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        return ranks.own_device(found)
    try:
        device = ranks.own_device(torch.device(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TraceError(f"the device {name!r} cannot be used here ({reason[:120]}); cpu always can") from None
    return device
