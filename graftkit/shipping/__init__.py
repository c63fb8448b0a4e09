"""Writes a trained model as ONNX, once the file has proved to compute what the model computes."""

from graftkit.folding import ONE_FILE, read_onnx, staged
from graftkit.shipping.building import build, fresh_graph, to_onnx
from graftkit.shipping.runtime_checks import check_runtimes
from graftkit.shipping.shipment import Shipped, export, ship
from graftkit.shipping.verifying import runtime_metric, verify

__all__ = [
    "ONE_FILE",
    "Shipped",
    "build",
    "check_runtimes",
    "export",
    "fresh_graph",
    "read_onnx",
    "runtime_metric",
    "ship",
    "staged",
    "to_onnx",
    "verify",
]
