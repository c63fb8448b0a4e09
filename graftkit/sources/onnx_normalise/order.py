"""Puts nodes in the order in which they run, and takes out those that reach no output."""

from __future__ import annotations

from graphlib import TopologicalSorter

from graftkit.sources.onnx_normalise.graph import Graph, read_by


def in_order(graph: Graph) -> None:
    """Every node stands behind those that it reads, and otherwise where it stood."""
    makers = {name: index for index, node in enumerate(graph.nodes) for name in node.output if name}
    reads = {index: {makers[n] for n in read_by(node) if n in makers} for index, node in enumerate(graph.nodes)}
    if any(before > index for index, found in reads.items() for before in found):
        graph.nodes[:] = [graph.nodes[index] for index in TopologicalSorter(reads).static_order()]


def without_unused(graph: Graph) -> None:
    """Nodes whose values nothing reads go, and then those that only they read."""
    wanted, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if any(name in wanted for name in node.output):
            wanted.update(read_by(node))
            kept.append(node)
    graph.nodes[:] = reversed(kept)
