"""What the terminal and the report say of a compression: a verdict, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from graftkit.core.compressions import CompressionReport, NetworkRecord, SizeRecord
from graftkit.reporting import wording
from graftkit.reporting.tables import Line, Lines

COLUMNS = ("validation", "test", "parameters", "multiply-adds", "file", "peak memory", "latency", "90% below", "energy")
FRONT_COLUMNS = ("validation", "test", "parameters", "multiply-adds", "dendrites gain", "from scratch")


def compression_verdict(report: CompressionReport) -> list[str]:
    """What came of it, in sentences; the plainest first."""
    ships, given = report.ships, report.given
    best = ships.best
    found = [
        f"{report.name} goes from {given.parameters:,} to {best.parameters:,} parameters"
        f" ({best.parameters / given.parameters:.1%}) and from {wording.compact(given.macs)} to"
        f" {wording.compact(best.macs)} multiply-adds ({best.macs / given.macs:.1%}):"
        f" {_change(report, given, best)}."
    ]
    found.append(_dendrites(report, ships))
    if ships.scratch is not None:
        found.append(
            "A plain network of the pruned shape, trained from scratch for as many epochs, comes to"
            f" {_scores(report, ships.scratch)}: your weights, their answers and going down in steps are worth"
            f" {wording.metric_difference(report.metric, ships.pruned.validation - ships.scratch.validation)} on"
            " validation."
        )
    found += _times(given, best)
    if len(set(report.seeds)) == 1:
        found.append("One seed is a hint, not a proof: differences this small also come by chance (--seeds N).")
    return found


def _change(report: CompressionReport, given: NetworkRecord, best: NetworkRecord) -> str:
    parts = []
    for name, before, after in (("validation", given.validation, best.validation), ("test", given.test, best.test)):
        if before is not None and after is not None:
            values = f"{wording.metric_value(report.metric, before)} to {wording.metric_value(report.metric, after)}"
            parts.append(f"on {name} from {values} ({wording.metric_difference(report.metric, after - before)})")
    return f"{report.metric} " + ", ".join(parts)


def _scores(report: CompressionReport, network: NetworkRecord) -> str:
    test = "" if network.test is None else f" and {wording.metric_value(report.metric, network.test)} on test"
    return f"{wording.metric_value(report.metric, network.validation)} on validation{test}"


def _dendrites(report: CompressionReport, size: SizeRecord) -> str:
    contest = size.contest
    if contest is None:
        why = ": no channels could make room for any, or no site takes one" if report.settings.get("dendrites") else ""
        return f"Dendrites were not tried{why}."
    if contest.dendrites is None:
        return "No dendrites: none was surely worth anything in the trial."
    if contest.gain is None:
        return (
            f"No dendrites: for what they cost they take away {_ratio(contest.dendrites, contest.channels)} of the loss"
            " on validation that the channels do which would have to go for them."
        )
    if contest.gain == 0:
        return "No dendrites: in place of channels that cost as much they leave validation as it is."
    gain = wording.metric_difference(report.metric, contest.gain, contest.error)
    if size.chosen == "grafted":
        return f"Dendrites are in it: in place of channels that cost as much they gain {gain} on validation."
    unsure = ", which is not sure" if contest.gain > 0 else ""
    return f"No dendrites: in place of channels that cost as much they change validation by {gain}{unsure}."


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.0%}" if theirs > 0 else "no more"


def _times(given: NetworkRecord, best: NetworkRecord) -> Iterator[str]:
    if best.latency is None or given.latency is None:
        return
    if best.versus is not None and best.versus[1] <= 1 <= best.versus[2]:
        yield "Its time in onnxruntime is not told from the given model's on this machine."
    elif best.versus is not None:
        yield (
            f"In onnxruntime on one thread a row takes {best.versus[0]:.2f} of the given model's time"
            f" ({best.versus[1]:.2f} to {best.versus[2]:.2f})."
        )


def compression_rows(report: CompressionReport) -> list[tuple[str, ...]]:
    """The table of what ships: each network with its cells."""
    ships = report.ships
    networks = [report.given, ships.pruned, ships.grafted, ships.scratch]
    return [(one.name, *_cells(report, one)) for one in networks if one is not None]


def _cells(report: CompressionReport, one: NetworkRecord) -> tuple[str, ...]:
    given = report.given
    ratio = "" if one.versus is None else f" ({one.versus[0]:.2f})"
    return (
        wording.metric_value(report.metric, one.validation),
        wording.metric_value(report.metric, one.test),
        f"{one.parameters:,}{_share(one.parameters, given.parameters)}",
        f"{wording.compact(one.macs)}{_share(one.macs, given.macs)}",
        "-" if one.size is None else f"{one.size / 1e3:,.1f} kB{_share(one.size, given.size)}",
        "-" if one.memory is None else f"{one.memory / 2**20:.2f} MiB{_share(one.memory, given.memory)}",
        "-" if one.latency is None else f"{one.latency * 1e6:,.1f} us{ratio}",
        "-" if one.p90 is None else f"{one.p90 * 1e6:,.1f} us",
        "-" if one.energy is None else f"{one.energy * 1e3:.3f} mJ",
    )


def _share(value: float, given: float | None) -> str:
    return "" if not given or value == given else f" ({value / given:.0%})"


def front_rows(report: CompressionReport) -> list[tuple[str, ...]]:
    """A row for each size, means over seeds with the spread where there are several; the knee is marked."""
    found: list[tuple[str, ...]] = []
    for sizes in by_size(report):
        first = sizes[0]
        mark = "  <- knee" if report.knee is not None and report.sizes[report.knee].share == first.share else ""
        gains = [size.contest.gain for size in sizes if size.contest and size.contest.gain is not None]
        scratch = [size.scratch.validation for size in sizes if size.scratch]
        found.append(
            (
                f"{first.share:.1%}{mark}",
                _mean(report, [size.best.validation for size in sizes]),
                _mean(report, [size.best.test for size in sizes if size.best.test is not None]),
                f"{round(statistics.mean(size.best.parameters for size in sizes)):,}",
                wording.compact(round(statistics.mean(size.best.macs for size in sizes))),
                wording.metric_difference(report.metric, statistics.mean(gains)) if gains else "not trained",
                _mean(report, scratch),
            )
        )
    return found


def by_size(report: CompressionReport) -> list[list[SizeRecord]]:
    """The sizes, largest first, each with its seeds."""
    shares: dict[float, list[SizeRecord]] = {}
    for size in report.sizes:
        shares.setdefault(size.share, []).append(size)
    return [shares[share] for share in sorted(shares, reverse=True)]


def _mean(report: CompressionReport, values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return wording.metric_value(report.metric, values[0])
    return wording.metric_spread(report.metric, statistics.mean(values), statistics.stdev(values))


def layer_rows(report: CompressionReport) -> list[tuple[str, ...]]:
    """Each layer's outputs before and after, and how many of its neurons have dendrites."""
    return [
        (layer.name, f"{layer.before:,}", f"{layer.after:,}", f"{layer.dendrites:,}" if layer.dendrites else "")
        for layer in report.layers
    ]


