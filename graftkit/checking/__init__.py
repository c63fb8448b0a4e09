"""Compares an ONNX file with the trained model it was written from."""

from graftkit.checking.compare import TIES, TOLERANCE, Batch, Differences, array, compare, differences, feed
from graftkit.checking.locate import first_difference
from graftkit.checking.probes import BATCHES, random_like

__all__ = [
    "BATCHES",
    "TIES",
    "TOLERANCE",
    "Batch",
    "Differences",
    "array",
    "compare",
    "differences",
    "feed",
    "first_difference",
    "random_like",
]
