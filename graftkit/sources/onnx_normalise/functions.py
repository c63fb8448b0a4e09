"""Puts a file's own functions in the place of their calls."""

from __future__ import annotations

from onnx import ModelProto, inliner

from graftkit.core.errors import SourceError
from graftkit.sources.pickle_safety import first_line


def inlined(model: ModelProto, where: str) -> ModelProto:
    """The model without functions of its own; itself where it has none. Raises SourceError."""
    if not model.functions:
        return model
    try:
        found: ModelProto = inliner.inline_local_functions(model)
    except Exception as error:  # native code, which raises what it likes
        raise SourceError(
            f"{where}: its functions cannot be put in the place of their calls: {first_line(error)}"
        ) from error
    return found
