"""The main job: from a model file to a run's folder with a verified ONNX file, and back into a live model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graftkit import api, inspection, preflight, ranks, sources, surgery
from graftkit.contracts import Data, LoadedModel, Metric, Observer
from graftkit.core.errors import CaptureError, GraftkitError, TrainingError
from graftkit.core.records import RunReport
from graftkit.core.values import Spending
from graftkit.fitting import FitResult, FolderJournal, fit_model
from graftkit.folding import numbers_in, read_onnx
from graftkit.model import GraftedModel, TracedModel
from graftkit.planning import parameter_limit
from graftkit.reopening import input_shape
from graftkit.reporting import metrics, report_html
from graftkit.request import Request, anchored, anchored_data, other_versions
from graftkit.run_folder import INSPECTION, METRICS, PLAN, REPORT, REQUEST, SOURCE, VALUES, RunFolder
from graftkit.shipping import build, ship
from graftkit.training import DEFAULT_LOSS, seeded, usual_metric
from graftkit.watching import watched


class Interrupted(GraftkitError):
    """The user stopped the run; what was finished is kept."""

    exit_code = 130


def augment(request: Request, observer: Observer) -> RunReport | None:
    """Load, trace, graft, fit, export, verify, and write it all into a run's folder.

    Of several processes the first one writes and tells; the others train along and return None.

    Raises:
        GraftkitError: before anything was trained, the folder is as it was; afterwards what was finished
            is kept in it, and `resume` goes on from there.
        Interrupted: the user stopped it; the best state so far is in the folder, without an ONNX file.
    """
    folder = RunFolder(request.out.resolve())
    with ExitStack() as held:
        ranks.told(lambda: held.enter_context(folder.begun(force=request.force)))
        if ranks.number():
            _fit(request, None, Observer())
            return None
        try:
            folder.write_json(REQUEST, request.to_json())
            return _run(request, folder, observer)
        except BaseException:
            if not folder.worth_keeping:
                folder.give_up()
            raise


def resume(path: Path, observer: Observer, *, trust: bool = False, allow: tuple[str, ...] = ()) -> RunReport | None:
    """Go on with a run that was stopped or killed, from its last checkpoint to the same end; None if it has ended.

    Args:
        path: the run's folder.
        trust, allow: as `augment` was given them; a folder does not say what to trust.

    Raises:
        RunError: there is nothing to go on with; the data have changed.
        SourceError: the model's file has changed.
        GraftkitError, Interrupted: as `augment`.
    """
    folder = RunFolder(path.resolve())
    with ExitStack() as held:
        request = ranks.told(lambda: _reopened(folder, held, observer, trust=trust, allow=allow))
        if request is None:
            return None
        if ranks.number():
            _fit(request, None, Observer())
            return None
        return _run(request, folder, observer)


def _reopened(
    folder: RunFolder, held: ExitStack, observer: Observer, *, trust: bool, allow: tuple[str, ...]
) -> Request | None:
    """Hold the folder, and what was asked for; None for a run that has ended."""
    held.enter_context(folder.reopened())
    told = folder.read_json(REQUEST)
    if folder.ended:
        return None
    request = Request.from_json(told, folder.path, trust=trust, allow=allow)
    others = other_versions(told)
    if others:
        observer.on_warning(f"{others}: the result may differ from that of a run without a break")
    return request


def _run(request: Request, folder: RunFolder, observer: Observer) -> RunReport:
    try:
        with watched(observer, folder, request.loggers, request.told_settings()) as all_told:
            result, facts, rows, metric, notes = _fit(request, folder, all_told)
    except KeyboardInterrupt:
        if not folder.worth_keeping:
            raise
        folder.keep()
        raise Interrupted(f"stopped by the user; {_how_to_go_on(request)}") from None
    except BaseException:
        if folder.worth_keeping:
            folder.keep()
        raise
    if result.interrupted and not folder.worth_keeping:
        raise Interrupted("stopped by the user before anything was trained")
    model = result.model
    found = inspection.inspect_grafted(model, result.gains)
    folder.write_json(PLAN, model.plan.to_json())
    folder.write_checkpoint(model)
    for name, best in result.states.items():
        if name != result.shipped and not result.interrupted:  # what ships is the checkpoint
            folder.write_arm(name, best.plan, best.state)
    folder.write_json(INSPECTION, found.to_json())
    if result.spending is not None:
        folder.write_json(VALUES, result.spending.to_json())
    folder.keep()
    report = RunReport(
        name=model.traced.name,
        metric=facts["metric"],
        seed=request.settings.seed,
        shipped=result.shipped,
        baseline=result.baseline,
        control=result.control,
        grafted=result.grafted,
        best_grafted=result.best_grafted,
        seeds=result.seeds,
        phases=result.phases,
        epochs=result.epochs,
        inspection=found,
        warnings=(*notes, *result.troubles),
        stopped=result.stopped,
        settings=request.told_settings(),
        margin=result.margin,
        spending=result.spending,
    )
    if result.interrupted:
        _write(folder, report, interrupted=True)
        raise Interrupted(_what_is_kept(report, request))
    try:
        report = _ship(folder, report, model, rows, metric, facts, request, observer)
    except KeyboardInterrupt:
        _write(folder, report, interrupted=True)
        raise Interrupted(_what_is_kept(report, request)) from None
    except GraftkitError as error:
        _write(folder, report, interrupted=False)
        raise type(error)(
            f"{error}; {request.out} keeps what was trained, without an ONNX file (`graftkit augment --resume"
            f" {request.out}` tries again)"
        ) from error
    _write(folder, report, interrupted=False)
    folder.end()
    if result.diverged:
        raise TrainingError(
            f"{result.stopped}; the model was rolled back to its last good state, which {request.out} holds"
            " (try a lower --learning-rate)"
        )
    return report


def _fit(
    request: Request, folder: RunFolder | None, observer: Observer
) -> tuple[FitResult, Mapping[str, Any], Data, Metric, tuple[str, ...]]:
    observer.on_stage("reading")
    with seeded(request.settings.seed):  # an architecture without weights draws some
        loaded = preflight.single_precision(sources.load(request.source))
    rule = api.find_rule(request.rule)
    budget = request.growth(rule)
    rows = api.load_data(request.data, seed=request.settings.seed, input_shape=input_shape(loaded))
    loss = request.loss or DEFAULT_LOSS[rows.labels]
    criterion = api.criterion_for(request.loss, rows, smoothing=request.label_smoothing)
    metric = api.metric_for(request.metric, rows, loss)
    preflight.check_shapes(loaded, rows, request.data)
    observer.on_stage("tracing")
    traced = _traced(request, loaded, rows)
    preflight.check_repeatable(traced)
    model = surgery.empty(traced)
    additions, left_out = request.additions(model.traced, rule)
    api.check_rows(model, rows, criterion, loss)
    additions, left_out = preflight.reached_plan(model, additions, left_out, named=bool(request.sites))
    skipped = (f"not grafted: {line}" for line in left_out)
    told = (*preflight.output_notes(traced, output=request.output, loss=loss), inspection.coverage(traced))
    notes = (*loaded.warnings, *rows.warnings, *traced.notes, *told, *skipped)
    for line in notes:
        observer.on_warning(line)
    limit = parameter_limit(request.max_parameters, model.parameter_count())
    facts = {
        "source": sources.anchored(request.source.spec),
        "weights": anchored(str(request.source.weights)) if request.source.weights else None,
        "arch": sources.anchored(request.source.arch) if request.source.arch else None,
        "arch_args": dict(request.source.arch_args),
        "allow": list(request.source.allow),
        "part": request.source.part,
        "output": request.output,
        "dynamic": request.dynamic,
        "sha256": loaded.provenance.get("sha256"),
        "provenance": dict(loaded.provenance),
        "data": anchored_data(request.data),
        "seed": request.settings.seed,
        "loss": loss,
        "metric": request.metric or usual_metric(loss, rows.labels),
        "graftkit": version("graftkit"),
    }
    if folder is not None:
        folder.check_source(loaded.provenance.get("sha256"))
        folder.write_json(SOURCE, facts)
    result = fit_model(
        model,
        rows,
        additions,
        rule,
        criterion,
        metric,
        replace(request.settings, max_parameters=limit),
        observer,
        keep=lambda best: None if folder is None else _keep(folder, best),
        budget=budget,
        journal=FolderJournal(RunFolder(request.out.resolve()).progress, observer.on_warning),
    )
    return result, facts, rows, metric, notes


def _traced(request: Request, loaded: LoadedModel, rows: Data) -> TracedModel:
    device, output, dynamic = request.settings.device, request.output, request.dynamic
    try:
        return api.trace(loaded, rows.example(), device=device, output=output, dynamic=dynamic)
    except CaptureError as error:
        if loaded.signature or request.source.part:  # one graph has no parts
            raise
        hint = "a part of it may be grafted alone (--part PATH; `graftkit inspect` looks for the largest that traces)"
        raise CaptureError(f"{error}; {hint}") from error


def _ship(
    folder: RunFolder,
    report: RunReport,
    model: GraftedModel,
    rows: Data,
    metric: Metric,
    facts: Mapping[str, Any],
    request: Request,
    observer: Observer,
) -> RunReport:
    """Write model.onnx once it has proved to compute the same; the report with that proof."""
    own = {"source_sha256": facts["sha256"] or "", "inspection": report.inspection.to_json()}
    tell = observer.on_stage
    shipped = ship(
        model, folder.model, rows, opset=request.opset, layout=request.layout, facts=own, metric=metric, on_stage=tell
    )
    notes = (*shipped.notes, *_beyond(report.spending, model, folder.model))
    for line in notes:
        observer.on_warning(line)
    return replace(
        report,
        parity=shipped.parity,
        runtime_metric={} if shipped.metric is None else {"onnxruntime": shipped.metric},
        warnings=(*report.warnings, *notes),
    )


def _beyond(spending: Spending | None, model: GraftedModel, file: Path) -> Iterator[str]:
    """What a budget in parameters, which counts what is trained, does not say of the file."""
    if spending is None or spending.cost != "parameters" or all(g.neurons is None for g in model.plan.grafts):
        return
    held = numbers_in(read_onnx(file)) - numbers_in(build(model, dendrites=False).whole())
    if held > spending.allowance:
        yield (
            f"the file holds {held:,} numbers for dendrites where the budget allows {spending.allowance:,.0f}: those of"
            " some neurons are written with zeros for the others; --budget size= bounds the file"
        )


def _keep(folder: RunFolder, model: GraftedModel) -> None:
    """Write what it takes to export the model as it stands, should anything go wrong later."""
    folder.write_json(PLAN, model.plan.to_json())
    folder.write_checkpoint(model)
    folder.write_json(INSPECTION, inspection.inspect_grafted(model, {}).to_json())


def _write(folder: RunFolder, report: RunReport, *, interrupted: bool) -> None:
    folder.write_json(METRICS, {**metrics(report), "interrupted": interrupted})
    folder.write_text(REPORT, report_html(report))


def _what_is_kept(report: RunReport, request: Request) -> str:
    what = "the best state so far" if report.shipped == "grafted" else "the model as given (no graft beat it yet)"
    trust = " --trust" if request.source.trust else ""
    return (
        f"stopped by the user; {request.out} keeps {what}, {report.metric} {report.grafted.validation:.4f} on"
        f" validation; `graftkit export {request.out}{trust}` writes its ONNX file, and {_how_to_go_on(request)}"
    )


def _how_to_go_on(request: Request) -> str:
    trust = " --trust" if request.source.trust else ""
    return f"`graftkit augment --resume {request.out}{trust}` goes on from the last checkpoint"
