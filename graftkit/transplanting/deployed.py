"""Reads the user's own ONNX file, and writes the new one as that was: in one file, or with weights beside it."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from graftkit import folding
from graftkit.core.errors import ExportError, shown
from graftkit.folding.written import Load, Written, is_apart, reference

OPSETS = range(11, folding.OPSETS.stop)  # dendrites have a form in these
MARKED = 10  # the IR version from which on nodes may have metadata


@dataclass(frozen=True, eq=False)
class Deployed:
    """The user's file.

    Attributes:
        path: where it is.
        model: with all of its numbers.
        opset: of the standard domain.
        apart: the initializers whose numbers lie beside the file.
    """

    path: Path
    model: onnx.ModelProto
    opset: int
    apart: frozenset[str]

    @property
    def rows(self) -> int | None:
        """How many rows it takes, None where that is free."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        for value in self.model.graph.input:
            dims = value.type.tensor_type.shape.dim
            if value.name not in constants and dims:
                return int(dims[0].dim_value) or None
        return None


def read(path: Path) -> Deployed:
    """The file with all of its weights. Raises ExportError."""
    model = folding.read_onnx(path)
    apart = frozenset(tensor.name for tensor in model.graph.initializer if is_apart(tensor))
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise ExportError(
            f"{path} is of opset {opset}, and dendrites have a form in {OPSETS.start} to {OPSETS.stop - 1}; export it"
            " with one of these, or convert it with onnx.version_converter"
        )
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx and the file system each have their own
        told = (str(error).splitlines() or ["no reason given"])[0]
        raise ExportError(f"{path} keeps weights beside it that cannot be read: {shown(told, 200)}") from None
    return Deployed(path, model, opset, apart)


@contextmanager
def staged(model: onnx.ModelProto, apart: Set[str], path: Path) -> Iterator[Path]:
    """The model as a file beside `path`, renamed to it at the end of the block; `apart` names weights beside it.

    Raises RunError where it cannot be written.
    """
    written = _taken_apart(model, apart) if apart else Written(model)
    with folding.staged(written, path, **({"one_file": 0} if apart else {})) as draft:
        yield draft


def _taken_apart(model: onnx.ModelProto, apart: Set[str]) -> Written:
    proto, weights = onnx.ModelProto(), dict[str, Load]()
    proto.CopyFrom(model)
    for tensor in proto.graph.initializer:
        if tensor.name not in apart:
            continue
        where, values = str(len(weights)), numpy_helper.to_array(tensor)
        weights[where] = _giving(values)
        new = reference(tensor.name, values.shape, tensor.data_type, where)
        new.doc_string = tensor.doc_string
        new.metadata_props.extend(tensor.metadata_props)
        tensor.CopyFrom(new)
    return Written(proto, weights)


def _giving(values: np.ndarray) -> Load:
    return lambda: values
