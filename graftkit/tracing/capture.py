"""Captures a module in one mode as a `torch.fx` graph that shares the module's own parameters."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from graftkit.core.errors import TraceError
from graftkit.core.pause import no_collection

# Harmless, and nothing a user could act on.
_KNOWN_WARNINGS = (
    r"The tensor attributes? .*_flat_weights.* (was|were) assigned during export",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


def dynamic_batch(inputs: tuple[Tensor, ...]) -> tuple[dict[int, Dim], ...]:
    """What tells `torch.export` that the first dimension of every input is free."""
    return tuple({0: Dim.DYNAMIC} if tensor.ndim else {} for tensor in inputs)


def export_program(module: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Export a module as it is now, with a dynamic batch. Raises TraceError."""
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            return torch.export.export(module, inputs, dynamic_shapes=dynamic_batch(inputs), strict=False)
    except Exception as error:  # torch.export raises what the model's own code raises
        raise TraceError(f"{type(module).__name__} cannot be traced: {_reason(error)}") from error


def capture(module: nn.Module, inputs: tuple[Tensor, ...], *, train: bool) -> fx.GraphModule:
    """The module's graph in one mode; the module's mode and buffers stay as they were. Raises TraceError."""
    modes = {m: m.training for m in module.modules()}
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    module.train(not train)  # a model that caches values in one mode drops them when it passes through the other
    module.train(train)
    try:
        program = export_program(module, inputs)
    finally:
        for m, mode in modes.items():
            m.training = mode
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in buffers:  # a module may make one the first time it runs
                    buffer.copy_(buffers[name])
    return unlift(program)


def unlift(program: ExportedProgram) -> fx.GraphModule:
    """An exported program as a plain graph module that shares its parameters and buffers."""
    with quiet():
        lifted = program.module(check_guards=False)
    graph = fx.GraphModule(lifted, lifted.graph)  # a plain one: the lifted one refuses train() and eval()
    for node in list(graph.graph.nodes):
        # They pin dtype and device, which autocast changes on purpose.
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings that are known to be harmless, and without its fused attention kernels.

    The fused encoder layer of `nn.TransformerEncoderLayer` would hide its Linear calls.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with no_collection(), warnings.catch_warnings():
            for message in _KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else "no reason given"
    if "specialized" in text or "Constraints violated" in text:
        return f"it fixes its batch size, which has to stay free ({first[:200]})"
    where = next((line for line in reversed(lines) if line.startswith("File ") and "site-packages" not in line), "")
    return f"{type(error).__name__}: {first[:300]}" + (f" (at {where})" if where else "")
