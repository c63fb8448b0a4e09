"""Brings an exported program to the form of a plain graph: tensors one by one in, one tensor or a tuple out."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.graph import CodeGen

from graftkit.core.errors import TraceError
from graftkit.model import copied
from graftkit.tracing.quietly import quiet


def unlift(program: ExportedProgram) -> fx.GraphModule:
    """An exported program as a plain graph module that shares its parameters and buffers.

    It takes its tensors one by one, and gives one tensor, or a tuple where there are more.
    """
    _rename_clashes(program)
    with quiet():
        lifted = program.module(check_guards=False)
    # a plain one: the lifted one refuses train() and eval(); graphs within it are the program's own
    graph = copied(fx.GraphModule(lifted, lifted.graph))
    graph.graph.set_codegen(CodeGen())
    _free_types(graph)
    _flatten_output(graph)
    graph.recompile()
    return graph


def _free_types(graph: fx.GraphModule) -> None:
    """Take out what pins dtype and device, which autocast changes on purpose; in branches and regions, too."""
    for part in graph.modules():
        if isinstance(part, fx.GraphModule):
            for node in list(part.graph.nodes):
                if node.target is torch.ops.aten._assert_tensor_metadata.default:
                    part.graph.erase_node(node)
            part.recompile()


def _rename_clashes(program: ExportedProgram) -> None:
    """A part called like something that a graph module has itself (`code`, `graph`) gets another name, in place."""
    renamed = {name: clean for name in (*program.state_dict, *program.constants) if (clean := _clean(name)) != name}
    for held in (program.state_dict, program.constants):
        for name in [name for name in held if name in renamed]:
            held[renamed[name]] = held.pop(name)
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        if spec.target in renamed:
            spec.target = renamed[spec.target]


def _clean(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{first}_{dot}{rest}" if hasattr(fx.GraphModule, first) else name


def output_nodes(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The nodes whose tensors a graph gives, in order."""
    (given,) = next(node for node in graph.graph.nodes if node.op == "output").args
    return (given,) if isinstance(given, fx.Node) else tuple(given)


def _flatten_output(graph: fx.GraphModule) -> None:
    """Leave nothing but tensors in the output; one stands alone."""
    node = next(node for node in graph.graph.nodes if node.op == "output")
    given = node.args[0] if isinstance(node.args[0], tuple | list) else (node.args[0],)
    tensors = tuple(n for n in given if isinstance(n, fx.Node) and isinstance(n.meta.get("val"), Tensor))
    if not tensors:
        raise TraceError("the traced model returns no tensor")
    node.args = (tensors[0] if len(tensors) == 1 else tensors,)
