"""Losses and metrics by name, by import path, or as the labels suggest."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftkit.contracts import Criterion, Metric
from graftkit.core.errors import DataError, did_you_mean
from graftkit.core.importing import importable


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of rows whose largest output, or whose sign if there is only one, names the class."""
    if outputs.ndim <= targets.ndim or outputs.shape[1] == 1:
        chosen = (outputs.reshape(len(targets), -1) > 0).long()
        return float((chosen == targets.reshape(len(targets), -1).long()).double().mean())
    return float((outputs.argmax(1) == targets).double().mean())


def r2(outputs: Tensor, targets: Tensor) -> float:
    """Coefficient of determination, 1 - residual / total sum of squares, mean over output columns."""
    outputs, targets = outputs.double().flatten(1), targets.double().flatten(1)
    total = ((targets - targets.mean(0)) ** 2).sum(0).clamp(min=1e-12)
    return float((1 - ((targets - outputs) ** 2).sum(0) / total).mean())


def negative_mse(outputs: Tensor, targets: Tensor) -> float:
    """Minus the mean squared error, so that higher is better."""
    return -float(functional.mse_loss(outputs.double(), targets.double()))


def _bce(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype).reshape(outputs.shape))


LOSSES: Mapping[str, Criterion] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "bce": _bce,
}
METRICS: Mapping[str, Metric] = {"accuracy": accuracy, "r2": r2, "negative_mse": negative_mse}
DEFAULT_LOSS: Mapping[str, str] = {"classes": "cross_entropy", "values": "mse"}
DEFAULT_METRIC: Mapping[str, str] = {"classes": "accuracy", "values": "r2"}


def find_loss(name: str) -> Criterion:
    """The loss called `name`, or at the import path `package.module:name`. Raises DataError."""
    found: Any = _find(name, LOSSES, "loss")
    if inspect.isclass(found):  # torch.nn:SmoothL1Loss
        found = found()
    return found  # type: ignore[no-any-return]


def find_metric(name: str) -> Metric:
    """The metric called `name`, or at the import path `package.module:name`. Raises DataError."""
    return _find(name, METRICS, "metric")  # type: ignore[no-any-return]


def _find(name: str, known: Mapping[str, Callable[..., Any]], what: str) -> Any:
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise DataError(
            f"unknown {what} {name!r}; there are {', '.join(known)}, or name your own as package.module:name."
            f"{did_you_mean(name, known)}"
        )
    try:
        with importable(Path.cwd()):
            return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the user's own module raises while it is imported
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the {what} {name!r} cannot be imported: {type(error).__name__}: {reason}") from error


def check_fit(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    criterion: Criterion,
    *,
    classes: int | None,
    loss: str,
    expected: tuple[int, ...],
) -> None:
    """Raise DataError, in one line, where rows or labels do not fit the model.

    Args:
        model: the model, run on `inputs` in evaluation mode.
        inputs, targets: a few rows.
        classes: how many classes the labels name, None for values.
        loss: the loss's name, for messages.
        expected: the shape of one row that the model was traced with.
    """
    if tuple(inputs.shape[1:]) != expected:
        raise DataError(f"the model takes rows of {list(expected)}, but the data's are {list(inputs.shape[1:])}")
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        output = model(inputs.to(device))
    targets = targets.to(device)
    if loss == "cross_entropy" and classes is not None:
        _check_classes(output, classes)
    if loss in ("mse", "l1") and output.shape != targets.shape:
        raise DataError(
            f"the targets are {list(targets.shape[1:])} a row, but the model gives {list(output.shape[1:])};"
            " reshape one of them, or store labels that name classes as integers"
        )
    _check_loss(output, targets, criterion, loss)


def _check_classes(output: Tensor, classes: int) -> None:
    if output.ndim < 2:
        raise DataError(f"the model gives {tuple(output.shape)}, which is not a score for each class; name a --loss")
    if output.shape[1] < classes:
        raise DataError(
            f"the labels name {classes} classes, but the model's output has {output.shape[1]};"
            " check the data, or name another --loss"
        )


def _check_loss(output: Tensor, targets: Tensor, criterion: Criterion, loss: str) -> None:
    try:
        value = criterion(output, targets)
    except Exception as error:  # whatever the user's own loss raises
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DataError(f"the loss {loss!r} cannot compare the model's output with the labels: {reason}") from None
    if not isinstance(value, Tensor) or value.ndim != 0:
        raise DataError(f"the loss {loss!r} gives {type(value).__name__}, not one number as a tensor")
    if not torch.isfinite(value):
        raise DataError(
            f"the loss of the model as given is {float(value)} on the first rows; look at its weights and at the data"
        )
