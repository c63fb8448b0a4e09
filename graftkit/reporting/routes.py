"""The picture's edges as paths that pass between the nodes, never over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graftkit.reporting.layout import BAND, BETWEEN, GUTTER, Box, Column
from graftkit.reporting.ranks import Edge

Point = tuple[float, float]
LANE = 7.0  # between parallel detours
PORT = 14.0  # how far beside an arrow a detour meets a node


@dataclass(frozen=True, slots=True)
class Frame:
    """A column's place in the picture: its left edge, and the right edge of its bands (detours included)."""

    left: float
    right: float
    gutter: Mapping[int, float]  # the x of the lane that leaves to other columns, by the edge's source


@dataclass(frozen=True, slots=True)
class Plan:
    """All that lines are drawn from; boxes count from the picture's own corner."""

    boxes: Mapping[int, Box]
    columns: Sequence[Column]
    frames: Sequence[Frame]
    lanes: Mapping[tuple[int, int], float]  # x of the detour of (source, column), inside the column
    roofs: Mapping[int, float]  # y of the lane above all columns, by source
    width: float
    height: float
    top: float


def plan_routes(columns: Sequence[Column], boxes: Mapping[int, Box], edges: Sequence[Edge], margin: float) -> Plan:
    """Give every detour its lane, then every column its place."""
    local = _lanes(columns, boxes, edges)
    gutters, over = _crossings(boxes, edges)
    top = margin + LANE * len(over) + (BETWEEN / 2 if gutters else 0)
    frames: list[Frame] = []
    x = margin
    for number, column in enumerate(columns):
        inside = max((at for (_, c), at in local.items() if c == number), default=0.0)
        right = x + max(column.left + column.width, inside) + BAND
        gutter = {source: right + 12 + LANE * i for i, source in enumerate(gutters.get(number, ()))}
        frames.append(Frame(x, right, gutter))
        x = max([right + GUTTER - BAND, *(lane + 18 for lane in gutter.values())])
    width = max([frames[-1].right, *frames[-1].gutter.values()]) + margin
    moved = {n: replace(b, x=b.x + frames[b.column].left, y=b.y + top) for n, b in boxes.items()}
    lanes = {(s, c): at + frames[c].left for (s, c), at in local.items()}
    roofs = {source: margin + LANE * i for i, source in enumerate(over)}
    height = top + max(column.height for column in columns) + margin + (BETWEEN / 2 if gutters else 0)
    return Plan(moved, columns, frames, lanes, roofs, width, height, top)


def path(plan: Plan, edge: Edge) -> str:
    """An edge's SVG path data: a soft arrow to the next row, or a detour beside the rows it passes."""
    source, target = plan.boxes[edge[0]], plan.boxes[edge[1]]
    if is_step(source, target):
        return _arrow(plan, source, target)
    return rounded(_detour(plan, source, target))


def is_step(source: Box, target: Box) -> bool:
    """Whether the target stands in the row below the source."""
    return source.column == target.column and target.row == source.row + 1


