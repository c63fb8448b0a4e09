"""From a model file to a smaller model in a run's folder: pruned, with dendrites where they pay, and verified."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from graftkit import api, inspection, preflight, pruning, sources
from graftkit.augmenting import Interrupted
from graftkit.compressing.asked import Asked
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.regularising import chosen_recipe
from graftkit.compressing.shrinking import check_reachable
from graftkit.compressing.sizes import GIVEN, GRAFTED, PRUNED, SCRATCH, Descent, Reached, knee, row
from graftkit.compressing.table import benched
from graftkit.compressing.target import Target, parse_target
from graftkit.contracts import Data, LoadedModel, Observer
from graftkit.core.compressions import CompressionReport, LayerRecord, SizeRecord
from graftkit.core.errors import PruningError
from graftkit.fitting import FolderJournal
from graftkit.model import GraftedModel
from graftkit.pruning import Kept, Width
from graftkit.reopening import input_shape
from graftkit.reporting.compressions import compression_html
from graftkit.request import anchored_data, other_versions
from graftkit.run_folder import INSPECTION, METRICS, PLAN, REPORT, REQUEST, SHAPES, SOURCE, RunFolder
from graftkit.shipping import ship
from graftkit.training import DEFAULT_LOSS, Teacher, batches, seeded, usual_metric
from graftkit.watching import watched


def compress(asked: Asked, observer: Observer) -> CompressionReport:
    """Make a model smaller, and write it into a run's folder with its file, its table and its report.

    Raises:
        PruningError: the target cannot be met, or nothing of the model can be pruned; then nothing ships.
        GraftkitError: before anything was trained, the folder is as it was; afterwards `resume` goes on from there.
        Interrupted: the user stopped it.
    """
    pruning.library()
    folder = RunFolder(asked.request.out.resolve())
    with folder.begun(force=asked.request.force):
        try:
            folder.write_json(REQUEST, asked.to_json())
            return _run(asked, folder, observer)
        except BaseException:
            if not folder.worth_keeping:
                folder.give_up()
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
        return _run(asked, folder, observer)


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


@dataclass(frozen=True, eq=False)
class _Opened:
    """What is compressed: as it was read, its data, and what may shrink."""

    loaded: LoadedModel
    rows: Data
    loss: str
    metric: str
    widths: tuple[Width, ...]
    kept: tuple[Kept, ...]
    notes: tuple[str, ...]


def _opened(asked: Asked, observer: Observer) -> _Opened:
    """Read model and data. Raises PruningError where the source has no modules, or nothing in them may shrink."""
    request = asked.request
    observer.on_stage("reading")
    with seeded(request.settings.seed):  # an architecture without weights draws some
        loaded = preflight.single_precision(sources.load(request.source))
    if not isinstance(loaded.model, nn.Module) or not _layers(loaded.model):
        raise PruningError(
            f"{request.source.spec} is a graph whose operators hold weights themselves; channels are pruned in layers,"
            " so give the module: a pickle, or weights with --arch"
        )
    rows = api.load_data(request.data, seed=request.settings.seed, input_shape=input_shape(loaded))
    loss = request.loss or DEFAULT_LOSS[rows.labels]
    preflight.check_shapes(loaded, rows, request.data)
    observer.on_stage("finding what can be pruned")
    widths, kept = pruning.widths(loaded.model, rows.example())
    if not widths:
        first = f" ({kept[0].name}: {kept[0].reason})" if kept else ""
        raise PruningError(f"nothing of {loaded.name} can be pruned{first}")
    notes = (*loaded.warnings, *rows.warnings, *(f"not pruned: {one.name}: {one.reason}" for one in kept))
    for line in notes:
        observer.on_warning(line)
    return _Opened(loaded, rows, loss, request.metric or usual_metric(loss, rows.labels), widths, kept, notes)


def _layers(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.modules.conv._ConvNd | nn.Linear) for layer in module.modules())


def _compress(asked: Asked, folder: RunFolder, observer: Observer) -> CompressionReport:
    request, target = asked.request, parse_target(asked.target)
    pruning.IMPORTANCES.find(asked.importance)
    opened = _opened(asked, observer)
    observer.on_stage("tracing")
    lab = Lab(
        data=opened.rows,
        criterion=api.criterion_for(request.loss, opened.rows, smoothing=request.label_smoothing),
        metric=api.metric_for(request.metric, opened.rows, opened.loss),
        settings=replace(request.settings, cycles=1),
        how={"output": request.output, "dynamic": request.dynamic},
        observer=observer,
        journal=FolderJournal(folder.progress, observer.on_warning),
    )
    given = lab.network(replace(opened.loaded, model=copy.deepcopy(opened.loaded.model)), opened.widths)
    preflight.check_repeatable(given.model.traced)
    api.check_rows(given.model, opened.rows, lab.criterion, opened.loss)
    amount = target.cost.given(given.model)
    if not asked.front and asked.max_loss is None:
        check_reachable(lab, given, target.cost, target.counted, target.of(amount))
    if asked.distil:
        batch = next(iter(batches(opened.rows.validation, 8)))
        lab.teacher = Teacher.of(given.model, asked.distil, opened.loss, batch)
    folder.check_source(opened.loaded.provenance.get("sha256"))
    folder.write_json(SOURCE, _facts(asked, opened))
    lab.settings = replace(lab.settings, recipe=chosen_recipe(lab, asked, given, target, amount))
    reached, at = _reached(asked, lab, target, given, amount)
    return _shipped(asked, folder, opened, lab, given, target, amount, reached, at)


def _reached(asked: Asked, lab: Lab, target: Target, given: Network, amount: float) -> tuple[list[Reached], int]:
    """Every size that was reached, and which of them ships."""
    descent = Descent(lab, asked, target, given, amount)
    if asked.dendrites and not descent.competes:
        lab.observer.on_warning(f"dendrites are not tried: what one adds to {target.cost.name} cannot be measured")
    seeds = range(lab.settings.seed, lab.settings.seed + lab.settings.seeds)
    if asked.front:
        fronts = [descent.front(seed) for seed in seeds]
        found = [one for front in fronts for one in front]
        return found, knee([one.record for one in fronts[0]])
    if asked.max_loss is not None:
        found = [one for seed in seeds for one in descent.smallest(seed)]
        fitting = [number for number, one in enumerate(found) if descent.within(one)]
        return found, min(fitting, key=lambda number: found[number].record.amount)
    found = [descent.reach(given, target.of(amount), asked.steps, seed) for seed in seeds]
    return found, max(range(len(found)), key=lambda number: found[number].chosen.measured.validation)


def _shipped(
    asked: Asked,
    folder: RunFolder,
    opened: _Opened,
    lab: Lab,
    given: Network,
    target: Target,
    amount: float,
    reached: Sequence[Reached],
    at: int,
) -> CompressionReport:
    """Write the folder of what ships, and all that is told."""
    request, observer, chosen = asked.request, lab.observer, reached[at]
    model = chosen.chosen.model.eval()
    found = inspection.inspect_grafted(model, {})
    folder.write_json(SHAPES, pruning.shapes_of(opened.loaded.model, chosen.chosen.module).to_json())  # type: ignore[arg-type]
    folder.write_json(PLAN, model.plan.to_json())
    folder.write_checkpoint(model)
    folder.write_json(INSPECTION, found.to_json())
    folder.write_history(lab.phases)
    folder.keep()
    own = {"source_sha256": opened.loaded.provenance.get("sha256") or "", "inspection": found.to_json()}
    shipped = ship(
        model,
        folder.model,
        opened.rows,
        opset=request.opset,
        layout=request.layout,
        facts=own,
        metric=lab.metric,
        on_stage=observer.on_stage,
    )
    observer.on_stage("measuring files side by side")
    first, record = _measured(given, chosen, observer)
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
        layers=_layer_records(opened.loaded.model, chosen.chosen.module, model, opened.widths),  # type: ignore[arg-type]
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


def _measured(given: Network, reached: Reached, observer: Observer) -> tuple[Any, SizeRecord]:
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


def _layer_records(
    before: nn.Module, after: nn.Module, model: GraftedModel, widths: Sequence[Width]
) -> tuple[LayerRecord, ...]:
    """Every Conv, Linear and embedding with its outputs before and after, and how many neurons have dendrites."""
    served: dict[str, int] = {}
    for graft in model.plan.grafts:
        outputs = model.traced.site(graft.site).out_channels
        path = graft.site.partition(":")[0]
        served[path] = max(served.get(path, 0), outputs if graft.neurons is None else len(graft.neurons))
    pairs = ((path, layer, before.get_submodule(path)) for path, layer in after.named_modules())
    return tuple(
        LayerRecord(path, _outputs(old), _outputs(new), served.get(path, 0))
        for path, new, old in pairs
        if isinstance(new, nn.modules.conv._ConvNd | nn.Linear | nn.Embedding)
    )


def _outputs(layer: nn.Module) -> int:
    for name in ("out_channels", "out_features", "embedding_dim"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    return 0


def _facts(asked: Asked, opened: _Opened) -> Mapping[str, Any]:
    """What source.json says."""
    told = asked.request.to_json()["source"]
    return {
        "source": told["spec"],
        **{name: told[name] for name in ("weights", "arch", "arch_args", "allow", "part")},
        "output": asked.request.output,
        "dynamic": asked.request.dynamic,
        "sha256": opened.loaded.provenance.get("sha256"),
        "provenance": dict(opened.loaded.provenance),
        "data": anchored_data(asked.request.data),
        "seed": asked.request.settings.seed,
        "loss": opened.loss,
        "metric": opened.metric,
        "graftkit": version("graftkit"),
    }
