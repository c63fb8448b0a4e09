"""The verbs a program calls: load, trace, make_plan, graft, fit, export, verify, inspect; dendrites as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftkit import datasets, folding, inspection, sources, surgery, training
from graftkit.contracts import Criterion, Data, LoadedModel, Metric, Observer
from graftkit.core import options
from graftkit.core.errors import DataError, ExportError, SourceError
from graftkit.core.records import Inspection
from graftkit.costs import parse_budget
from graftkit.dendrite_files import is_dendrite_file, load_dendrites, save_dendrites
from graftkit.dendrites import build_dendrite
from graftkit.fitting import FitResult, Settings, fit_model
from graftkit.learning import Rule
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import GraftPlan
from graftkit.planning import parameter_limit, plan_cycle
from graftkit.reading import find_device, in_order, load, trace
from graftkit.rules import RULES
from graftkit.run_folder import RunFolder, is_run
from graftkit.shipping import export, fresh_graph, read_onnx, runtime_metric, to_onnx, verify
from graftkit.training import Recipe


def load_data(spec: str, *, seed: int = 0, input_shape: tuple[int, ...] | None = None) -> Data:
    """Read data: `digits`, a `.npz` file, a folder of images, or `file.py:function`. Raises DataError."""
    return datasets.load_data(spec, seed=seed, input_shape=input_shape)


def make_plan(
    traced: TracedModel,
    *,
    dendrites: str | Sequence[str] = (),
    sites: str | Sequence[str] = (),
    rule: str | Rule = "gradient",
    join: str = "activation",
    mask: str | None = None,
) -> GraftPlan:
    """What one cycle grafts: dendrites for each chosen site. See `graftkit.planning.plan_cycle`."""
    made, _ = plan_cycle(
        traced, dendrites=_texts(dendrites), sites=_texts(sites), rule=find_rule(rule), join=join, mask=mask
    )
    return made


def graft(traced: TracedModel, plan: GraftPlan | None = None, *, seed: int = 0) -> GraftedModel:
    """A trainable model with the plan's dendrites at zero strength, so that it computes what it did before.

    Raises PlanError where the plan does not fit the model, or no error would reach a dendrite.
    """
    model = surgery.empty(traced)
    grafts = (plan or GraftPlan()).grafts
    surgery.check_reached(model, grafts, build_dendrite)
    surgery.graft(model, grafts, build_dendrite, seed=seed)
    return model


def fit(
    model: TracedModel | GraftedModel,
    rows: Data,
    *,
    plan: GraftPlan | None = None,
    rule: str | Rule = "gradient",
    loss: str | Criterion | None = None,
    label_smoothing: float = 0.0,
    metric: str | Metric | None = None,
    epochs: int = 40,
    cycles: int = 2,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    shrink: float = 1.0,
    max_parameters: str | int | None = None,
    budget: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    control: bool = True,
    margin: float = 1.0,
    precision: str = "32-true",
    deterministic: bool = False,
    observer: Observer | None = None,
) -> FitResult:
    """Grow dendrites, train, and keep the best validated state, which may be the model as given.

    Where `torch.distributed` was begun, all its processes train one model: call it in all of them, with the same rows.

    Args:
        model: a traced model; or a grafted one, which then counts as given.
        rows: training, validation and test rows.
        plan: what one cycle grafts; the defaults where it is None.
        rule: "gradient" or "correlation", or one with options.
        loss, metric: a name, an import path, or a function; as the labels suggest where they are None.
        label_smoothing: the share of each label that goes to all classes alike, in all arms; for cross_entropy.
        epochs: epochs of each phase.
        cycles: cycles at most.
        learning_rate: of every phase, after its warm-up.
        shrink: what the network's weights are multiplied by before each phase, to learn anew; 1 leaves them.
        max_parameters: "+20%" of what the model has, or a number.
        budget: "parameters=+10%", or macs, size, latency: `plan` is what a trial chooses from, the kinds of
            `graftkit.planning.TRIED` at every site where it is None; all of it is grafted in one cycle.
        seed, seeds: the first seed, and how many repetitions.
        control: also spend the same epochs on the ungrafted model.
        margin: how many standard errors a gain on validation must have for dendrites to ship.
        precision: "32-true" or "bf16-mixed".
        deterministic: refuse operations whose result may be another one each time.
        observer: where progress goes.

    Raises:
        DataError: labels and outputs do not fit together.
        TrainingError: the given model's own score is not a number.
    """
    grafted = surgery.empty(model) if isinstance(model, TracedModel) else model
    learning = find_rule(rule)
    criterion, score = criterion_for(loss, rows, smoothing=label_smoothing), metric_for(metric, rows, loss)
    check_rows(grafted, rows, criterion, _loss_name(loss, rows))
    settings = Settings(
        epochs=epochs,
        cycles=cycles if budget is None else 1,
        batch_size=batch_size,
        recipe=Recipe(learning_rate=learning_rate, shrink=shrink),
        max_parameters=parameter_limit(max_parameters, grafted.parameter_count()),
        seed=seed,
        seeds=seeds,
        control=control,
        margin=margin,
        precision=precision,
        deterministic=deterministic,
    )
    additions = plan or plan_cycle(grafted.traced, rule=learning, every=budget is not None)[0]
    limit = None if budget is None else parse_budget(budget)
    watch = observer or Observer()
    return fit_model(grafted, rows, additions, learning, criterion, score, settings, watch, budget=limit)


def inspect(
    what: str | Path | TracedModel | GraftedModel | LoadedModel,
    example: Any = None,
    *,
    output: str | None = None,
    dynamic: str = "auto",
    **how: Any,
) -> Inspection:
    """Which sites there are, and what each received: of a model, a model file, a run's folder or any ONNX file.

    Args:
        what: a live object, or a path, or an architecture.
        example: what a model file is traced with. An ONNX file is read as it is where there is none.
        output, dynamic: as `trace` takes them.
        how: as `load` takes it: `trust`, `weights`, `arch`, `arch_args`, `allow`, `part`.

    Raises SourceError, TraceError, RunError.
    """
    if isinstance(what, TracedModel):
        return inspection.inspect_traced(what)
    if isinstance(what, GraftedModel):
        return inspection.inspect_grafted(what, {})
    if isinstance(what, LoadedModel):
        traced = trace(what, example, output=output, dynamic=dynamic, parts=True)
        found = inspection.inspect_traced(traced, format="program" if traced.source is None else "module")
        return replace(found, notes=(*what.warnings, *found.notes))
    path = Path(what)
    if path.is_dir():
        if not is_run(path):
            raise SourceError(f"{path} is a folder, but not a run's: it has no source.json")
        return RunFolder(path).read_inspection()
    if path.is_file() and sources.looks_like_onnx(path) and not how.get("part"):
        proto = read_onnx(path)
        try:
            facts = folding.read_description(proto)
        except ExportError as error:
            raise SourceError(f"{path}: {error}") from error
        return inspection.inspect_onnx(proto, facts, name=path.name)
    if is_dendrite_file(path):
        raise SourceError(f"{path} is a file of dendrites without a base; `graftkit inspect` shows it")
    return inspect(load(what, **how), example, output=output, dynamic=dynamic)


def find_rule(rule: str | Rule) -> Rule:
    """A learning rule from text such as `correlation:pool=8,train_installed=true`. Raises PlanError."""
    return options.parse(RULES, rule) if isinstance(rule, str) else rule


def criterion_for(loss: str | Criterion | None, rows: Data, *, smoothing: float = 0.0) -> Criterion:
    """The loss that was named, or the one the labels suggest. Raises DataError."""
    name = training.DEFAULT_LOSS[rows.labels] if loss is None else loss
    if isinstance(name, str):
        return training.find_loss(name, smoothing=smoothing)
    if smoothing:
        raise DataError("label smoothing is for the loss cross_entropy; smooth within your own")
    return name


def metric_for(metric: str | Metric | None, rows: Data, loss: str | Criterion | None = None) -> Metric:
    """The metric that was named, or the one the loss and the labels suggest. Raises DataError."""
    named = loss if isinstance(loss, str) else None
    name = training.usual_metric(named, rows.labels) if metric is None else metric
    return training.find_metric(name) if isinstance(name, str) else name


def check_rows(model: GraftedModel, rows: Data, criterion: Criterion, loss: str) -> None:
    """Raise DataError where the rows' shapes or labels do not fit the model."""
    inputs, targets = next(iter(training.batches(rows.validation, 8)))
    ports = model.traced.signature.inputs
    training.check_fit(model, inputs, targets, criterion, classes=rows.classes, loss=loss, expected=ports)


def _loss_name(loss: str | Criterion | None, rows: Data) -> str:
    if loss is None:
        return training.DEFAULT_LOSS[rows.labels]
    return loss if isinstance(loss, str) else getattr(loss, "__name__", "your loss")


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


__all__ = [
    "export",
    "find_device",
    "fit",
    "fresh_graph",
    "graft",
    "in_order",
    "inspect",
    "load",
    "load_data",
    "load_dendrites",
    "make_plan",
    "read_onnx",
    "runtime_metric",
    "save_dendrites",
    "to_onnx",
    "trace",
    "verify",
]
