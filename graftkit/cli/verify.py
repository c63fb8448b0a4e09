"""`graftkit verify`: a run's ONNX file against its trained model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from graftkit.cli import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="The ONNX file to check.  [default: RUN/model.onnx]")
@click.option("--runtime", "runtimes", multiple=True, default=("onnxruntime",), show_default=True,
              help="onnxruntime, or reference (onnx's own evaluator). Repeatable.")  # fmt: skip
@options.trust
@options.allow
@options.as_json
def verify(
    run: Path, model: Path | None, runtimes: tuple[str, ...], trust: bool, allow: tuple[str, ...], as_json: bool
) -> None:
    """Check that the ONNX file of RUN computes what its trained model computes, and its metric."""
    options.started()
    from graftkit import api
    from graftkit.cli.progress import Watcher
    from graftkit.core.errors import RunError
    from graftkit.reopening import open_run
    from graftkit.run_folder import RunFolder

    if run.is_file():
        raise RunError(f"{run} is a file; name the run's folder, and this file with --model")
    target = model or RunFolder(run).model
    if not target.is_file():
        raise RunError(f"{target} is not there; `graftkit export {run}` writes it")
    with Watcher() as observer, options.stdout_kept():
        observer.on_stage("reading the run")
        trained, rows, metric, facts = open_run(run, trust=trust, allow=allow)
        observer.on_stage("verifying")
        parity = api.verify(target, trained, rows, runtimes=runtimes)
        scores = {name: api.runtime_metric(target, rows, metric, runtime=name) for name in runtimes}
    if as_json:
        result = {"model": str(target), "parity": parity, "metric": facts["metric"], "validation": scores}
        click.echo(json.dumps(result, indent=2))
        return
    for name, worst in parity.items():
        click.echo(
            f"{name}: largest relative difference {worst:.1e}, {facts['metric']} {scores[name]:.4f} on validation"
        )
