"""Puts a run's dendrites and trained weights into the ONNX file that its user deployed, and proves what comes out."""

from graftkit.transplanting.transplant import Transplanted, transplant

__all__ = ["Transplanted", "transplant"]
