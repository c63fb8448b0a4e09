"""What the terminal shows of an inspection and of a run: tables that also read well in a pipe or a log file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from graftkit.core.records import Inspection, RunReport, SiteRecord
from graftkit.reporting import wording
from graftkit.reporting.results import COLUMNS, ResultRow, result_rows, seed_rows
from graftkit.reporting.verdict import verdict

__all__ = ["inspection_table", "result_table", "verdict"]

GAP = "  "
ASCII = str.maketrans({"→": ">", "×": "x", "·": "-", "±": "~", "…": "~", "└": "`"})


@dataclass(frozen=True, slots=True)
class Line:
    """A row of cells, or running text; a row's first cell is on the left, the others on the right."""

    cells: tuple[str, ...] = ()
    text: str = ""
    style: str = ""
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines with their columns aligned, no boxes. Where a name leaves no room for numbers they get their own line."""

    lines: tuple[Line, ...]
    left: frozenset[int] = frozenset({0})  # the columns that are aligned to the left

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = self._widths(options.max_width)
        for line in self.lines:
            for words in self._layout(line, widths):
                words = words.translate(ASCII) if options.ascii_only else words
                indent = " " * (len(words) - len(words.lstrip()))
                shown = Text(words.strip(), style=line.style, overflow="fold")
                for number, piece in enumerate(shown.wrap(console, max(options.max_width - len(indent), 8))):
                    piece.rstrip()
                    yield Text.assemble(indent if number == 0 else indent + GAP * bool(indent), piece, overflow="fold")

    def _widths(self, room: int) -> list[int]:
        rows = [line.cells for line in self.lines if line.cells]
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        if widths:
            widths[0] = min(widths[0], max(room - sum(widths[1:]) - len(GAP) * (len(widths) - 1), 8))
        return widths

    def _layout(self, line: Line, widths: Sequence[int]) -> Iterator[str]:
        if not line.cells:
            yield " " * line.indent + line.text
            return
        first, cells = line.cells[0], line.cells
        if cell_len(first) > widths[0]:
            yield first
            cells = (" ", *cells[1:])
        wide = zip(cells, widths, strict=True)
        yield GAP.join(self._pad(cell, width, i in self.left) for i, (cell, width) in enumerate(wide)).rstrip()

    @staticmethod
    def _pad(cell: str, width: int, left: bool) -> str:
        space = " " * max(width - cell_len(cell), 0)
        return cell + space if left else space + cell


def inspection_table(inspection: Inspection) -> RenderableType:
    """Every site with its numbers and, below it, its dendrites; then totals, skipped calls and notes."""
    gains = any(site.gain is not None for site in inspection.sites)
    header = ("site", "operator", "params", "MACs", *(["gain"] if gains else []))
    lines = [Line(header, style="bold")]
    for site in inspection.sites:
        lines += _site_lines(site, gains)
    lines += [Line(text=""), *_signature(inspection), *_totals(inspection), *_skipped(inspection)]
    lines += [Line(text=f"Note: {note}") for note in inspection.notes]
    return Lines(tuple(lines), frozenset({0, 1}))


def result_table(report: RunReport) -> RenderableType:
    """Baseline, control and grafted network side by side, then means over the seeds, if there are several."""
    parts = [Lines(_result_lines(report.metric, result_rows(report)))]
    if means := seed_rows(report):
        parts += [Lines((Line(),)), Lines(_result_lines("mean ± spread", means))]
    return Group(*parts)


def _result_lines(title: str, rows: Iterable[ResultRow]) -> tuple[Line, ...]:
    styles = {"grafted": "green"}
    cells = [Line((f"{row.name} ({row.meaning})", *row.cells), style=styles.get(row.kind, "")) for row in rows]
    return (Line((title, *COLUMNS), style="bold"), *cells)


def _site_lines(site: SiteRecord, gains: bool) -> Iterable[Line]:
    gain = (wording.gain_words(site.gain) if site.dendrites or site.gain is not None else "",) if gains else ()
    numbers = (wording.compact(site.parameters), wording.compact(site.macs))
    yield Line((site.site, f"{site.operator} {wording.shape(site)}", *numbers, *gain))
    for dendrite in site.dendrites:
        yield Line(text=f"└ {wording.dendrite_words(site, dendrite)}", style="green", indent=2)


def _signature(inspection: Inspection) -> Iterable[Line]:
    if inspection.signature is None:
        return
    yield Line(text=f"Takes {'; '.join(port.text() for port in inspection.signature.inputs)}")
    trained = f", trained by {inspection.signature.output}" if len(inspection.signature.outputs) > 1 else ""
    yield Line(text=f"Gives {'; '.join(port.text() for port in inspection.signature.outputs)}{trained}")


def _totals(inspection: Inspection) -> Iterable[Line]:
    grafted = sum(bool(site.dendrites) for site in inspection.sites)
    dendrites = [dendrite for site in inspection.sites for dendrite in site.dendrites]
    count = len(inspection.sites)
    yield Line(
        text=f"{count} site{'s' * (count != 1)} · {inspection.parameters:,} parameters"
        f" · {wording.compact(inspection.macs)} multiply-adds for one row",
        style="bold",
    )
    if dendrites:
        added = sum(dendrite.parameters for dendrite in dendrites)
        yield Line(text=f"{grafted} with dendrites, which have {added:,} of the parameters", style="green")


def _skipped(inspection: Inspection) -> Iterable[Line]:
    if not inspection.skipped:
        return
    yield Line(text="")
    yield Line(text="Not sites:", style="bold")
    for call in inspection.skipped:
        yield Line(text=f"{call.site or '(the model itself)'} ({call.operator}): {call.reason}", indent=2)
