"""What `graftkit export` does with dendrites apart from their base: which options go together, and the file of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from graftkit.cli import options

_OF_A_BASE = ("data", "weights", "arch", "arch_args", "part", "output", "dynamic")
_OF_DENDRITES = frozenset({"run", "out", "dendrites_only", "trust", "allow", "force", "as_json"})


def check_together(context: click.Context, given: Mapping[str, Any]) -> None:
    """Raise UsageError for options of `export` that do not go together."""
    said = [name for name in given if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given["dendrites_only"]:
        _refuse(context, [name for name in said if name not in _OF_DENDRITES], "--dendrites-only writes no ONNX file")
    if given["dendrites"] is None:
        _refuse(context, [name for name in said if name in _OF_A_BASE], "without --dendrites FILE the model is a run's")
    else:
        _check_base(context, given)
    if given["layout"] != "auto" and not given["gate"] and (given["runtime"] or given["threads"]):
        raise click.UsageError("--runtime and --threads say where --layout auto and --gate measure; pass one, too")
    if "tolerance" in said and not given["gate"] and given["precision"] is None:
        raise click.UsageError("--tolerance says how much --precision or --gate may cost; pass one, too")
    if given["gate"] and given["precision"] is not None:
        raise click.UsageError("--gate is for files in fp32; leave out either --gate or --precision")


def _refuse(context: click.Context, more: list[str], why: str) -> None:
    if more:
        raise click.UsageError(f"{why}; leave out --{more[0].replace('_', '-')}", context)


def _check_base(context: click.Context, given: Mapping[str, Any]) -> None:
    if given["out"] is None:
        raise click.UsageError("--dendrites goes onto a MODEL that has no folder; name the file with --out", context)
    if given["data"] is None and (given["gate"] or given["precision"] is not None):
        raise click.UsageError("--precision and --gate are made from rows; name some with --data", context)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise RunError where there is such a file that is not to be replaced."""
    from graftkit.core.errors import RunError

    if path.exists() and not force:
        raise RunError(f"{path} exists already; pass --force to replace it, or another --out")


def save(run: Path, given: Mapping[str, Any]) -> None:
    """Write a run's dendrites alone, and say so."""
    from graftkit.adapting import save_run
    from graftkit.cli.progress import Watcher
    from graftkit.run_folder import RunFolder

    path: Path = given["out"] or RunFolder(run).dendrites
    refuse_existing(path, force=given["force"])
    with Watcher() as observer, options.stdout_kept():
        observer.on_stage("reading the run")
        saved = save_run(run, path, trust=given["trust"], allow=given["allow"])
    if given["as_json"]:
        click.echo(json.dumps({"dendrites": str(path), **saved.to_json()}, indent=2))
        return
    click.echo(
        f"Written: {path} ({saved.bytes:,} bytes; {saved.parameters:,} parameters of {len(saved.dendrites)} dendrites,"
        f" for the base {saved.base})"
    )
