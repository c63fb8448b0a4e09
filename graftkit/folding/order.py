"""Puts a graph's nodes in the order in which they can be computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

import onnx


def in_order(graph: onnx.GraphProto) -> bool:
    """Put each node behind what it reads, in place; False, and nothing is done, where nodes wait for each other."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    waits = [{makers[name] for name in _read(node) if name in makers} for node in graph.node]
    readers = defaultdict(list)
    for place, before in enumerate(waits):
        for other in before:
            readers[other].append(place)
    ready, order = [place for place, before in enumerate(waits) if not before], []
    heapify(ready)
    while ready:
        order.append(heappop(ready))
        for place in readers[order[-1]]:
            waits[place].remove(order[-1])
            if not waits[place]:
                heappush(ready, place)
    if len(order) < len(graph.node):
        return False
    if order != sorted(order):
        nodes = [graph.node[place] for place in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    return True


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what the graphs inside it do."""
    yield from node.input
    for option in node.attribute:
        for graph in (option.g, *option.graphs) if option.type in (option.GRAPH, option.GRAPHS) else ():
            for inner in graph.node:
                yield from _read(inner)
