"""The run's report as one self-contained HTML page."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from graftkit.core.records import RunReport
from graftkit.reporting import wording
from graftkit.reporting.picture import network_svg
from graftkit.reporting.results import COLUMNS, result_rows, seed_rows, shown_seed
from graftkit.reporting.values import COLUMNS as VALUE_COLUMNS
from graftkit.reporting.values import cells, ranked, spending_words
from graftkit.reporting.verdict import verdict

TEMPLATE = "report.html.j2"
TEXT_WIDTH = 1150  # what the page's column has room for


def report_html(report: RunReport) -> str:
    """The report of a run as HTML: verdict, results, curves, the network, every site, and the settings.

    Nothing is loaded from elsewhere and no script runs; the same report gives the same text.
    """
    # Matplotlib takes a second to import, which the terminal's tables need not wait for.
    from graftkit.reporting.curves import curves_svg
    from graftkit.reporting.value_picture import value_svg

    picture = network_svg(report.inspection)
    return rendered(
        TEMPLATE,
        report=report,
        inspection=report.inspection,
        verdict=verdict(report),
        columns=COLUMNS,
        rows=result_rows(report),
        means=seed_rows(report),
        seed=shown_seed(report),
        # These are drawn here, and what they quote is escaped there.
        spending=report.spending,
        value_columns=VALUE_COLUMNS,
        value_rows=[(value, cells(report.spending, value)) for value in ranked(report.spending)]
        if report.spending
        else [],
        value_words=spending_words(report.spending) if report.spending else "",
        values=Markup(value_svg(report.spending, page=True)) if report.spending else "",
        curves=Markup(curves_svg(report)),
        picture=Markup(picture),
        wide=picture_width(picture) > TEXT_WIDTH,
        wording=wording,
    )


def rendered(template: str, **given: Any) -> str:
    """A template of this room, filled."""
    loader = PackageLoader("graftkit", "reporting")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**given)


def picture_width(svg: str) -> int:
    """The width that an SVG element says it has."""
    return int(svg.split(' width="', 1)[1].split('"', 1)[0])
