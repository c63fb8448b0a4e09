"""Reads TorchScript: a ScriptModule as a live module, and a ScriptModule captured as an exported program."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram

from graftkit.tracing.exporting import exported
from graftkit.tracing.replay import Replay

__all__ = ["Replay", "capture_scripted", "replayed"]


def replayed(module: torch.jit.ScriptModule) -> Replay:
    """A live module that runs the ScriptModule's code operator by operator, so that `torch.export` can follow it.

    It has the submodules, parameters and buffers of the ScriptModule under their own names, and shares their
    memory: training it trains the ScriptModule. Where that was made by `torch.jit.script` from a module in this
    process, the parameters are that module's own `Parameter` objects. Weights that freezing turned into constants
    become parameters called `frozen_N`.

    Raises:
        TraceError: its code uses what cannot be followed; what only some inputs reach is told when it is reached.
    """
    return Replay(module)


def capture_scripted(module: torch.jit.ScriptModule, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The ScriptModule as an exported program in the mode it is in, with a free batch.

    An `if` over a tensor's values stays in it as `torch.cond`, which becomes ONNX `If`.

    Args:
        module: scripted or traced; its inputs keep the names that its `forward` gives them.
        inputs: tensors in the order of `forward`, the batch first, at least 2 rows.

    Returns:
        A program whose parameters share the ScriptModule's memory, as `replayed` describes.

    Raises:
        TraceError: it cannot be captured.
    """
    return exported(replayed(module), inputs, free="batch")
