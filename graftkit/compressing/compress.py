"""From a model file to a smaller model in a run's folder: pruned, with dendrites where they pay, and verified."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftkit import api, inspection, preflight, pruning
from graftkit.augmenting import Interrupted
from graftkit.compressing import remembering
from graftkit.compressing.asked import Asked
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.layers import layer_records
from graftkit.compressing.opening import Opened, facts_of, opened
from graftkit.compressing.regularising import chosen_recipe
from graftkit.compressing.shrinking import check_reachable, smallest
from graftkit.compressing.sizes import Descent, Reached, knee, row
from graftkit.compressing.table import benched
from graftkit.compressing.target import Target, parse_target
from graftkit.contracts import Observer
from graftkit.core.compressions import GIVEN, GRAFTED, PRUNED, SCRATCH, CompressionReport, NetworkRecord, SizeRecord
from graftkit.core.errors import PruningError
from graftkit.core.records import Inspection
from graftkit.fitting import FolderJournal
from graftkit.model import GraftedModel
from graftkit.reporting.compressions import compression_html
from graftkit.request import Request, other_versions
from graftkit.run_folder import FRONT, INSPECTION, METRICS, PLAN, REPORT, REQUEST, SHAPES, SOURCE, RunFolder
from graftkit.shipping import Shipped, ship
from graftkit.training import Teacher, batches
from graftkit.watching import watched


def compress(asked: Asked, observer: Observer) -> CompressionReport:
    """Make a model smaller, and write it into a run's folder with its file, its table and its report.

    Raises:
        PruningError: the target cannot be met, or nothing of the model can be pruned; then no folder is left.
        GraftkitError: before anything was trained, the folder is as it was; afterwards `resume` goes on from there.
        Interrupted: the user stopped it.
    """
    pruning.library()
    folder = RunFolder(asked.request.out.resolve())
    with folder.begun(force=asked.request.force):
        try:
            folder.write_json(REQUEST, asked.to_json())
            return _run(asked, folder, observer)
        except BaseException as error:
            if isinstance(error, PruningError) or not folder.worth_keeping:
                folder.give_up()  # what cannot be met cannot be met when it goes on, either
            raise


def resume(
    path: Path, observer: Observer, *, trust: bool = False, allow: tuple[str, ...] = ()
) -> CompressionReport | None:
    """Go on with a run that was stopped or killed; None if it has ended. Raises as `compress`, and RunError."""
    folder = RunFolder(path.resolve())
    with ExitStack() as held:
        held.enter_context(folder.reopened())
        told = folder.read_json(REQUEST)
        asked = Asked.from_json(told, folder.path, trust=trust, allow=allow)
        if folder.ended:
            return None
        if others := other_versions(told):
            observer.on_warning(f"{others}: the result may differ from that of a run without a break")
        try:
            return _run(asked, folder, observer)
        except PruningError:
            folder.give_up()
            raise


def _run(asked: Asked, folder: RunFolder, observer: Observer) -> CompressionReport:
    request = asked.request
    try:
        with watched(observer, folder, request.loggers, request.told_settings()) as told:
            return _compress(asked, folder, told)
    except KeyboardInterrupt:
        if not folder.worth_keeping:
            raise
        trust = " --trust" if request.source.trust else ""
        raise Interrupted(
            f"stopped by the user; `graftkit compress --resume {request.out}{trust}` goes on from the last checkpoint"
        ) from None


def _compress(asked: Asked, folder: RunFolder, observer: Observer) -> CompressionReport:
    request, target = asked.request, parse_target(asked.target)
    pruning.IMPORTANCES.find(asked.importance)
    found = opened(asked, observer)
    observer.on_stage("tracing")
    lab = Lab(
        data=found.rows,
        criterion=api.criterion_for(request.loss, found.rows, smoothing=request.label_smoothing),
        metric=api.metric_for(request.metric, found.rows, found.loss),
        settings=replace(request.settings, cycles=1),
        how={"output": request.output, "dynamic": request.dynamic},
        observer=observer,
        journal=FolderJournal(folder.progress, observer.on_warning),
    )
    given = lab.network(replace(found.loaded, model=copy.deepcopy(found.module)), found.widths)
    preflight.check_repeatable(given.model.traced)
    api.check_rows(given.model, found.rows, lab.criterion, found.loss)

    def asked_amount() -> float:
        """What the model has of the target's cost, once that can be met."""
        amount, least = target.cost.given(given.model), smallest(lab, given, target.counted)
        if not asked.searches:
            check_reachable(target.cost, least, target.of(amount))
        return amount

    amount = remembering.number(lab.journal, "given amount", asked_amount)
    if asked.distil:
        batch = next(iter(batches(found.rows.validation, 8)))
        lab.teacher = Teacher.of(given.model, asked.distil, found.loss, batch)
    folder.check_source(found.loaded.provenance.get("sha256"))
    folder.write_json(SOURCE, facts_of(asked, found))
    lab.settings = replace(lab.settings, recipe=chosen_recipe(lab, asked, given, target, amount))
    reached, at = _reached(asked, Descent(lab, asked, target, given, amount))
    return _shipped(asked, folder, found, lab, target, given, reached, at)


