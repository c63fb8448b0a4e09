"""Brings an exported program to the form of every other graph: tensors one by one in, tensors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from graftkit.calling import flat_outputs
from graftkit.core.errors import TraceError
from graftkit.tracing.free import fixed_size, tensor_placeholders
from graftkit.tracing.recomposing import recompose
from graftkit.tracing.repairs import GRAPH_REPAIRS
from graftkit.tracing.unlifting import output_nodes, unlift


def plain_program(program: ExportedProgram, *, name: str) -> tuple[fx.GraphModule, tuple[Tensor, ...], tuple[str, ...]]:
    """(graph, example inputs, names of the outputs) of a program. Raises TraceError."""
    if program.example_inputs is None:
        raise TraceError(f"{name} was saved without example inputs; export it again with them")
    graph = unlift(program)
    recompose(graph)
    examples = pytree.tree_leaves(program.example_inputs)
    inputs = _take_tensors(graph, examples)
    _check_batch(graph, name)
    for rewrite in GRAPH_REPAIRS.values():
        rewrite(graph)
    graph.recompile()
    # one row would fix the batch size wherever it is traced again
    free = [fixed_size(node.meta["val"].shape[0]) is None if x.ndim else False
            for node, x in zip(tensor_placeholders(graph), inputs, strict=True)]  # fmt: skip
    rows = tuple(torch.cat([x, x]) if first and len(x) == 1 else x for x, first in zip(inputs, free, strict=True))
    return graph, rows, _output_names(program, len(output_nodes(graph)))


def _take_tensors(graph: fx.GraphModule, examples: list[Any]) -> tuple[Tensor, ...]:
    """The examples that are tensors; what is none becomes a constant of the graph."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    inputs = []
    for node, example in zip(placeholders, examples, strict=True):
        if isinstance(example, Tensor):
            inputs.append(example)
            continue
        _replace(node, example)
        graph.graph.erase_node(node)
    return tuple(inputs)


def _replace(node: fx.Node, constant: Any) -> None:
    """Put a constant wherever a node is read."""

    def instead(read: fx.Node) -> Any:
        return constant if read is node else read

    for user in list(node.users):
        user.args = fx.node.map_arg(user.args, instead)
        user.kwargs = fx.node.map_arg(user.kwargs, instead)


def _check_batch(graph: fx.GraphModule, name: str) -> None:
    """Raise TraceError where no input's first size is free."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    sizes = {node: node.meta["val"].shape[0] for node in placeholders if node.meta["val"].ndim}
    if sizes and all(isinstance(size, int) for size in sizes.values()):
        fixed = next(iter(sizes))
        raise TraceError(
            f"{name} fixes the batch size of {fixed.name!r} to {fixed.meta['val'].shape[0]}; export it again with"
            " dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"
        )


def _output_names(program: ExportedProgram, count: int) -> tuple[str, ...]:
    """As a live module's would be called, from the shape of what the program returned."""
    spec = program.call_spec.out_spec
    given = [s for s in program.graph_signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    if spec is not None and len(given) == spec.num_leaves:
        leaves = [torch.zeros(()) if isinstance(output.arg, TensorArgument) else None for output in given]
        names = tuple(flat_outputs(pytree.tree_unflatten(leaves, spec)).tensors)
        if len(names) == count:
            return names
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))
