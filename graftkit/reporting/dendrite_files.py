"""What a file of dendrites holds, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from graftkit.core.dendrite_files import CarriedRecord, DendriteFileRecord, Score
from graftkit.core.errors import shown
from graftkit.reporting.tables import Line, Lines
from graftkit.reporting.wording import metric_value

_HEADER = ("site", "dendrite", "neurons", "params")
_LONGEST = 80  # of what a foreign file calls something


def dendrite_file_table(record: DendriteFileRecord) -> RenderableType:
    """A row a dendrite, and below them what the base has to be and what was measured."""
    rows = (Line(_cells(dendrite)) for dendrite in record.dendrites)
    return Lines((Line(_HEADER, style="bold"), *rows, Line(text=""), *_below(record)), frozenset({0, 1}))


def _cells(dendrite: CarriedRecord) -> tuple[str, ...]:
    options = ",".join(f"{name}={value}" for name, value in dendrite.options)
    kind = f"{dendrite.kind}:{options}" if options else dendrite.kind
    neurons = "all" if dendrite.neurons is None else f"{dendrite.neurons:,}"
    return shown(dendrite.site, _LONGEST), shown(kind, _LONGEST), neurons, f"{dendrite.parameters:,}"


def _below(record: DendriteFileRecord) -> Iterator[Line]:
    count = len(record.dendrites)
    yield Line(
        text=f"{count} dendrite{'s' * (count != 1)} · {record.parameters:,} parameters · {record.bytes:,} bytes",
        style="bold",
    )
    yield Line(text=f"For the base {shown(record.base, _LONGEST)}, whose tensors have the sha256 {record.base_sha256}")
    for verb, ports in (("Takes", record.signature.inputs), ("Gives", record.signature.outputs)):
        yield Line(text=f"{verb} {shown('; '.join(port.text() for port in ports))}")
    if record.scores is not None:
        metric = shown(record.scores.metric, _LONGEST)
        given, grafted = (_score(metric, score) for score in (record.scores.given, record.scores.grafted))
        yield Line(text=f"Measured {metric}: {given} as given, {grafted} with these dendrites", style="green")


def _score(metric: str, score: Score) -> str:
    test = "" if score.test is None else f" ({metric_value(metric, score.test)} on test)"
    return f"{metric_value(metric, score.validation)} on validation{test}"
