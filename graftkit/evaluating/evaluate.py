"""From a run's folder to what its networks do with corrupted inputs and few samples, written beside its other files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftkit import api
from graftkit.augmenting import Interrupted
from graftkit.contracts import Observer
from graftkit.core.atomic import write_text
from graftkit.core.errors import DataError, RunError
from graftkit.core.evaluations import CorruptedRecord, EvaluationReport, FewRecord
from graftkit.evaluating.asked import Asked
from graftkit.evaluating.corrupted import corrupted
from graftkit.evaluating.ends import ends_of
from graftkit.evaluating.few import Study
from graftkit.evaluating.networks import Opened, opened
from graftkit.fitting import FolderJournal
from graftkit.planning import parameter_limit
from graftkit.request import Request
from graftkit.run_folder import EVALUATION, EVALUATION_PICTURE, REQUEST, RunFolder

_ASKED = "asked.json"


def evaluate(asked: Asked, observer: Observer, *, trust: bool = False, allow: tuple[str, ...] = ()) -> EvaluationReport:
    """Measure a run's networks side by side, and write evaluation.json and evaluation.svg into its folder.

    A part that was not asked for stays there as an earlier evaluation found it. What corruptions do is written before
    few samples are learned from, and shares that were trained before a break are not trained again.

    Raises:
        RunError: it is no run's folder, or the run has not ended.
        SourceError, DataError: model or data cannot be read any more, or do not go with what was asked for.
        TraceError: few samples have no fresh weights to begin from.
        Interrupted: the user stopped it.
    """
    folder = RunFolder(asked.run.resolve())
    with folder.reopened():
        request = _request(folder, asked, trust=trust, allow=allow)
        notes: list[str] = []

        def note(line: str) -> None:
            if line not in notes:
                notes.append(line)
                observer.on_warning(line)

        watch = replace(observer, on_warning=note)
        watch.on_stage("reading the run")
        run = opened(folder.path, watch, device=api.find_device(asked.device), trust=trust, allow=allow)
        study = _study(run, asked, request, folder, watch)
        if "few" in asked.parts:
            study.check()
        report = EvaluationReport(
            name=run.given.model.traced.name,
            metric=str(run.facts["metric"]),
            parameters={network.name: network.awake().parameter_count() for network in run.networks},
        )
        if "corruptions" in asked.parts:
            report = replace(report, corrupted=_corrupted(run, asked, study, watch), notes=tuple(notes))
            report = _written(folder, replace(report, settings=asked.to_json("corruptions")))
        if "few" in asked.parts:
            few = _few(study, asked)
            settings = {**report.settings, **asked.to_json("few")}
            report = replace(report, few=few, start=study.start, notes=tuple(notes), settings=settings)
            report = _written(folder, report)
            shutil.rmtree(folder.evaluating, ignore_errors=True)
    return report


def _written(folder: RunFolder, report: EvaluationReport) -> EvaluationReport:
    """The report with what an earlier one found of what it lacks, once both files are there."""
    from graftkit.reporting.evaluation_picture import evaluation_svg  # matplotlib takes a second to import

    report = report.with_what_is_missing(_earlier(folder) or report)
    folder.write_json(EVALUATION, report.to_json())
    folder.write_text(EVALUATION_PICTURE, evaluation_svg(report))
    return report


def _earlier(folder: RunFolder) -> EvaluationReport | None:
    """What an earlier evaluation found; None where there is none that can be read."""
    try:
        return EvaluationReport.from_json(folder.read_json(EVALUATION))
    except (RunError, KeyError, TypeError, AttributeError):
        return None


def _request(folder: RunFolder, asked: Asked, *, trust: bool, allow: tuple[str, ...]) -> Request:
    """What the run was asked for. Raises RunError where it has not ended."""
    told = folder.read_json(REQUEST)
    told = dict(told) if isinstance(told, dict) else {}
    command = "compress" if told.pop("compress", None) is not None else "augment"
    if not folder.ended:
        raise RunError(f"{asked.run} has not ended; `graftkit {command} --resume {asked.run}` goes on with it")
    return Request.from_json(told, folder.path, trust=trust, allow=allow)


def _study(run: Opened, asked: Asked, request: Request, folder: RunFolder, observer: Observer) -> Study:
    """Everything that the run decided, for it to be done again."""
    limit = parameter_limit(request.max_parameters, run.given.awake().parameter_count())
    own = {"seeds": 1, "control": True, "device": asked.device, "max_parameters": limit}
    try:
        return Study(
            run=run,
            asked=asked,
            request=request,
            settings=replace(request.settings, **own),  # type: ignore[arg-type]
            rule=api.find_rule(request.rule),
            criterion=api.criterion_for(request.loss, run.data, smoothing=request.label_smoothing),
            metric=api.metric_for(str(run.facts["metric"]), run.data),
            observer=observer,
            journal=FolderJournal(_kept(folder, asked, observer), observer.on_warning),
        )
    except DataError as error:
        made_from = f"{asked.run} was made from {run.facts['source']} and {run.facts['data']}"
        raise DataError(f"{made_from}: {error}") from error


def _kept(folder: RunFolder, asked: Asked, observer: Observer) -> Path:
    """Where few samples keep what they could go on from: what was trained otherwise goes. Raises RunError."""
    if "few" not in asked.parts:
        return folder.evaluating
    told: Mapping[str, Any] = json.loads(json.dumps(asked.learning()))
    file = folder.evaluating / _ASKED
    try:
        if folder.evaluating.is_dir() and _read(file) != told:
            observer.on_warning("an evaluation that was stopped learned otherwise, so this one begins anew")
            shutil.rmtree(folder.evaluating)
        folder.evaluating.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(told))
    except OSError as error:
        raise RunError(f"{folder.evaluating} cannot be written: {error.strerror or error}") from error
    return folder.evaluating


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _corrupted(run: Opened, asked: Asked, study: Study, observer: Observer) -> CorruptedRecord:
    part, rows = ("test", run.data.test) if run.data.test is not None else ("validation", run.data.validation)
    if part == "validation":
        observer.on_warning("there are no test rows: validation rows are corrupted, which decided what ships")
    ends = ends_of(run.given, rows, asked.form, asked.time)
    return corrupted(run.networks, rows, part, study.metric, ends, observer, seed=asked.seed)


def _few(study: Study, asked: Asked) -> tuple[FewRecord, ...]:
    try:
        return tuple(study.records())
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped by the user; `graftkit evaluate {asked.run}` goes on from here, given the same options"
        ) from None
