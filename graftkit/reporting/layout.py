"""Where the picture's nodes stand: ranks become rows, rows fill columns, columns fill a page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from graftkit.reporting.ranks import WIDEST, Ranking

BESIDE = 16.0  # between nodes of one row
BETWEEN = 22.0  # between rows: the flow's arrows and one lane for detours
BAND = 10.0  # from a band's edge to its rows
STRIP = 20.0  # a band's label, along its left edge
GUTTER = 28.0  # between columns, before lanes are added
PAGE_WIDTH = 1340.0  # a wider picture would be shrunk on a laptop until its text is too small
PAGE_ASPECT = 0.85  # width over height that a page likes best
MOST_COLUMNS = 8
SLACKS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3)  # how much taller than an equal share a column may get


@dataclass(frozen=True, slots=True)
class Box:
    """One node's rectangle; x and y count from the top left corner of its column."""

    node: int
    column: int
    row: int  # within the column
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Row:
    """Nodes side by side; `label` names the block they all belong to, or is empty."""

    nodes: tuple[int, ...]
    label: str
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """Rows below each other; `tops` are their y, `width` is the widest row's."""

    rows: tuple[Row, ...]
    tops: tuple[float, ...]
    width: float
    height: float
    labelled: bool

    @property
    def left(self) -> float:
        """Where the rows begin: behind the bands' labels, if there are any."""
        return BAND + STRIP if self.labelled else 0.0


Sizes = Sequence[tuple[float, float]]  # width and height by node


def columns(ranking: Ranking, sizes: Sizes, names: Sequence[str]) -> tuple[Column, ...]:
    """The rows in as many columns as suit a page; `names` are the nodes' paths, empty for input and output."""
    labels = block_labels(names)
    rows = [_row(nodes, sizes, labels) for nodes in rows_of(ranking)]
    whole = _stack(rows, sizes).height
    limits = [whole * slack / count for count in range(1, MOST_COLUMNS + 1) for slack in SLACKS]
    return min((_fill(rows, limit, sizes, names) for limit in limits), key=_unsuitable)


def boxes(filled: Sequence[Column], ranking: Ranking, sizes: Sizes) -> dict[int, Box]:
    """Every node's rectangle: a row stands below what feeds it, as far as its column is wide enough."""
    sources = defaultdict(list)
    for source, target in ranking.flow:
        sources[target].append(source)
    placed: dict[int, Box] = {}
    for number, column in enumerate(filled):
        for index, row in enumerate(column.rows):
            above = [placed[s] for node in row.nodes for s in sources[node] if s in placed]
            near = [box.x + box.width / 2 for box in above if (box.column, box.row) == (number, index - 1)]
            centre = sum(near) / len(near) if near else column.left + column.width / 2
            placed |= _place(row, number, index, column, centre, sizes)
    return placed


def rows_of(ranking: Ranking) -> tuple[tuple[int, ...], ...]:
    """Nodes by rank, at most `WIDEST` side by side, each below its sources as far as order goes."""
    by_rank: dict[int, list[int]] = defaultdict(list)
    for node, value in enumerate(ranking.ranks):
        by_rank[value].append(node)
    sources = defaultdict(list)
    for source, target in ranking.flow:
        sources[target].append(source)
    place: dict[int, float] = {}
    rows: list[tuple[int, ...]] = []
    for value in sorted(by_rank):
        nodes = sorted(by_rank[value], key=lambda node: (_mean([place[s] for s in sources[node]]), node))
        place |= {node: (index + 0.5) / len(nodes) for index, node in enumerate(nodes)}
        rows += _chunks(nodes)
    return tuple(rows)


def block_labels(names: Sequence[str]) -> tuple[str, ...]:
    """The block each node belongs to: the shortest module prefix that tells several blocks apart.

    "layer1" and "layer2" in a ResNet, "encoder.layers.0" and so on in a transformer; empty outside of blocks.
    """
    paths = [name.split(".") for name in names]
    for depth in range(1, max(map(len, paths), default=0)):
        blocks = [".".join(path[:depth]) if len(path) > depth else "" for path in paths]
        shared = {block for block in blocks if block and blocks.count(block) > 1}
        if len(shared) > 1:
            return tuple(block if block in shared else "" for block in blocks)
    return ("",) * len(names)


