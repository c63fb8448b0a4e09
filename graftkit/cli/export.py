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
@options.layout
@click.option("--runtime", help="Where --layout auto measures.  [default: onnxruntime]")
@click.option("--threads", type=click.IntRange(1), help="Of that runtime.  [default: 1]")
@options.trust
@options.allow
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@options.as_json
def export(
    run: Path,
    out: Path | None,
    opset: int,
    layout: str,
    runtime: str | None,
    threads: int | None,
    trust: bool,
    allow: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Write the model of RUN as one plain ONNX file, with other options than the first time."""
    if layout != "auto" and (runtime or threads):
        raise click.UsageError("--runtime and --threads say where --layout auto measures; pass that, too")
    options.started()
    from graftkit.cli.progress import Watcher
    from graftkit.core.errors import RunError
    from graftkit.reopening import open_run
    from graftkit.run_folder import RunFolder
    from graftkit.shipping import Target, ship

    folder = RunFolder(run)
    target = out or folder.model
    if target.exists() and not force:
        raise RunError(f"{target} exists already; pass --force to replace it, or another --out")
    with Watcher() as observer, options.stdout_kept():
        observer.on_stage("reading the run")
        model, rows, _, facts = open_run(run, trust=trust, allow=allow)
        own = {"source_sha256": facts["sha256"] or "", "inspection": folder.read_inspection().to_json()}
        measured = Target(runtime or "onnxruntime", threads or 1)
        shipped = ship(
            model, target, rows, opset=opset, facts=own, layout=layout, target=measured, on_stage=observer.on_stage
        )
        for line in shipped.notes:
            observer.on_warning(line)
    if as_json:
        told = {"parity": dict(shipped.parity), "layouts": dict(shipped.layouts)}
        click.echo(json.dumps({"model": str(target), "opset": opset, **told}, indent=2))
        return
    worst = ", ".join(f"{name} {value:.1e}" for name, value in shipped.parity.items())
    click.echo(f"Written: {target} (opset {opset}; largest relative difference: {worst})")
    for name in dict.fromkeys(shipped.layouts.values()):
        sites = [site for site, layout in shipped.layouts.items() if layout == name]
        click.echo(f"Written {name}: {', '.join(sites)}")
