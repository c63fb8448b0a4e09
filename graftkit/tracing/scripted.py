"""Reads TorchScript: a ScriptModule as a live module, and a ScriptModule captured as an exported program."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from graftkit.core.errors import TraceError
from graftkit.tracing.reasons import reason
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
    return _export(replayed(module), inputs)


def _export(module: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    rows = next((x.shape[0] for x in inputs if x.ndim), 0)
    sizes = tuple({0: Dim.DYNAMIC} if x.ndim and x.shape[0] == rows else None for x in inputs)
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch logs what it raises
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            return torch.export.export(module, inputs, dynamic_shapes=sizes, strict=False)
    except TraceError:
        raise
    except Exception as error:  # torch.export raises what the model's own code raises
        raise TraceError(f"{type(module).__name__} cannot be traced: {reason(error)}") from error
    finally:
        logging.disable(before)
