"""What is expected of a file that computes something else than the trained model, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graftkit import checking, training
from graftkit.contracts import Data, Feed, Inputs, Metric
from graftkit.core.errors import DataError, MismatchError
from graftkit.folding import OnnxFile
from graftkit.model import GraftedModel
from graftkit.shipping.fixed_rows import any_rows
from graftkit.shipping.probes import on_device
from graftkit.shipping.promises import Promise, allowed, believed, holds, promised


@dataclass(frozen=True)
class Expected:
    """What is expected of a file that computes something else.

    Attributes:
        promise: what it says of itself, as far as that is believed.
        before: the trained model's own metric.
        rows, metric: what it is judged by.
    """

    promise: Promise
    before: float
    rows: Data
    metric: Metric

    @staticmethod
    def of(promise: Promise, model: GraftedModel, rows: Data | None, metric: Metric | None) -> Expected:
        """Raises DataError where there is nothing to judge it by."""
        if rows is None or metric is None:
            raise DataError(f"the file has {promise.what} in it and is judged by its metric; pass rows and a metric")
        return Expected(promise, _own_metric(model, rows, metric), rows, metric)

    @property
    def most(self) -> float:
        """How much of the metric may be lost."""
        return allowed(self.before, self.promise.tolerance)

    @property
    def note(self) -> str:
        """By what it is judged, in a line."""
        why = "its gate leaves dendrites out" if self.promise.threshold is not None else f"it is in {self.promise.what}"
        return f"the difference is expected: {why}; the metric counts, {self.before:.4f} less {self.most:.2g} at most"

    def judge(self, metric: float) -> None:
        """Raise MismatchError where too much is lost."""
        if not holds(self.before, metric, self.promise.tolerance):
            raise MismatchError(
                f"the file ({self.promise.what}) takes the validation metric from {self.before:.4f} to {metric:.4f},"
                f" and it may lose {self.most:.2g} at most"
            )


def expected_of(
    opened: OnnxFile, model: GraftedModel, rows: Data | None, metric: Metric | None, tolerance: float | None
) -> Expected | None:
    """What is expected of a file; None where it has to compute what the model computes.

    Args:
        tolerance: how much of the metric may be lost; None believes the file, up to what `export` allows by itself.

    Raises ExportError, MismatchError and DataError as `promised`, `believed` and `Expected.of` do.
    """
    promise = promised(opened)
    return None if promise is None else Expected.of(believed(promise, tolerance), model, rows, metric)


def score_for(metric: str | Metric | None, rows: Data) -> Metric:
    """The metric that was named, or the one that the labels suggest. Raises DataError."""
    name = training.usual_metric(None, rows.labels) if metric is None else metric
    return training.find_metric(name) if isinstance(name, str) else name


def _own_metric(model: GraftedModel, rows: Data, metric: Metric) -> float:
    """The trained model's, in parts of as many rows as its graphs take."""
    signature = model.traced.signature
    sizes = [port.shape[0] for port in signature.inputs if port.shape]
    if not sizes or not isinstance(sizes[0], int):
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        return training.evaluate(model, rows.validation, metric, device)

    def run(feed: Feed) -> list[np.ndarray]:
        tensors = tuple(torch.from_numpy(feed[name]) for name in signature.input_names)
        return [checking.array(model(*on_device(model, tensors)))]

    whole = any_rows(run, sizes[0])

    def forward(inputs: Inputs) -> Tensor:
        return torch.from_numpy(whole(checking.feed(signature.input_names, model.arrange(inputs)))[0])

    return metric(*training.predict(forward, rows.validation))
