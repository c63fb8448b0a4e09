"""`graftkit export`: a run's model as ONNX again, or a base with dendrites from a file; a run's dendrites alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli import apart, options
from graftkit.cli.numbers import Number
from graftkit.cli.paths import NewFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graftkit.core.gates import GateReport
    from graftkit.shipping import Shipped, Smaller


@click.command()
@click.argument("run", metavar="RUN|MODEL", type=click.Path(path_type=Path))
@click.option("--out", type=NewFile(),
              help="The file to write.  [default: RUN/model.onnx, or RUN/model-PRECISION.onnx, RUN/model-gate.onnx,"
              " RUN/dendrites.safetensors]")  # fmt: skip
@click.option("--dendrites-only", is_flag=True, help="Write the dendrites of a run with --freeze-base alone, as a small"
              " safetensors file for the same base.")  # fmt: skip
@click.option("--dendrites", metavar="FILE", type=click.Path(path_type=Path),
              help="Such a file: it goes onto MODEL, the base as a model file, instead of a run.")  # fmt: skip
@click.option("--data", help="With --dendrites: rows that the file is compared on.  [default: random ones]")
@click.option("--precision", help="Numbers of the file: fp16, bf16 (weights alone), int8 (made from training rows) or"
              " int4 (large Linear weights alone, opset 21). Not what augment calls so, which is the training's own."
              "  [default: fp32]")  # fmt: skip
@click.option("--gate", is_flag=True, help="Dendrites run only for rows of whose class the network is unsure without"
              " them; written where that is measured to save time.")  # fmt: skip
@click.option("--tolerance", type=Number(0), default=0.005, show_default=True,
              help="How much of the validation metric a --precision or --gate may cost, in its own unit (0.005 of"
              " accuracy is half a point); of a metric below zero, a loss with a minus, a share.")  # fmt: skip
@options.opset
@options.layout
@click.option("--runtime", help="Where --layout auto and --gate measure.  [default: onnxruntime]")
@click.option("--threads", type=click.IntRange(1), help="Of that runtime.  [default: 1]")
@options.model
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@options.as_json
@click.pass_context
def export(context: click.Context, /, run: Path, **given: Any) -> None:
    """Write the model of RUN as one plain ONNX file, with other options than the first time.

    With --dendrites, the model is MODEL with the dendrites in FILE; with --dendrites-only, those of RUN are written
    without it.
    """
    apart.check_together(context, given)
    options.started()
    if given["dendrites_only"]:
        apart.save(run, given)
    else:
        _as_onnx(context, run, given)


def _as_onnx(context: click.Context, run: Path, given: Mapping[str, Any]) -> None:
    from graftkit.cli.progress import Watcher
    from graftkit.precisions import PRECISIONS
    from graftkit.run_folder import RunFolder
    from graftkit.shipping import Target, ship, ship_smaller

    opset, precision, gate = given["opset"], given["precision"], given["gate"]
    kind = None if precision is None else PRECISIONS.find(precision)
    if kind is not None and context.get_parameter_source("opset") is click.core.ParameterSource.DEFAULT:
        opset = max(opset, kind.opset)
    model_file = RunFolder(run).model
    name = "gate" if gate else kind and kind.name
    target = given["out"] or (model_file.with_stem(f"{model_file.stem}-{name}") if name else model_file)
    apart.refuse_existing(target, force=given["force"])
    with Watcher() as observer, options.stdout_kept():
        observer.on_stage("reading the model" if given["dendrites"] else "reading the run")
        model, rows, metric, called, own = _opened(run, given)
        where = Target(given["runtime"] or "onnxruntime", given["threads"] or 1)
        how: dict[str, Any] = {"opset": opset, "facts": own, "layout": given["layout"], "target": where}
        how["on_stage"] = observer.on_stage
        told: tuple[dict[str, Any], str | RenderableType]
        refused = None
        if gate:
            tolerance = given["tolerance"]
            notes, told, refused = _with_gate(model, target, rows, metric, called, tolerance=tolerance, **how)
        elif kind is None:
            plain = ship(model, target, rows, **how)
            notes, told = plain.notes, _plainly(plain, opset)
        else:
            how["tolerance"] = given["tolerance"]
            small = ship_smaller(model, target, rows, metric, precision=kind.name, **how)
            notes, told = small.notes, _smaller(small, opset, called)
        for line in notes:
            observer.on_warning(line)
    _say(told, as_json=given["as_json"])
    if refused is not None:
        raise refused


def _opened(run: Path, given: Mapping[str, Any]) -> tuple[Any, Any, Any, str, dict[str, Any]]:
    """The model, rows, metric and its name, and what the file says beside the plan: of a run, or of a base."""
    from graftkit.adapting import open_base
    from graftkit.reopening import open_run
    from graftkit.run_folder import RunFolder

    if given["dendrites"] is None:
        model, rows, metric, facts = open_run(run, trust=given["trust"], allow=given["allow"])
        inspection = RunFolder(run).read_inspection().to_json()
        return model, rows, metric, facts["metric"], {"source_sha256": facts["sha256"] or "", "inspection": inspection}
    how = {name: given[name] for name in ("data", "output", "dynamic")}
    base, some, score, facts = open_base(options.source_request(str(run), given), given["dendrites"], **how)
    return base, some, score, facts["metric"], {"source_sha256": facts["sha256"] or ""}


def _say(told: tuple[dict[str, Any], str | RenderableType], *, as_json: bool) -> None:
    values, text = told
    if as_json:
        click.echo(json.dumps(values, indent=2))
    elif isinstance(text, str):
        click.echo(text)
    else:
        _show(text)


def _with_gate(
    model: Any, path: Path, rows: Any, metric: Any, name: str, **how: Any
) -> tuple[Sequence[str], tuple[dict[str, Any], str | RenderableType], Exception | None]:
    """Notes, what is said as JSON and as text, and why nothing was written where the gates that were measured lost."""
    from rich.console import Group

    from graftkit.core.errors import ExportError
    from graftkit.reporting import gate_table
    from graftkit.shipping import ship_gated

    reports: list[GateReport] = []
    values: dict[str, Any] = {"model": None, "opset": how["opset"], "metric": name}
    try:
        made = ship_gated(model, path, rows, metric, on_measured=reports.append, **how)
    except ExportError as error:
        if not reports:
            raise
        return (), (values | {"gate": reports[0].to_json()}, gate_table(reports[0], name)), error
    worst = ", ".join(f"{runtime} {value:.1e}" for runtime, value in made.parity.items())
    line = f"Written: {made.path} (gate, opset {how['opset']}; largest relative difference of a row: {worst})"
    told = values | {"model": str(made.path), "parity": dict(made.parity), "gate": made.report.to_json()}
    return made.notes, (told, Group(gate_table(made.report, name), line)), None


def _show(table: RenderableType) -> None:
    from rich.console import Console

    piped = not sys.stdout.isatty()
    Console(highlight=False, soft_wrap=piped, width=200 if piped else None).print(table)


def _plainly(plain: Shipped, opset: int) -> tuple[dict[str, Any], str]:
    """What is said of a file, as JSON and as text."""
    worst = ", ".join(f"{name} {value:.1e}" for name, value in plain.parity.items())
    lines = [f"Written: {plain.path} (opset {opset}; largest relative difference: {worst})"]
    for name in dict.fromkeys(plain.layouts.values()):
        sites = [site for site, layout in plain.layouts.items() if layout == name]
        lines.append(f"In the layout {name}: {', '.join(sites)}")
    told = {"parity": dict(plain.parity), "layouts": dict(plain.layouts)}
    return {"model": str(plain.path), "opset": opset, **told}, "\n".join(lines)


def _smaller(small: Smaller, opset: int, metric: str) -> tuple[dict[str, Any], str]:
    """The same of one in smaller numbers."""
    values = {
        "model": str(small.path),
        "opset": opset,
        "precision": small.precision,
        "metric": metric,
        "validation": {"fp32": small.before, small.precision: small.after},
        "bytes": {"fp32": small.bytes_before, small.precision: small.bytes_after},
        "latency_ratio": small.latency,
        "difference": small.difference,
    }
    line = (
        f"Written: {small.path} ({small.precision}, opset {opset}; {metric} on validation {small.before:.4f} →"
        f" {small.after:.4f}; {small.bytes_before:,} → {small.bytes_after:,} bytes; one row on one thread takes"
        f" {small.latency:.2f} of the time in fp32 here)"
    )
    return values, line