def _row(nodes: tuple[int, ...], sizes: Sizes, labels: Sequence[str]) -> Row:
    found = {labels[node] for node in nodes}
    return Row(nodes, found.pop() if len(found) == 1 else "", max(sizes[node][1] for node in nodes))


def _row_width(nodes: Sequence[int], sizes: Sizes) -> float:
    return sum(sizes[node][0] for node in nodes) + BESIDE * (len(nodes) - 1)


def _gap(before: str, label: str, first: bool) -> float:
    """The room above a row: for the flow's arrows, and where a band ends or begins."""
    bands = 0 if label == before else bool(label) + bool(before)
    return BAND * bands + (0 if first else BETWEEN)


def _stack(rows: Sequence[Row], sizes: Sizes) -> Column:
    """One column of the rows, with room where a band begins or ends."""
    tops: list[float] = []
    y, before = 0.0, ""
    for row in rows:
        tops.append(y + _gap(before, row.label, not tops))
        y, before = tops[-1] + row.height, row.label
    width = max(_row_width(row.nodes, sizes) for row in rows)
    return Column(tuple(rows), tuple(tops), width, y + BAND * bool(before), any(row.label for row in rows))


def _fill(rows: Sequence[Row], limit: float, sizes: Sizes, names: Sequence[str]) -> tuple[Column, ...]:
    """Fill columns up to a height; each ends where a block ends, if one does not far above."""
    filled: list[Column] = []
    start = 0
    while start < len(rows):
        end = _full(rows, start, limit)
        if end < len(rows):
            lowest = max(end - min(4, (end - start) // 4), start + 1)
            end = min(range(lowest, end + 1), key=lambda e: (_shared(rows[e - 1], rows[e], names), -e))
        filled.append(_stack(rows[start:end], sizes))
        start = end
    return tuple(filled)


def _full(rows: Sequence[Row], start: int, limit: float) -> int:
    """The first row that a column from `start` on has no room for."""
    height, before = 0.0, ""
    for index in range(start, len(rows)):
        height += _gap(before, rows[index].label, index == start) + rows[index].height
        before = rows[index].label
        if height > limit and index > start:
            return index
    return len(rows)


def _shared(above: Row, below: Row, names: Sequence[str]) -> int:
    """How many leading path components two rows share: few where a block ends."""
    first, second = names[above.nodes[0]].split("."), names[below.nodes[0]].split(".")
    equal = [a == b for a, b in zip(first, second, strict=False)]
    return equal.index(False) if False in equal else len(equal)


def _unsuitable(filled: Sequence[Column]) -> float:
    """How far from a good page: a wrong aspect, a width that would shrink the text, columns left empty."""
    width = sum(column.left + column.width + GUTTER + BAND for column in filled)
    height = max(column.height for column in filled)
    empty = 1 - sum(column.height for column in filled) / (height * len(filled))
    return abs(math.log(width / height / PAGE_ASPECT)) + 6 * max(width / PAGE_WIDTH - 1, 0) + 2 * empty


def _place(row: Row, number: int, index: int, column: Column, centre: float, sizes: Sizes) -> dict[int, Box]:
    width = _row_width(row.nodes, sizes)
    x = min(max(centre - width / 2, column.left), column.left + column.width - width)
    found = {}
    for node in row.nodes:
        node_width, height = sizes[node]
        y = column.tops[index] + (row.height - height) / 2
        found[node] = Box(node, number, index, x, y, node_width, height)
        x += node_width + BESIDE
    return found


def _chunks(nodes: Sequence[int]) -> list[tuple[int, ...]]:
    """Split a crowded row into rows of nearly equal length."""
    count = math.ceil(len(nodes) / WIDEST)
    length = math.ceil(len(nodes) / count)
    return [tuple(nodes[i : i + length]) for i in range(0, len(nodes), length)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.5
