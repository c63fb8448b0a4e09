"""Compares a module with the ONNX file that it was made of: both are run on the same random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, fx

from graftkit.core.errors import SourceError
from graftkit.core.signature import Signature
from graftkit.sources.onnx_operators import UnsupportedError
from graftkit.sources.onnx_operators.call import TooLargeError
from graftkit.sources.onnx_session import Session, SessionError, as_evaluated
from graftkit.sources.onnx_trial import CostError, as_tuple, example, numbers_in, run_within_limits
from graftkit.sources.pickle_safety import first_line, one_line

TOLERANCE = 1e-4  # of the scale
LARGEST = 500 * 2**20  # bytes of the file and its data that are held a second time for this
SKIPPED = "it was not compared with onnxruntime: {why}"
EVALUATED = (
    "the file was exported in training mode; outside of training its dropout is idle here, and its batch norm goes by"
    " the statistics that it holds"
)
_HALVES = frozenset({torch.float16, torch.bfloat16})
_HALF_TOLERANCE = 2e-2  # either rounds after operators of its own choice
_OTHERS = (4, 32, 224)  # other free sizes than the rows, as they are tried: small first, then what images need
_MOST_IN_TWO = 2**16  # numbers in two rows; larger ones are compared by one
_MOST_NUMBERS = 2**24  # in one input
_SMALLEST = 1e-6  # scale


@dataclass(frozen=True)
class Conversion:
    """What was made of a file.

    Attributes:
        path: the file.
        model: what was read from it, functions in the place of their calls; it is changed here.
        module: what was made of that, in evaluation mode.
        made: which node of the module's graph makes each value of the file.
        signature: the file's inputs and outputs.
        data: the files beside it that hold its tensors.
    """

    path: Path
    model: ModelProto
    module: fx.GraphModule
    made: Mapping[str, Any]
    signature: Signature
    data: Sequence[Path]

    def called(self, made: fx.Node) -> str:
        """The file's node that makes what a node of the graph makes, for a message."""
        name = next((name for name, node in self.made.items() if node is made), None)
        maker = next((node for node in self.model.graph.node if name in node.output), None)
        return f"{one_line(maker.op_type)} (node {one_line(maker.name)!r})" if maker else one_line(str(made.target))


def compare(conversion: Conversion) -> tuple[str, ...]:
    """Notes where the two could not be compared. Raises SourceError where they were, and part.

    The module runs first: what it refuses, or what costs too much, onnxruntime's native code never sees.
    """
    notes = (EVALUATED,) if as_evaluated(conversion.model) else ()
    held = sum(path.stat().st_size for path in (conversion.path, *conversion.data))
    if held > LARGEST:
        why = f"it holds {held // 2**20} MiB, and up to {LARGEST // 2**20} are compared"
        return (*notes, SKIPPED.format(why=why))
    try:
        return (*notes, *_compared(conversion))
    except (_SkipError, SessionError) as error:
        return (*notes, SKIPPED.format(why=error))


def _compared(conversion: Conversion) -> tuple[str, ...]:
    inputs, ours = _run(conversion)
    theirs = Session(conversion.model, conversion.path.parent).run(_feed(conversion, inputs))
    names = conversion.signature.output_names
    tolerance = _tolerance(conversion.module, (*inputs, *ours))
    apart = [name for name, a, b in zip(names, ours, theirs, strict=True) if not agrees(a, b, tolerance)]
    return _told(conversion, inputs, apart[0], tolerance) if apart else ()


class _SkipError(Exception):
    """There is nothing to compare; says why."""


