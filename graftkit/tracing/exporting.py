"""Calls `torch.export`, quietly, and says in a line what stands in the way."""

from __future__ import annotations

import contextlib
from contextlib import redirect_stderr
from io import StringIO

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from graftkit.core.errors import CaptureError, TraceError
from graftkit.model import learning
from graftkit.tracing.formulas import ShortFormulas
from graftkit.tracing.free import Free, dynamic_shapes
from graftkit.tracing.generators import generators_kept
from graftkit.tracing.quietly import quiet
from graftkit.tracing.reasons import reason


def exported(module: nn.Module, inputs: tuple[Tensor, ...], *, free: Free, gradients: bool = True) -> ExportedProgram:
    """The module as an exported program in the mode it is in. Raises TraceError.

    Args:
        module, inputs: what is called with what, the batch first.
        free: which sizes stay free.
        gradients: whether its parameters learn while it is traced.
    """
    try:
        # torch prints the graph as far as it came on stderr; the reason is told in a line anyway
        with (
            quiet(),
            redirect_stderr(StringIO()),
            generators_kept(),
            ShortFormulas() if free == "auto" else contextlib.nullcontext(),
            contextlib.nullcontext() if gradients else learning(module.parameters(), on=False),
        ):
            return torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(inputs, free), strict=False)
    except TraceError:
        raise
    except Exception as error:  # torch.export raises what the model's own code raises
        raise CaptureError(f"{type(module).__name__} cannot be traced: {reason(error)}") from error
