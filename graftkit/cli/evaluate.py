"""`graftkit evaluate`: a run's networks with few samples and with corrupted inputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from graftkit.cli import options, processes
from graftkit.cli.stopping import stopping

_AFTER_SIGTERM = "the same command goes on with the shares that are left"


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--only", type=click.Choice(["corruptions", "few"]), help="Leave the other part out.")
@click.option("--shares", default="10%,25%,50%,100%", show_default=True, help="Of the training rows, for few samples.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True,
              help="How often each share is drawn and learned from.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), metavar="N",
              help="Epochs in which all rows teach fresh weights; a share gets as many steps."
              "  [default: as many as the run's]")  # fmt: skip
@click.option("--start", type=click.Choice(["auto", "fresh", "given"]), default="auto", show_default=True,
              help="What few samples are learned from: fresh weights, or the model as given; auto takes the latter for"
              " a run with --freeze-base.")  # fmt: skip
@click.option("--form", type=click.Choice(["image", "series", "values"]),
              help="What the inputs are.  [default: as their shape says]")  # fmt: skip
@click.option("--time-axis", "time", type=click.IntRange(1), metavar="N",
              help="Along which dimension series go on, rows being 0.  [default: the longest]")  # fmt: skip
@options.seed
@options.device
@options.trust
@options.allow
@options.as_json
@click.pass_context
def evaluate(context: click.Context, /, run: Path, only: str | None, as_json: bool, **given: Any) -> None:
    """Measure the networks of RUN side by side, given, control and grafted: on inputs that are corrupted at five
    strengths, and trained on a share of the rows.

    Writes RUN/evaluation.json and RUN/evaluation.svg. With few samples all is done again from fresh weights, on as many
    steps: the network itself, the same trained on, and with dendrites.
    """
    _check(context, only)
    if processes.count() > 1:
        raise click.UsageError("evaluate runs in one process; start it without torchrun", context)
    options.started()
    from graftkit import evaluating
    from graftkit.cli.progress import Watcher
    from graftkit.reporting.evaluations import evaluation_table, evaluation_words
    from graftkit.run_folder import EVALUATION, EVALUATION_PICTURE

    trust, allow = given.pop("trust"), given.pop("allow")
    parts: Any = (only,) if only else ("corruptions", "few")
    asked = evaluating.Asked(run, parts, evaluating.parse_shares(given.pop("shares")), **given)
    with Watcher() as observer, options.stdout_kept(), stopping(_AFTER_SIGTERM):
        report = evaluating.evaluate(asked, observer, trust=trust, allow=allow)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
        return
    from rich.console import Console

    piped = not sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=piped, width=200 if piped else None)
    console.print()
    report = report.only(parts)  # the files have what an earlier evaluation found, too
    for sentence in evaluation_words(report):
        console.print(sentence, markup=False, soft_wrap=piped)
    console.print()
    console.print(evaluation_table(report))
    console.print(f"Written: {run / EVALUATION} and {run / EVALUATION_PICTURE}", markup=False)


def _check(context: click.Context, only: str | None) -> None:
    """Raise UsageError for options of the part that is left out."""
    others = {"corruptions": ("shares", "seeds", "epochs", "start"), "few": ("form", "time")}
    said = options.said(context, dict.fromkeys(others.get(only or "", ())))
    if said:
        name = "time-axis" if said[0] == "time" else said[0]
        raise click.UsageError(f"--only {only} leaves out what --{name} is for", context)