def rounded(points: Sequence[Point], radius: float = 9.0) -> str:
    """SVG path data through the points, with round corners."""
    parts = [f"M{_xy(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        reach = min(radius, _distance(before, corner) / 2, _distance(corner, after) / 2)
        parts.append(f"L{_xy(_towards(corner, before, reach))} Q{_xy(corner)} {_xy(_towards(corner, after, reach))}")
    return " ".join([*parts, f"L{_xy(points[-1])}"])


def _arrow(plan: Plan, source: Box, target: Box) -> str:
    """Straight down to the row's end, a curve to the next row, straight down to a node that is not as tall."""
    x1, x2 = source.x + source.width / 2, target.x + target.width / 2
    low, high = _row_bottom(plan, source), _row_top(plan, target)
    middle = (low + high) / 2
    start = f"M{_xy((x1, source.y + source.height))} L{_xy((x1, low))}"
    end = f" L{_xy((x2, target.y))}" if target.y > high else ""  # an arrow's head needs a last part with a length
    return f"{start} C{_xy((x1, middle))} {_xy((x2, middle))} {_xy((x2, high))}{end}"


def _detour(plan: Plan, source: Box, target: Box) -> list[Point]:
    out, into = _leave(plan, source), _enter(plan, source, target)
    if source.column == target.column:
        x = plan.lanes[source.node, source.column]
        return [*out, (x, out[-1][1]), (x, into[0][1]), *into]
    first = plan.frames[source.column].gutter[source.node]
    last = _arrival(target.column, source.column)
    if last == source.column:
        return [*out, (first, out[-1][1]), (first, into[0][1]), *into]
    second, roof = plan.frames[last].gutter[source.node], plan.roofs[source.node]
    return [*out, (first, out[-1][1]), (first, roof), (second, roof), (second, into[0][1]), *into]


def _leave(plan: Plan, box: Box) -> list[Point]:
    """From the node's right side, or from below it where another node stands to the right."""
    if plan.columns[box.column].rows[box.row].nodes[-1] == box.node:
        return [(box.x + box.width, box.y + box.height * 0.7)]
    x = box.x + box.width / 2 + PORT
    return [(x, box.y + box.height), (x, _row_bottom(plan, box) + LANE)]


def _enter(plan: Plan, source: Box, box: Box) -> list[Point]:
    """To the node's right side where the detour comes from there and nothing is in between, else from above."""
    last = plan.columns[box.column].rows[box.row].nodes[-1] == box.node
    if last and source.column >= box.column:
        return [(box.x + box.width, box.y + box.height * 0.3)]
    x = box.x + box.width / 2 + (PORT if source.column >= box.column else -PORT)
    return [(x, _row_top(plan, box) - LANE), (x, box.y)]


def _arrival(target: int, source: int) -> int:
    """Which column's right gutter an edge from another column arrives by."""
    return target - 1 if target > source else target


def _lanes(columns: Sequence[Column], boxes: Mapping[int, Box], edges: Sequence[Edge]) -> dict[tuple[int, int], float]:
    """The x of every detour within a column: right of the rows it passes, and apart from other detours."""
    spans: dict[tuple[int, int], list[int]] = defaultdict(list)
    for s, t in edges:
        source, target = boxes[s], boxes[t]
        if source.column == target.column and not is_step(source, target):
            spans[s, source.column] += [source.row, target.row]
    edge_of = {(b.column, b.row): b.x + b.width for b in sorted(boxes.values(), key=lambda b: b.x)}
    lanes: dict[tuple[int, int], float] = {}
    taken: list[tuple[int, int, int, float]] = []
    for (node, column), rows in sorted(spans.items(), key=lambda item: (max(item[1]) - min(item[1]), item[0])):
        low, high = min(rows), max(rows)
        x = max(edge_of[column, row] for row in range(low, high + 1)) + 12
        blocked = {at for c, a, b, at in taken if c == column and a <= high and low <= b}
        while any(abs(x - at) < LANE for at in blocked):
            x += LANE
        taken.append((column, low, high, x))
        lanes[node, column] = x
    return lanes


def _crossings(boxes: Mapping[int, Box], edges: Sequence[Edge]) -> tuple[dict[int, list[int]], list[int]]:
    """Which sources need a lane in which gutter, and which also one above the columns."""
    gutters: dict[int, list[int]] = defaultdict(list)
    over: list[int] = []
    for s, t in edges:
        source, target = boxes[s].column, boxes[t].column
        if source == target:
            continue
        for gutter in {source, _arrival(target, source)}:
            if s not in gutters[gutter]:
                gutters[gutter].append(s)
        if _arrival(target, source) != source and s not in over:
            over.append(s)
    return gutters, over


def _row_top(plan: Plan, box: Box) -> float:
    return plan.top + plan.columns[box.column].tops[box.row]


def _row_bottom(plan: Plan, box: Box) -> float:
    return _row_top(plan, box) + plan.columns[box.column].rows[box.row].height


def _xy(point: Point) -> str:
    return ",".join(f"{value:.1f}".removesuffix(".0") for value in point)


def _distance(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(start: Point, end: Point, length: float) -> Point:
    whole = _distance(start, end) or 1.0
    return start[0] + (end[0] - start[0]) * length / whole, start[1] + (end[1] - start[1]) * length / whole
