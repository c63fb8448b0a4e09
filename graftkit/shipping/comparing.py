"""A file in smaller numbers beside the one in fp32: metric, outputs, time."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graftkit import checking, training
from graftkit.contracts import Data, Feed, Inputs, Metric, Session
from graftkit.core.errors import MismatchError
from graftkit.folding import open_onnx
from graftkit.model import arranged
from graftkit.runtimes import RUNTIMES
from graftkit.shipping.fixed_rows import any_rows

_ROUNDS = 20
_SLICE = 5e-3  # seconds of runs at a time: long against the clock's grain, short against what else a machine does


@dataclass(frozen=True)
class Compared:
    """What a file gives.

    Attributes:
        metric: on all validation rows, through onnxruntime.
        difference: the largest difference of an output to the other file, relative to the outputs' scale.
        latency: the time of one row, or of as many as the files take, on one thread, over that of the other file; the
            median of runs in turn.
    """

    metric: float
    difference: float
    latency: float


def compared(file: Path, full: Path, rows: Data, metric: Metric) -> Compared:
    """Run both files on all validation rows. Raises MismatchError where a number is none, ExportError, DataError."""
    opened = open_onnx(full)
    signature = opened.signature()
    small, large = (RUNTIMES.find("onnxruntime").open(path, threads=1) for path in (file, full))
    run, wanted = any_rows(small, opened.rows), any_rows(large, opened.rows)
    differences = checking.Differences()
    at = signature.output_names.index(signature.output)

    def forward(inputs: Inputs) -> Tensor:
        feed = checking.feed(signature.input_names, arranged(inputs, signature))
        found = run(feed)
        differences.add(found, wanted(feed))
        return torch.from_numpy(found[at])

    outputs, targets = training.predict(forward, rows.validation)
    if math.isinf(differences.worst()):
        raise MismatchError("its outputs on validation rows are no numbers, or have other shapes")
    first = checking.feed(signature.input_names, arranged(rows.example(opened.rows or 1), signature))
    return Compared(metric(outputs, targets), differences.worst(), _ratio(small, large, first))


def _ratio(ours: Session, theirs: Session, feed: Feed) -> float:
    """How much longer ours takes, run in turn so that what else the machine does falls on both."""
    usual = statistics.median(theirs.seconds(feed, 5))
    times = max(1, round(_SLICE / max(usual, 1e-7)))
    pairs = [(sum(ours.seconds(feed, times)), sum(theirs.seconds(feed, times))) for _ in range(_ROUNDS)]
    return statistics.median(a / b for a, b in pairs)
