"""`graftkit sweep`: which settings of `augment` or `compress` give the best network for its size."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from graftkit.cli import options
from graftkit.cli.stopping import stopping
from graftkit.cli.swept import SWEPT, Swept

_LEFT_OUT = "none"  # the value of an option that has no default, where it is not given
_GO_ON = "the same command again goes on with the sweep"
_ARCH = "arch."  # `arch.hidden` is the argument `hidden` of the architecture


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Every option of `graftkit augment`, or `graftkit compress`, may be given, too, and holds for all trials.",
)
@click.argument("asked", metavar="MODEL [ITS OPTIONS]", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option("--compress", "compresses", is_flag=True, help="Search the settings of compress instead.")
@click.option("--search", "searched", multiple=True, metavar="OPTION=VALUES",
              help="What to try for an option of the command, or for an argument of the architecture: values as"
              " 'dendrites=full|lowrank:rank=2', 'max-parameters=none|+10%' or 'freeze-base=yes|no', a range as"
              " cycles=1..3, learning-rate=1e-3..1e-2 or arch.width=4..16. Repeatable."
              "  [default: kinds, learning rate, cycles; of compress: what to keep,"
              " importance, distillation, learning rate]")  # fmt: skip
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True,
              help="Until there are so many, those of other workers included.")  # fmt: skip
@click.option("--storage", metavar="URL",
              help="A database that workers on several machines share, as postgresql://user@host/name."
              "  [default: sqlite, in --out]")  # fmt: skip
@click.option("--study", metavar="NAME", help="The sweep's name in the storage.  [default: that of --out]")
@click.option("--cost", type=click.Choice(["parameters", "macs"]), default="parameters", show_default=True,
              help="What accuracy is weighed against.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the sweep.  [default: runs/NAME-sweep]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search and of each run.")
@options.as_json
def sweep(
    asked: tuple[str, ...],
    compresses: bool,
    searched: tuple[str, ...],
    trials: int,
    storage: str | None,
    study: str | None,
    cost: str,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Search the settings of augment, or of compress, for networks that are good for their size.

    Each trial is a run of `graftkit augment` with its control, or of `graftkit compress`, so that the accuracies that
    sizes reach with dendrites and without stand beside each other. The same command again goes on with a sweep, and
    more of them at the same time share its work, on one machine or on many.
    """
    swept, fixed = SWEPT["compress" if compresses else "augment"], (*asked, "--seed", str(seed))
    given = _parsed(swept, fixed)
    space = _space(swept, searched, given)
    _check_values(swept, fixed, space)
    options.started()
    _check_jobs(swept, fixed, space)
    from rich.console import Console

    from graftkit import sweeping
    from graftkit.cli.sweep_progress import SweepWatcher
    from graftkit.reporting import front_table, sweep_words

    where = out or Path(f"{swept.folder(given.params['model'])}-sweep")
    wanted = sweeping.Sweep(
        job=lambda settings, folder: swept.job(_parsed(swept, fixed, settings).params, folder),
        space=space,
        out=where,
        trials=trials,
        storage=storage,
        study=study or where.resolve().name,
        cost=cost,
        seed=seed,
    )
    with SweepWatcher() as observer, options.stdout_kept(), stopping(_GO_ON):
        report = _searched(wanted, observer)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print()
    for sentence in sweep_words(report):
        console.print(sentence, markup=False)
    console.print(front_table(report))
    written = [where / name for name in (sweeping.RECORDS, sweeping.FRONT) if (where / name).exists()]
    console.print(f"Written: {' and '.join(map(str, written))}", markup=False)


def _searched(wanted: Any, observer: Any) -> Any:
    """The sweep's report. Raises Interrupted with what to do about it."""
    from graftkit import augmenting, sweeping

    try:
        return sweeping.sweep(wanted, observer)
    except (KeyboardInterrupt, augmenting.Interrupted):
        raise augmenting.Interrupted(f"stopped by the user; {_GO_ON}") from None


