"""Losses and metrics by name, by import path, or as the labels suggest."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graftkit.contracts import Criterion, Inputs, Metric
from graftkit.core.errors import DataError, did_you_mean
from graftkit.core.importing import importable
from graftkit.core.signature import Port
from graftkit.model import GraftedModel

IGNORED = -100  # a label that counts for nothing, as torch's cross entropy has it


def counted(targets: Tensor) -> int:
    """What a mean loss is the mean over: labels that count, or rows where targets are no labels."""
    return len(targets) if targets.is_floating_point() else int((targets != IGNORED).sum())


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of labels that the largest score, or the sign if there is only one, names; labels of -100 do not count."""
    if outputs.numel() == targets.numel():
        wanted = targets.reshape(outputs.shape)
        counted = wanted != IGNORED
        named = wanted > 0.5 if wanted.is_floating_point() else wanted
        return float(((outputs > 0) == named)[counted].double().mean())
    counted = targets != IGNORED
    right = scores_second(outputs, targets).argmax(1) == targets
    return float(right[counted].double().mean())


def cross_entropy(outputs: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """torch's, for scores [rows, classes, ...] or, as language models give them, [rows, ..., classes]."""
    return functional.cross_entropy(scores_second(outputs, targets), targets, label_smoothing=smoothing)


def scores_second(outputs: Tensor, targets: Tensor) -> Tensor:
    """Scores with the classes in the second dimension, where they come in the last."""
    last = outputs.ndim > 2 and outputs.shape[:-1] == targets.shape
    return outputs.movedim(-1, 1) if last and outputs.shape[2:] != targets.shape[1:] else outputs


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
    "cross_entropy": cross_entropy,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "bce": _bce,
}
METRICS: Mapping[str, Metric] = {"accuracy": accuracy, "r2": r2, "negative_mse": negative_mse}
DEFAULT_LOSS: Mapping[str, str] = {"classes": "cross_entropy", "values": "mse"}
DEFAULT_METRIC: Mapping[str, str] = {"classes": "accuracy", "values": "r2"}


def usual_metric(loss: str | None, labels: str) -> str:
    """What is measured where nothing was named: for yes and no (bce) how often they are right; or as the labels say."""
    return "accuracy" if loss == "bce" else DEFAULT_METRIC[labels]


def find_loss(name: str, *, smoothing: float = 0.0) -> Criterion:
    """The loss called `name`, or at the import path `package.module:name`.

    Args:
        name: of the loss.
        smoothing: the share of each label that goes to all classes alike (Szegedy et al. 2016), for cross_entropy.

    Raises:
        DataError: an unknown name, or smoothing that the loss does not take.
    """
    if smoothing:
        if name != "cross_entropy" or not 0 < smoothing < 1:
            raise DataError(
                f"label smoothing is a share below 1 for the loss cross_entropy, not {smoothing} for {name}"
            )
        return partial(cross_entropy, smoothing=smoothing)
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
    model: GraftedModel,
    inputs: Inputs,
    targets: Tensor,
    criterion: Criterion,
    *,
    classes: int | None,
    loss: str,
    expected: Sequence[Port],
) -> None:
    """Raise DataError, in one line, where rows or labels do not fit the model.

    Args:
        model: the model, run on `inputs` in evaluation mode.
        inputs, targets: a few rows.
        classes: how many classes the labels name, None for values.
        loss: the loss's name, for messages.
        expected: the inputs that the model was traced with.
    """
    given = model.arrange(inputs)
    for tensor, port in zip(given, expected, strict=True):
        _check_row(tensor, port, alone=len(expected) == 1)
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        output = model(*(tensor.to(device) for tensor in given))
    targets = targets.to(device)
    if loss == "cross_entropy" and classes is not None:
        _check_classes(scores_second(output, targets), classes)
    if loss in ("mse", "l1") and output.shape != targets.shape:
        raise DataError(
            f"the targets are {list(targets.shape[1:])} a row, but the model gives {list(output.shape[1:])};"
            " reshape one of them, or store labels that name classes as integers"
        )
    _check_loss(output, targets, criterion, loss)


def _check_row(tensor: Tensor, port: Port, *, alone: bool) -> None:
    sizes = zip(tensor.shape[1:], port.shape[1:], strict=False)
    fits = tensor.ndim == len(port.shape) and all(isinstance(b, str) or a == b for a, b in sizes)
    if fits:
        return
    wanted = ", ".join(map(str, port.shape[1:]))
    which = "" if alone else f" for {port.name!r}"
    raise DataError(f"the model takes rows of [{wanted}]{which}, but the data's are {list(tensor.shape[1:])}")


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
