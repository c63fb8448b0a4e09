"""Captures a module in one mode as a `torch.fx` graph that shares the module's own parameters."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim, ExportedProgram

from graftkit.core.errors import TraceError
from graftkit.core.pause import no_collection

CHECKED_SIZES = (7, 16)
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


def check_sizes(module: nn.Module, graph: fx.GraphModule, inputs: tuple[Tensor, ...], *, name: str) -> None:
    """Raise TraceError where the evaluation graph differs from the module itself at other batch sizes.

    Tracing follows one branch of code that asks how many rows there are; the other would be lost without a word.
    """
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        for size in CHECKED_SIZES:
            rows = tuple(x if x.ndim == 0 else x[torch.arange(size) % len(x)] for x in inputs)
            if not _agree(module, graph, rows):
                raise TraceError(
                    f"{name}, traced, gives other outputs for {size} rows than it does itself: its code asks"
                    " how many rows there are, or draws random numbers in eval()"
                )
    finally:
        for m, mode in modes.items():
            m.training = mode


def _agree(module: nn.Module, graph: fx.GraphModule, rows: tuple[Tensor, ...]) -> bool:
    outputs: list[object] = []
    for run in (module, graph):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            outputs.append(_run(run, rows))
    ours, theirs = outputs
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
        return True  # what is not one tensor is refused elsewhere
    return bool(ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5, equal_nan=True))


def _run(run: nn.Module, rows: tuple[Tensor, ...]) -> object:
    try:
        output = run(*rows)
    except Exception as error:  # whatever the model's own code raises
        raise TraceError(
            f"{type(run).__name__} was traced, but fails on {len(rows[0])} rows: {_reason(error)}"
        ) from error
    if isinstance(output, FakeTensor):
        raise TraceError(
            f"{type(run).__name__} keeps tensors that were made while it was traced; it cannot run any more"
        )
    return output


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
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch logs the traceback of what is raised, and told in a line, anyway
    try:
        with no_collection(), warnings.catch_warnings():
            for message in _KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(before)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else "no reason given"
    if "specialized" in text or "Constraints violated" in text:
        return f"it fixes its batch size, which has to stay free ({first[:200]})"
    where = next((line for line in reversed(lines) if line.startswith("File ") and "site-packages" not in line), "")
    return f"{type(error).__name__}: {first[:300]}" + (f" (at {where})" if where else "")
