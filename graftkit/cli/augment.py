"""`graftkit augment`: the main job."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from graftkit.cli import options, processes
from graftkit.cli.numbers import Number
from graftkit.cli.stopping import stopping


@click.command()
@click.argument("model", required=False)
@options.data
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--dendrites", multiple=True, metavar="KIND",
              help="context, own, around, lowrank, full, pointwise, depthwise, adapter or pooled, options as"
              " context:units=2,mode=add; conv=KIND or linear=KIND for one sort of call, KIND+KIND for one of each at"
              " a site. Repeatable.")  # fmt: skip
@click.option("--sites", multiple=True, metavar="GLOB", help="Sites to graft, as 'layer1.*'; ! excludes. Repeatable.")
@click.option(
    "--rule", default="gradient", show_default=True, help="gradient or correlation, options as correlation:pool=8."
)
@click.option("--cache-memory", metavar="SIZE",
              help="How much of what the rule correlation learns from is held in memory, the rest going to disk."
              "  [default: 1GB]")  # fmt: skip
@click.option("--freeze-base", is_flag=True, help="Dendrites alone learn (the control trains the network).")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Epochs of each phase.")
@click.option("--cycles", type=click.IntRange(1), help="Cycles at most.  [default: 2; 1 with --budget]")
@click.option("--budget", metavar="WHAT=+LIMIT",
              help="Spend so much where it is worth most, as a trial of a quarter of --epochs says: parameters=+10%,"
              " macs=+5%, size=+4KB or latency=+50us.")  # fmt: skip
@click.option("--max-parameters", metavar="LIMIT", help="Cap on growth: +20% or a number.")
@click.option("--learning-rate", type=Number(0, min_open=True), default=3e-3, show_default=True,
              help="The full one of your own recipe.")  # fmt: skip
@click.option("--shrink", type=Number(0, 1, min_open=True), default=1.0, show_default=True,
              help="Multiply the network's weights by this before each phase, so that it learns anew: 0.3 where you"
              " have all the rows it was trained on, and epochs enough.")  # fmt: skip
@options.batch_size
@options.loss
@click.option("--label-smoothing", type=Number(0, 1, max_open=True), default=0.0, show_default=True,
              help="Share of each label that goes to all classes alike; for cross_entropy.")  # fmt: skip
@options.metric
@click.option("--control/--no-control", default=True, help="Also spend the same epochs on the ungrafted model.")
@options.margin
@options.seed
@options.seeds
@click.option("--join", type=click.Choice(["activation", "call"]), default="activation", show_default=True,
              help="Join behind a batch norm, or at the call itself.")  # fmt: skip
@click.option("--mask", metavar="INPUT",
              help="The input that has a one for each position of a sequence that counts and a zero for padding, as"
              " attention_mask: context and own look at those that count.")  # fmt: skip
@options.device
@click.option("--precision", default="32-true", show_default=True, help="32-true or bf16-mixed.")
@click.option("--logger", "loggers", multiple=True, type=click.Choice(["tensorboard", "wandb"]),
              help="Where curves go, too: TensorBoard's files in RUN/logs, or Weights & Biases. Repeatable."
)  # fmt: skip
@options.deterministic
@options.opset
@options.layout
@options.model
@options.force
@options.resume
@options.as_json
@click.pass_context
def augment(context: click.Context, /, **given: Any) -> None:
    """Graft dendrites onto MODEL, train them, and write a verified ONNX file.

    MODEL is a file (a module or weights of torch.save, a torch.export or TorchScript archive, safetensors, a
    Lightning checkpoint, ONNX) or an architecture: package.module:factory, timm:NAME or hf:FOLDER. The run's folder
    receives model.onnx, report.html, metrics.json and, with model and data where they are now, all it takes to export
    again.
    """
    options.check_resume(context, given)
    if processes.number() == 0:
        options.started()
    from graftkit import augmenting, ranks
    from graftkit.cli.progress import Watcher
    from graftkit.contracts import Observer

    out: Path = given["resume"] or given["out"] or default_folder(given["model"])
    watcher = Watcher() if processes.number() == 0 else nullcontext(Observer())
    with watcher as observer, options.stdout_kept(), stopping(_AFTER_SIGTERM), ranks.launched(given["device"]):
        if given["resume"]:
            report = augmenting.resume(out, observer, trust=given["trust"], allow=given["allow"])
        else:
            report = augmenting.augment(request_from(given, out), observer)
    if processes.number():
        return
    if given["as_json"]:
        click.echo((out / "metrics.json").read_text(), nl=False)
        return
    if report is None:
        click.echo(f"{out} came to its end before; there is nothing to go on with")
        return
    from rich.console import Console

    from graftkit.reporting import result_table, spending_words, verdict

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print()
    for sentence in verdict(report):
        console.print(sentence, markup=False)
    console.print(result_table(report))
    if report.spending is not None:
        console.print(spending_words(report.spending), markup=False)
    console.print(f"Growth ended: {report.stopped}.", markup=False)
    parity = ", ".join(f"{name} {worst:.1e}" for name, worst in report.parity.items())
    console.print(f"Verified against the trained model (largest relative difference): {parity}", markup=False)
    console.print(f"Written: {out / 'model.onnx'} and {out / 'report.html'}", markup=False)


_AFTER_SIGTERM = "if training had begun, `augment --resume RUN` goes on with it"


def request_from(given: dict[str, Any], out: Path) -> Any:
    """What is asked for, from what the command line gave."""
    from graftkit.fitting import Settings
    from graftkit.request import Request
    from graftkit.training import Recipe

    settings = Settings(
        epochs=given["epochs"],
        cycles=_cycles(given["cycles"], given["budget"]),
        batch_size=given["batch_size"],
        recipe=Recipe(learning_rate=given["learning_rate"], shrink=given["shrink"]),
        seed=given["seed"],
        seeds=given["seeds"],
        control=given["control"],
        margin=given["margin"],
        device=given["device"],
        precision=given["precision"],
        deterministic=given["deterministic"],
    )
    return Request(
        source=options.source_request(given["model"], given),
        data=given["data"],
        out=out,
        dendrites=given["dendrites"],
        sites=given["sites"],
        rule=_rule(given),
        loss=given["loss"],
        label_smoothing=given["label_smoothing"],
        metric=given["metric"],
        output=given["output"],
        dynamic=given["dynamic"],
        max_parameters=given["max_parameters"],
        budget=given["budget"],
        join=given["join"],
        mask=given["mask"],
        opset=given["opset"],
        layout=given["layout"],
        settings=settings,
        loggers=given["loggers"],
        force=given["force"],
    )


def check_together(given: dict[str, Any]) -> None:
    """Raise UsageError for options that contradict each other."""
    _cycles(given["cycles"], given["budget"])
    _rule(given)


def _rule(given: dict[str, Any]) -> str:
    """The rule with what `--freeze-base` and `--cache-memory` say."""
    rule = str(given["rule"])
    if given["freeze_base"]:
        rule = _with(rule, "freeze", "true", same=("true", "yes", "1"), flag="--freeze-base")
    if given["cache_memory"] is not None:
        from graftkit.core.sizes import byte_count

        if rule.partition(":")[0] != "correlation":
            raise click.UsageError("--cache-memory is for --rule correlation; no other rule keeps anything")
        byte_count(given["cache_memory"])  # nothing else may stand behind it
        rule = _with(rule, "memory", given["cache_memory"], same=(given["cache_memory"],), flag="--cache-memory")
    return rule


def _with(rule: str, option: str, value: str, *, same: tuple[str, ...], flag: str) -> str:
    asked = re.search(rf"\b{option}=([^,]*)", rule)
    if asked is None:
        return f"{rule}{',' if ':' in rule else ':'}{option}={value}"
    if asked[1].strip().lower() not in {each.lower() for each in same}:
        raise click.UsageError(f"{flag} contradicts --rule {rule}")
    return rule


def _cycles(asked: int | None, budget: str | None) -> int:
    if budget is None:
        return 2 if asked is None else asked
    if asked not in (None, 1):
        raise click.UsageError("--budget is spent in one cycle; leave --cycles out")
    return 1


def default_folder(model: str) -> Path:
    """Of the run: called as the file without its ending, the architecture, the transformers folder."""
    return Path("runs") / _stem(model)


def _stem(model: str) -> str:
    kind, _, place = model.partition(":")
    if kind == "hf":
        return Path(place).resolve().name
    if kind == "timm":
        return place.partition(".")[0]
    return place if place and not Path(model).exists() else Path(model).stem