def _parsed(swept: Swept, fixed: tuple[str, ...], settings: Mapping[str, str] | None = None) -> click.Context:
    """What the command is given on a command line, and by a trial's settings."""
    line = [*fixed]
    for name, value in (settings or {}).items():
        line += _written(swept, name, value)
    context = swept.command.make_context(f"graftkit {swept.command.name}", line)
    for name in swept.refused:
        if context.params[name]:
            raise click.UsageError(f"--{name} is not for the runs of a sweep; leave it out")
    if context.params["model"] is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    return context


def _written(swept: Swept, name: str, value: str) -> list[str]:
    """A setting as it is written on a command line."""
    if name.startswith(_ARCH):
        return ["--arch-args", f"{name.removeprefix(_ARCH)}={value}"]
    option = swept.options[name]
    if option.is_flag:
        return option.opts[:1] if value == "yes" else option.secondary_opts[:1]
    return [] if value == _LEFT_OUT else [option.opts[0], value]


def _space(swept: Swept, searched: tuple[str, ...], given: click.Context) -> dict[str, Any]:
    """What is searched, by option."""
    from graftkit.core.errors import PlanError
    from graftkit.core.search import read_dimension

    found: dict[str, Any] = {}
    for text in searched or swept.space:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("--")
        if not equals:
            raise click.UsageError(f"--search {text} is not OPTION=VALUES")
        if name in found:
            raise click.UsageError(f"--search gives {name} twice; give it once")
        _check_name(swept, name)
        if not searched and any(given.params[other] is not None for other in swept.instead.get(name, ())):
            continue
        if _is_given(swept, name, given):
            if not searched:
                continue  # what is given is not searched unless asked
            raise click.UsageError(f"--search {name} and --{name} contradict each other; leave one out")
        try:
            found[name] = read_dimension(name, values)
        except PlanError as error:
            raise click.UsageError(str(error)) from None
    return found


def _check_name(swept: Swept, name: str) -> None:
    from graftkit.core.errors import did_you_mean

    known = sorted(set(swept.options) - swept.alike)
    if name.startswith(_ARCH) or name in known:
        return
    if name in swept.alike:
        raise click.UsageError(f"--search: {name} is the same in all trials; give it as --{name}")
    command = swept.command.name
    raise click.UsageError(f"--search: {command} has no option --{name}.{did_you_mean(name, known)}")


def _is_given(swept: Swept, name: str, given: click.Context) -> bool:
    if name.startswith(_ARCH):
        return name.removeprefix(_ARCH) in dict(given.params["arch_args"])
    source = given.get_parameter_source(swept.options[name].name or "")
    return source is ParameterSource.COMMANDLINE


def _check_values(swept: Swept, fixed: tuple[str, ...], space: Mapping[str, Any]) -> None:
    """Raise UsageError where the command would refuse a value."""
    first, bare = {name: dimension.samples()[0] for name, dimension in space.items()}, _parsed(swept, fixed).params
    for name, dimension in space.items():
        option = swept.options.get(name)
        if option is not None and option.is_flag and not {*dimension.samples()} <= {"yes", "no"}:
            raise click.UsageError(f"--search {name}: it is a flag, so say {name}=yes|no")
        if option is not None and _LEFT_OUT in dimension.samples() and bare[option.name or ""] is not None:
            raise click.UsageError(f"--search {name}: without it there is its default, so none is no value of it")
        for value in dimension.samples():
            swept.check(_parsed(swept, fixed, {**first, name: value}))


def _check_jobs(swept: Swept, fixed: tuple[str, ...], space: Mapping[str, Any]) -> None:
    """Raise PlanError, or what else is the matter with a value, where no run could be made of it."""
    first = {name: dimension.samples()[0] for name, dimension in space.items()}
    for name, dimension in space.items():
        for value in dimension.samples():
            swept.job(_parsed(swept, fixed, {**first, name: value}).params, Path())
