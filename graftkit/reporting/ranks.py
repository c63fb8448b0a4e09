"""Which site comes after which, as ranks, and which of the data flow's edges are worth drawing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from graftkit.core.records import Inspection

Edge = tuple[int, int]
INPUT = 0  # the input's number; sites follow in their order, the output is last
WIDEST = 4  # how many nodes stand side by side
ALL_SKIPS = 12  # up to so many skip connections are all drawn


@dataclass(frozen=True, slots=True)
class Ranking:
    """The network as numbered nodes: 0 is the input, 1 to n the sites in their order, n + 1 the output.

    Attributes:
        ranks: longest way from the input, for every node; an edge leads to a higher rank.
        flow: the edges that no longer way replaces (the transitive reduction).
        skips: shortcuts past other sites, as far as they are drawn.
        back: edges against the order, in a network with cycles.
        hidden: how many shortcuts are left out.
    """

    ranks: tuple[int, ...]
    flow: tuple[Edge, ...]
    skips: tuple[Edge, ...]
    back: tuple[Edge, ...]
    hidden: int


def rank(inspection: Inspection) -> Ranking:
    """Rank the sites of an inspection, which may have cycles, loose sites or no edges at all."""
    size = len(inspection.sites) + 2
    forward, back = break_cycles(numbered_edges(inspection), size)
    graph = _graph(forward, size)
    ranks = _spread_crowds(graph, _longest_paths(graph))
    flow, shortcuts = reduce_edges(graph, ranks)
    skips = shortcuts if len(shortcuts) <= ALL_SKIPS else nearest(shortcuts, ranks)
    return Ranking(tuple(ranks), flow, skips, back, len(shortcuts) - len(skips))


def numbered_edges(inspection: Inspection) -> tuple[Edge, ...]:
    """The edges between known nodes by number, each once; loops on one node are left out."""
    numbers: dict[str, int] = {}
    for number, site in enumerate(inspection.sites, start=1):
        numbers.setdefault(site.site, number)
    starts, ends = {**numbers, "": INPUT}, {**numbers, "": len(inspection.sites) + 1}
    known = [
        (starts[edge.source], ends[edge.target])
        for edge in inspection.edges
        if edge.source in starts and edge.target in ends
    ]
    return tuple(sorted({edge for edge in known if edge[0] != edge[1]}))


def break_cycles(edges: Iterable[Edge], size: int) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Edges without cycles, and those that closed one: the ones against the sites' order."""
    graph = _graph(edges, size)
    part = {node: index for index, nodes in enumerate(nx.strongly_connected_components(graph)) for node in nodes}
    back = {(a, b) for a, b in graph.edges if part[a] == part[b] and a >= b}
    return tuple(edge for edge in graph.edges if edge not in back), tuple(sorted(back))


def reduce_edges(graph: nx.DiGraph, ranks: Sequence[int]) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Split an acyclic graph's edges into its transitive reduction and the shortcuts.

    What a node reaches is a bit set, so residual streams (thousands of edges) take milliseconds.
    """
    reach: dict[int, int] = {}
    flow: list[Edge] = []
    shortcuts: list[Edge] = []
    for node in reversed(list(nx.topological_sort(graph))):
        reached = 0
        for target in sorted(graph.successors(node), key=lambda t: (ranks[t], t)):
            (shortcuts if reached >> target & 1 else flow).append((node, target))
            reached |= reach[target] | 1 << target
        reach[node] = reached
    return tuple(sorted(flow)), tuple(sorted(shortcuts))


def nearest(shortcuts: Iterable[Edge], ranks: Sequence[int]) -> tuple[Edge, ...]:
    """The shortest shortcuts into each node.

    In a residual network every block reads the sum of all blocks before it; the nearest shortcut is the
    one around the last block, and the others follow from those into the blocks before.
    """
    sources: dict[int, list[int]] = defaultdict(list)
    for source, target in shortcuts:
        sources[target].append(source)
    latest = {target: max(ranks[s] for s in found) for target, found in sources.items()}
    return tuple(sorted((s, t) for t, found in sources.items() for s in found if ranks[s] == latest[t]))


def _graph(edges: Iterable[Edge], size: int) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from(edges)
    return graph


def _longest_paths(graph: nx.DiGraph) -> list[int]:
    ranks = [0] * len(graph)
    for node in nx.topological_sort(graph):
        first = 0 if node == INPUT else 1
        ranks[node] = max((ranks[p] + 1 for p in graph.predecessors(node)), default=first)
        ranks[node] = max(ranks[node], first)
    ranks[-1] = max(ranks[:-1]) + 1
    return ranks


def _spread_crowds(graph: nx.DiGraph, ranks: list[int]) -> list[int]:
    """Where too many nodes share a rank, move each towards what reads it."""
    crowds = {value for value, nodes in Counter(ranks).items() if nodes > WIDEST}
    spread = list(ranks)
    for node in reversed(list(nx.topological_sort(graph))):
        readers = [spread[target] for target in graph.successors(node)]
        if ranks[node] in crowds and readers:
            spread[node] = min(readers) - 1
    return spread
