"""Describes what is where: in a live model, or in an ONNX file."""

from graftkit.inspection.live import coverage, inspect_grafted, inspect_traced
from graftkit.inspection.onnx_file import inspect_onnx

__all__ = ["coverage", "inspect_grafted", "inspect_onnx", "inspect_traced"]