def _run(conversion: Conversion) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Inputs that the module takes, and what it gives for them. Raises SourceError where it takes none at all."""
    errors: list[Exception] = []
    for inputs in _inputs(conversion.signature):
        follower = _Follower(conversion.module)
        try:
            return inputs, as_tuple(run_within_limits(follower.run, *inputs))
        except CostError as error:
            raise _SkipError(str(error)) from error
        except Exception as error:  # what the file does with sizes that it may never have meant
            errors.append(error)
            at = follower.at and conversion.called(follower.at)
    if all(isinstance(error, UnsupportedError) and not isinstance(error, TooLargeError) for error in errors):
        raise SourceError(f"{conversion.path}: {at} is not converted: {errors[0]}") from errors[0]
    raise _SkipError(f"it does not run on the inputs that were tried ({first_line(errors[0])})") from errors[0]


def _inputs(signature: Signature) -> Iterator[list[Tensor]]:
    """Inputs of several sizes where they are free."""
    named = any(isinstance(size, str) for port in signature.inputs for size in port.shape[1:])
    for other in _OTHERS if named else _OTHERS[:1]:
        yield from (given for rows in (2, 1) if (given := _of_size(signature, rows, other)) is not None)


def _of_size(signature: Signature, rows: int, other: int) -> list[Tensor] | None:
    """Inputs of so many rows, None where one row is the better choice: none is free, or two are many numbers."""
    free = [port for port in signature.inputs if port.shape and isinstance(port.shape[0], str)]
    large = any(rows * numbers_in(port, other) > _MOST_IN_TWO for port in free)
    if rows == 2 and (large or not free):
        return None
    counts = [_rows(port.shape, rows) for port in signature.inputs]
    if any(n * numbers_in(port, other) > _MOST_NUMBERS for n, port in zip(counts, signature.inputs, strict=True)):
        raise _SkipError("its inputs are too large for that")
    return [example(port, n, 0, other) for n, port in zip(counts, signature.inputs, strict=True)]


def _rows(shape: Sequence[int | str], rows: int) -> int:
    return shape[0] if shape and isinstance(shape[0], int) else rows


def _feed(conversion: Conversion, inputs: Sequence[Tensor]) -> dict[str, np.ndarray]:
    try:
        return {name: x.numpy() for name, x in zip(conversion.signature.input_names, inputs, strict=True)}
    except TypeError as error:
        raise _SkipError("numpy does not have the type of its inputs") from error


def _tolerance(module: fx.GraphModule, given: Sequence[Tensor]) -> float:
    kinds = {tensor.dtype for tensor in (*module.parameters(), *module.buffers(), *given)}
    return _HALF_TOLERANCE if kinds & _HALVES else TOLERANCE


def agrees(ours: Tensor, theirs: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays are the same but for rounding; where onnxruntime gives no number, nothing is asked."""
    if tuple(ours.shape) != theirs.shape:
        return False
    known = np.isfinite(right := theirs.astype(np.float64))
    if not known.any():
        return True
    apart = np.abs(ours.double().numpy()[known] - right[known])
    return bool(apart.max() <= tolerance * max(float(np.abs(right[known]).max()), _SMALLEST))


# ── where they part ──────────────────────────────────────────────────────────────────────────────


def _told(conversion: Conversion, inputs: Sequence[Tensor], output: str, tolerance: float) -> tuple[str, ...]:
    """A note where rounding alone added up: no operator gives something else for what onnxruntime has before it."""
    names = {node: name for name, node in conversion.made.items()}
    try:
        session = Session(conversion.model, conversion.path.parent, [*conversion.made])
        values = dict(zip(session.outputs, session.run(_feed(conversion, inputs)), strict=True))
    except SessionError:  # it may not give what is within: then the output has to do
        values = {}
    teacher = _Teacher(conversion.module, names, values, tolerance)
    if values:
        run_within_limits(teacher.run, *inputs)
        if teacher.parted is None:
            why = f"its output {one_line(output)!r} differs, though no operator does; rounding adds up in it"
            return (SKIPPED.format(why=why),)
    parted = teacher.parted
    where = f"from {conversion.called(parted)} on" if parted else f"at its output {one_line(output)!r}"
    raise SourceError(
        f"{conversion.path} computes something else {where} in onnxruntime than it does here; report the file, or"
        " export it with another opset"
    )


class _Follower(fx.Interpreter):
    """Runs a graph, and knows where it is."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.extra_traceback = False
        self.at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.at = n
        return super().run_node(n)


class _Teacher(_Follower):
    """Gives every node what onnxruntime has before it, and notes the first that makes something else of that."""

    def __init__(
        self, module: fx.GraphModule, names: Mapping[Any, str], values: Mapping[str, np.ndarray], tolerance: float
    ):
        super().__init__(module)
        self.names, self.values, self.tolerance = names, values, tolerance
        self.parted: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        found, right = super().run_node(n), self.values.get(self.names.get(n, ""))
        if self.parted is not None or right is None or not isinstance(found, Tensor):
            return found
        if not agrees(found, right, self.tolerance):
            self.parted = n
            return found
        return torch.from_numpy(np.array(right)).to(found.dtype)