def compression_table(report: CompressionReport) -> RenderableType:
    """Networks side by side, sizes if there are several, and layers."""
    energy = any(one.energy is not None for one in (report.given, report.ships.best))
    columns = COLUMNS if energy else COLUMNS[:-1]
    rows = [Line(row[: len(columns) + 1]) for row in compression_rows(report)]
    parts: list[RenderableType] = [Lines((Line((report.metric, *columns), style="bold"), *rows))]
    if len(report.sizes) > 1:
        sizes = [Line(row) for row in front_rows(report)]
        parts += ["", Lines((Line((f"asked for, of {report.unit}", *FRONT_COLUMNS), style="bold"), *sizes))]
    layers = [Line(row) for row in layer_rows(report)]
    parts += ["", Lines((Line(("layer", "outputs before", "after", "with dendrites"), style="bold"), *layers))]
    return Group(*parts)


def compression_html(report: CompressionReport) -> str:
    """The report as one page; nothing is loaded from elsewhere."""
    from markupsafe import Markup

    from graftkit.reporting.compression_pictures import layers_svg, sizes_svg  # matplotlib takes a second to import
    from graftkit.reporting.page import rendered
    from graftkit.reporting.picture import network_svg

    several = len(report.sizes) > 1
    return rendered(
        "compression.html.j2",
        report=report,
        verdict=compression_verdict(report),
        columns=COLUMNS,
        rows=compression_rows(report),
        front_columns=FRONT_COLUMNS,
        front=front_rows(report) if several else [],
        curve=Markup(sizes_svg(report)) if several else "",
        layers=Markup(layers_svg(report)),
        picture=Markup(network_svg(report.inspection)),
    )
