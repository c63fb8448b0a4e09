"""Writes a trained model as ONNX, once the file has proved to compute what the model computes."""

from graftkit.folding import ONE_FILE, read_onnx, staged
from graftkit.shipping.building import build, fresh_graph, to_onnx
from graftkit.shipping.shipment import Shipped, ship
from graftkit.shipping.smaller import TOLERANCE, Smaller, export, lower, ship_smaller
from graftkit.shipping.verifying import runtime_metric, verify

__all__ = [
    "ONE_FILE",
    "TOLERANCE",
    "Shipped",
    "Smaller",
    "build",
    "export",
    "fresh_graph",
    "lower",
    "read_onnx",
    "runtime_metric",
    "ship",
    "ship_smaller",
    "staged",
    "to_onnx",
    "verify",
]
