"""`graftkit compress`: a smaller model, pruned, with dendrites where they are worth more than channels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from graftkit.cli import options, processes
from graftkit.cli.augment import default_folder
from graftkit.cli.numbers import Number
from graftkit.cli.stopping import stopping

_AFTER_SIGTERM = "if training had begun, `compress --resume RUN` goes on with it"


@click.command()
@click.argument("model", required=False)
@options.data
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME-small]")
@click.option("--keep", metavar="SHARE", help="Share of the parameters to keep, as 40%.  [default: 40%]")
@click.option("--target", metavar="WHAT=SIZE",
              help="How small, instead: parameters=16430, macs=50%, size=60KB, latency=200us, memory=1MB.")  # fmt: skip
@click.option("--max-loss", type=Number(0), metavar="POINTS",
              help="Find the smallest model that loses no more on validation (hundredths for R2).")  # fmt: skip
@click.option("--front", is_flag=True, help="The whole curve: ten sizes, 100% to 5%, a file each; the knee ships.")
@click.option("--steps", type=click.IntRange(1), default=4, show_default=True,
              help="Steps down to the target, each followed by training.")  # fmt: skip
@click.option("--importance", type=click.Choice(["first-order", "taylor", "magnitude"]), default="first-order",
              show_default=True, help="What channels are worth.")  # fmt: skip
@click.option("--distil", type=Number(0, 1, max_open=True), default=0.5, show_default=True,
              help="Share of the loss that is made of the given model's answers.")  # fmt: skip
@click.option("--sparsity", type=Number(0), metavar="WEIGHT",
              help="L1 on scales and strengths.  [default: chosen on validation, with the weight decay]")  # fmt: skip
@click.option("--dendrites/--no-dendrites", default=True, help="Let dendrites compete with channels.")
@click.option("--scratch/--no-scratch", default=True,
              help="Also train a plain network of the same shape from scratch, for as long.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Epochs of each step.")
@click.option("--learning-rate", type=Number(0, min_open=True), default=3e-3, show_default=True)
@options.batch_size
@options.loss
@options.metric
@options.margin
@options.seed
@options.seeds
@options.device
@options.deterministic
@options.opset
@options.layout
@options.model
@options.force
@options.resume
@options.as_json
@click.pass_context
def compress(context: click.Context, /, **given: Any) -> None:
    """Make MODEL smaller: channels that do little leave, in steps, and the rest learns from MODEL's answers.

    Then dendrites compete with channels that cost as much, and validation decides. The run's folder is one that
    `inspect`, `export`, `verify`, `bench` and, as a model, `augment` take. Needs the extra `compress`.
    """
    check_together(context, given)
    options.started()
    from graftkit import compressing
    from graftkit.cli.progress import Watcher

    out: Path = given["resume"] or given["out"] or default_folder_of(given["model"])
    with Watcher() as observer, options.stdout_kept(), stopping(_AFTER_SIGTERM):
        if given["resume"]:
            report = compressing.resume(out, observer, trust=given["trust"], allow=given["allow"])
        else:
            report = compressing.compress(asked_from(given, out), observer)
    if given["as_json"]:
        click.echo((out / "metrics.json").read_text(), nl=False)
        return
    if report is None:
        click.echo(f"{out} came to its end before; there is nothing to go on with")
        return
    _show(report, out)


def _show(report: Any, out: Path) -> None:
    from rich.console import Console

    from graftkit.reporting.compressions import compression_table, compression_verdict

    piped = not sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=piped, width=200 if piped else None)
    console.print()
    for sentence in filter(None, compression_verdict(report)):
        console.print(sentence, markup=False, soft_wrap=piped)
    console.print()
    console.print(compression_table(report))
    parity = ", ".join(f"{name} {worst:.1e}" for name, worst in report.parity.items())
    console.print(f"Verified against the trained model (largest relative difference): {parity}", markup=False)
    console.print(f"Written: {out / 'model.onnx'} and {out / 'report.html'}", markup=False)


def check_together(context: click.Context, given: dict[str, Any]) -> None:
    """Raise UsageError for goals that contradict each other, and under torchrun."""
    if processes.count() > 1:
        raise click.UsageError("compress runs in one process; start it without torchrun", context)
    options.check_resume(context, given)
    if given["keep"] and given["target"]:
        raise click.UsageError("--keep and --target both say how small; give one", context)
    if given["front"] and given["max_loss"] is not None:
        raise click.UsageError("--front shows every size, and --max-loss looks for one; give one", context)
    for sizes in ("front", "max_loss"):
        share = given["keep"] or "%" in (given["target"] or "") or any(c.isdigit() for c in given["target"] or "")
        if given[sizes] and share:
            raise click.UsageError(
                f"--{sizes.replace('_', '-')} looks for sizes itself; give --target the cost alone, as --target macs",
                context,
            )
        if given[sizes] and "steps" in options.said(context, given):
            raise click.UsageError(f"--{sizes.replace('_', '-')} takes one step a size; leave out --steps", context)


def asked_from(given: dict[str, Any], out: Path) -> Any:
    """What is asked for, from what the command line gave."""
    from graftkit.compressing import Asked, kept, parse_target
    from graftkit.fitting import Settings
    from graftkit.request import Request
    from graftkit.training import Recipe

    target = given["target"] or f"parameters={100 * kept(given['keep'] or '40%', '--keep'):g}%"
    searches = given["front"] or given["max_loss"] is not None
    target = f"{target}=100%" if searches and "=" not in target else target
    parse_target(target)
    settings = Settings(
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        recipe=Recipe(learning_rate=given["learning_rate"]),
        seed=given["seed"],
        seeds=given["seeds"],
        margin=given["margin"],
        device=given["device"],
        deterministic=given["deterministic"],
    )
    names = ("data", "loss", "metric", "output", "dynamic", "opset", "layout", "force")
    request = Request(
        source=options.source_request(given["model"], given),
        out=out,
        settings=settings,
        **{name: given[name] for name in names},
    )
    own = ("max_loss", "front", "steps", "importance", "distil", "sparsity", "dendrites", "scratch")
    return Asked(request=request, target=target, **{name: given[name] for name in own})


def default_folder_of(model: str) -> Path:
    """`runs/NAME-small`."""
    run = default_folder(model)
    return run.with_name(f"{run.name}-small")
