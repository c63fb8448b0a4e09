"""Writes a trained model as ONNX, once the file has proved to compute what the model computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from graftkit import checking, folding, inspection, surgery, tracing, training
from graftkit.contracts import Data, Metric
from graftkit.core.atomic import write_bytes
from graftkit.core.errors import ExportError, MismatchError
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES


def to_onnx(
    model: GraftedModel, *, opset: int = folding.DEFAULT_OPSET, facts: Mapping[str, Any] | None = None
) -> onnx.ModelProto:
    """The folded ONNX model, from a fresh evaluation graph of the trained weights. Raises ExportError."""
    graph = fresh_graph(model)
    written = folding.to_onnx(graph, model.traced.inputs, opset=opset)
    folded = folding.fold(written, model.traced.sites, model.plan.sites())
    own = {"plan": model.plan.to_json(), "inspection": inspection.inspect_grafted(model, {}).to_json()}
    folding.describe(folded, version=version("graftkit"), facts={**own, **(facts or {})})
    return folded


def export(
    model: GraftedModel,
    path: str | Path,
    *,
    rows: Data | None = None,
    opset: int = folding.DEFAULT_OPSET,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the model as one plain ONNX file, once it has proved to compute the same.

    Args:
        model: with its trained weights.
        path: where to write.
        rows: data whose validation rows are compared, besides random ones.
        opset: 17 to 25.
        facts: written as JSON into the file's metadata, beside the plan.

    Raises:
        ExportError, MismatchError: then nothing is written.
    """
    written = to_onnx(model, opset=opset, facts=facts)
    verify(written, model, rows)
    target = Path(path)
    write_bytes(target, written.SerializeToString())
    return target


def verify(
    file: str | Path | onnx.ModelProto,
    model: GraftedModel,
    rows: Data | None = None,
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    tolerance: float = checking.TOLERANCE,
) -> dict[str, float]:
    """The largest difference to the trained model for each runtime, relative to the outputs' scale.

    Compared are all validation rows, where there are data, and random inputs, in batches of 1, 2 and 7.

    Raises:
        MismatchError: more than `tolerance`; the message names the site where the outputs part.
        ExportError: the file is not ONNX, or a runtime does not load it.
    """
    proto = file if isinstance(file, onnx.ModelProto) else read_onnx(Path(file))
    content = proto.SerializeToString()
    training_mode, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        found = {}
        for name in runtimes:
            runtime = RUNTIMES.find(name)
            batches = list(_probes(model, rows))
            worst = checking.compare(runtime.open(content), lambda x: model(x.to(device)), batches)
            if not worst <= tolerance:
                site = checking.first_difference(
                    proto, fresh_graph(model), batches[-1].to(device), runtime.open, tolerance=tolerance
                )
                where = f"; the outputs first part at site {site!r}" if site else ""
                raise MismatchError(
                    f"{name} gives outputs that differ by {worst:.2g} of their scale from the trained model"
                    f" (tolerance {tolerance:g}){where}"
                )
            found[name] = worst
        return found
    finally:
        model.train(training_mode)


def runtime_metric(file: onnx.ModelProto, rows: Data, metric: Metric, *, runtime: str = "onnxruntime") -> float:
    """The validation metric, computed through a runtime alone."""
    run = RUNTIMES.find(runtime).open(file.SerializeToString())
    outputs, targets = training.predict(
        lambda x: torch.from_numpy(run(x.numpy())[0]), rows.validation, torch.device("cpu")
    )
    return metric(outputs, targets)


def read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX file as a proto, checked. Raises ExportError."""
    try:
        proto = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf, onnx and the file system each have their own
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise ExportError(f"{path} is not a readable ONNX file: {first[:200]}") from None
    return proto


def fresh_graph(model: GraftedModel) -> torch.fx.GraphModule:
    """A fresh evaluation graph of the live model with its dendrites inserted."""
    graph = tracing.retrace(model.traced)
    surgery.insert_all(graph, model.plan, {site: model.at(site) for site in model.plan.sites()})
    graph.eval()
    return graph


def _probes(model: GraftedModel, rows: Data | None) -> list[Tensor]:
    example = model.traced.inputs[0].detach().cpu()
    if rows is None:
        seven = example.repeat((4,) + (1,) * (example.ndim - 1))
        return list(checking.random_like(seven))
    validation = [inputs for inputs, _ in training.batches(rows.validation, 256)]
    many = torch.cat([validation[0], example.repeat((4,) + (1,) * (example.ndim - 1))])
    return [*validation, *checking.random_like(many)]