def _reached(asked: Asked, descent: Descent) -> tuple[list[Reached], int]:
    """Every size that was reached, and which of them ships. Raises PruningError where none is within the loss."""
    settings, cost = descent.lab.settings, descent.target.cost
    if asked.dendrites and not descent.competes:
        descent.lab.observer.on_warning(f"dendrites are not tried: what one adds to {cost.name} cannot be measured")
    seeds = range(settings.seed, settings.seed + settings.seeds)
    if asked.front:
        fronts = [descent.front(seed) for seed in seeds]
        return [one for front in fronts for one in front], knee([one.record for one in fronts[0]])
    if asked.max_loss is not None:
        found = [one for seed in seeds for one in descent.smallest(seed)]
        return found, descent.best_within(found)
    found = [descent.reach(descent.given, descent.target.of(descent.amount), asked.steps, seed) for seed in seeds]
    return found, max(range(len(found)), key=lambda number: found[number].chosen.measured.validation)


def _shipped(
    asked: Asked,
    folder: RunFolder,
    opened: Opened,
    lab: Lab,
    target: Target,
    given: Network,
    reached: Sequence[Reached],
    at: int,
) -> CompressionReport:
    """Write the folder of what ships, and all that is told."""
    request, observer, chosen = asked.request, lab.observer, reached[at].chosen
    model = chosen.model.eval()
    found = inspection.inspect_grafted(model, {})
    folder.write_json(SHAPES, pruning.shapes_of(opened.module, chosen.module).to_json())
    folder.write_json(PLAN, model.plan.to_json())
    folder.write_checkpoint(model)
    if (scratch := reached[at].scratch) is not None:
        shapes = pruning.shapes_of(opened.module, scratch.module).to_json()
        folder.write_arm("control", scratch.model.plan, scratch.model.state_dict(), shapes)
    folder.write_json(INSPECTION, found.to_json())
    folder.keep()
    shipped = _written(folder.model, model, found, opened, lab, request)
    if asked.front:
        _write_front(folder, reached, opened, lab, request)
    observer.on_stage("measuring files side by side")
    first, record = _measured(given, reached[at], observer)
    sizes = [one.record for one in reached]
    sizes[at] = record
    report = CompressionReport(
        name=given.model.traced.name,
        metric=opened.metric,
        cost=target.cost.name,
        unit=target.cost.unit,
        given=first,
        sizes=tuple(sizes),
        seeds=tuple(one.seed for one in reached),
        shipped=at,
        knee=at if asked.front else None,
        layers=layer_records(opened.module, chosen.module, model),
        kept={one.name: one.reason for one in opened.kept},
        inspection=found,
        parity=shipped.parity,
        settings=_told(asked, lab),
        notes=(*opened.notes, *shipped.notes),
    )
    folder.write_json(METRICS, {**report.to_json(), "interrupted": False})
    folder.write_text(REPORT, compression_html(report))
    folder.end()
    return report


def _written(path: Path, model: GraftedModel, found: Inspection, opened: Opened, lab: Lab, request: Request) -> Shipped:
    """Write a model's file, once it was verified."""
    return ship(
        model,
        path,
        opened.rows,
        opset=request.opset,
        layout=request.layout,
        facts={"source_sha256": opened.loaded.provenance.get("sha256") or "", "inspection": found.to_json()},
        metric=lab.metric,
        on_stage=lab.observer.on_stage,
    )


def _write_front(folder: RunFolder, reached: Sequence[Reached], opened: Opened, lab: Lab, request: Request) -> None:
    """A file for each size, of the best network there that any seed gave."""
    (folder.path / FRONT).mkdir(exist_ok=True)
    best: dict[float, Reached] = {}
    for one in reached:
        before = best.setdefault(one.record.share, one)
        best[one.record.share] = max(before, one, key=lambda each: each.record.best.validation)
    for share, one in best.items():
        model = one.chosen.model.eval()
        path = folder.path / FRONT / f"model-{100 * share:.0f}.onnx"
        _written(path, model, inspection.inspect_grafted(model, {}), opened, lab, request)


def _told(asked: Asked, lab: Lab) -> Mapping[str, Any]:
    """The options in force, and what was chosen for those that were left open."""
    settings, recipe, request = lab.settings, lab.settings.recipe, asked.request
    chosen = {"sparsity": recipe.sparsity, "weight_decay": recipe.weight_decay}
    names = ("epochs", "batch_size", "margin", "seed", "seeds", "device", "deterministic")
    return {
        "data": request.told or request.data,
        **asked.to_json()["compress"],
        **chosen,
        "learning_rate": recipe.learning_rate,
        **{name: getattr(settings, name) for name in names},
        "opset": request.opset,
        "layout": request.layout,
    }


def _measured(given: Network, reached: Reached, observer: Observer) -> tuple[NetworkRecord, SizeRecord]:
    """The given network's row and those of a size, with what their files measure."""
    record = reached.record
    networks = {GIVEN: (row(GIVEN, given), given.model), PRUNED: (record.pruned, reached.pruned.model)}
    if record.grafted is not None and reached.grafted is not None:
        networks[GRAFTED] = record.grafted, reached.grafted.model
    if record.scratch is not None and reached.scratch is not None:
        networks[SCRATCH] = record.scratch, reached.scratch.model
    found = benched(networks, observer.on_stage)
    grafted, scratch = found.get(GRAFTED, record.grafted), found.get(SCRATCH, record.scratch)
    return found[GIVEN], replace(record, pruned=found[PRUNED], grafted=grafted, scratch=scratch)
