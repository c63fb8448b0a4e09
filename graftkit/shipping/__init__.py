"""Writes a trained model as ONNX, once the file has proved to compute what the model computes."""

from graftkit.folding import ONE_FILE, read_onnx, staged
from graftkit.shipping.building import build, fresh_graph, to_onnx
from graftkit.shipping.exporting import export
from graftkit.shipping.gate import Gated, ship_gated
from graftkit.shipping.layouts import CHOICES, Target
from graftkit.shipping.probes import one_row, row_of
from graftkit.shipping.promises import TOLERANCE
from graftkit.shipping.runtime_checks import check_runtimes
from graftkit.shipping.shipment import Shipped, ship
from graftkit.shipping.smaller import Smaller, lower, ship_smaller
from graftkit.shipping.verifying import runtime_metric, verify

__all__ = [
    "CHOICES",
    "ONE_FILE",
    "TOLERANCE",
    "Gated",
    "Shipped",
    "Smaller",
    "Target",
    "build",
    "check_runtimes",
    "export",
    "fresh_graph",
    "lower",
    "one_row",
    "read_onnx",
    "row_of",
    "runtime_metric",
    "ship",
    "ship_gated",
    "ship_smaller",
    "staged",
    "to_onnx",
    "verify",
]
