"""`graftkit transplant`: a run's dendrites and weights in the user's own ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from graftkit.cli import options
from graftkit.cli.paths import NewFile


@click.command()
@click.argument("deployed", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=NewFile(), required=True, help="The file to write.")
@options.trust
@options.allow
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@options.as_json
def transplant(
    deployed: Path, run: Path, out: Path, trust: bool, allow: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Put the dendrites and weights of RUN into DEPLOYED, an ONNX file of your own.

    DEPLOYED has to be an export of the model that RUN was given, made by whatever tool, with whatever stands around it.
    Layers are found by their weights; everything else in the file stays byte for byte what it is.
    """
    options.started()
    from graftkit import transplanting
    from graftkit.cli.progress import Watcher

    with Watcher() as observer, options.stdout_kept():
        done = transplanting.transplant(deployed, run, out, force=force, trust=trust, allow=allow, observer=observer)
    if as_json:
        click.echo(json.dumps(done.to_json(), indent=2))
        return
    click.echo(
        f"Written: {out} ({done.matched} layers matched, {len(done.updated)} weights updated, {done.added} nodes added"
        f" for the dendrites at {', '.join(done.sites) or 'no site'}; {done.proved} compared with the trained model,"
        f" largest relative difference {done.parity:.1e})"
    )
