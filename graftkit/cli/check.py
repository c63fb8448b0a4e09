"""`graftkit check`: an ONNX file against what targets are known to take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli import options

if TYPE_CHECKING:
    from graftkit.targets import Finding, Target


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", "names", multiple=True, required=True,
              help="tensorrt, coreml, tflite, executorch, rknn, or all. Repeatable.")  # fmt: skip
@options.as_json
@click.pass_context
def check(context: click.Context, model: Path, names: tuple[str, ...], as_json: bool) -> None:
    """List what of the ONNX file MODEL a target would not load, by the lists that it publishes.

    Nothing is run: where nothing is known against a file, the target may still refuse it. Exits with 1 where something
    would not load.
    """
    options.started()
    from graftkit.shipping import read_onnx
    from graftkit.targets import TARGETS
    from graftkit.targets import check as checked

    targets = list(TARGETS.values()) if "all" in names else [TARGETS.find(name) for name in dict.fromkeys(names)]
    proto = read_onnx(model)
    found = {target.name: checked(proto, target) for target in targets}
    click.echo(json.dumps(_values(model, targets, found), indent=2) if as_json else _text(targets, found))
    context.exit(1 if any(found.values()) else 0)


def _values(model: Path, targets: Sequence[Target], found: Mapping[str, Sequence[Finding]]) -> dict[str, object]:
    from dataclasses import asdict

    told = {
        target.name: {
            "list": target.title,
            "findings": [asdict(finding) for finding in found[target.name]],
            "notes": list(target.notes),
        }
        for target in targets
    }
    return {"model": str(model), "run": False, "targets": told}


def _text(targets: Sequence[Target], found: Mapping[str, Sequence[Finding]]) -> str:
    lines = []
    for target in targets:
        findings = found[target.name]
        said = f"{len(findings)} known against it" if findings else "nothing known against it"
        lines.append(f"{target.name}: {said}, by the list of {target.title}; not run")
        for each in findings:
            where = f"{each.node} ({each.operator}): " if each.node else ""
            lines.append(f"  {where}{each.why}. What to do: {each.instead}")
        lines += [f"  note: {note}" for note in target.notes]
    return "\n".join(lines)
