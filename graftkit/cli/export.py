"""`graftkit export`: a run's model as ONNX again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from graftkit.cli import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: RUN/model.onnx]")
@options.opset
@options.trust
@options.allow
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@options.as_json
def export(
    run: Path, out: Path | None, opset: int, trust: bool, allow: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Write the model of RUN as one plain ONNX file, with other options than the first time."""
    options.started()
    from graftkit.cli.progress import Watcher
    from graftkit.core.errors import RunError
    from graftkit.reopening import open_run
    from graftkit.run_folder import RunFolder
    from graftkit.shipping import ship

    folder = RunFolder(run)
    target = out or folder.model
    if target.exists() and not force:
        raise RunError(f"{target} exists already; pass --force to replace it, or another --out")
    with Watcher() as observer, options.stdout_kept():
        observer.on_stage("reading the run")
        model, rows, _, facts = open_run(run, trust=trust, allow=allow)
        own = {"source_sha256": facts["sha256"] or "", "inspection": folder.read_inspection().to_json()}
        shipped = ship(model, target, rows, opset=opset, facts=own, on_stage=observer.on_stage)
        for line in shipped.notes:
            observer.on_warning(line)
    if as_json:
        click.echo(json.dumps({"model": str(target), "opset": opset, "parity": dict(shipped.parity)}, indent=2))
        return
    worst = ", ".join(f"{name} {value:.1e}" for name, value in shipped.parity.items())
    click.echo(f"Written: {target} (opset {opset}; largest relative difference: {worst})")
