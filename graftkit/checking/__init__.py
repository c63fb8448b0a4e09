"""Compares an ONNX file with the trained model it was written from."""

from graftkit.checking.compare import TOLERANCE, compare, random_like
from graftkit.checking.locate import first_difference

__all__ = ["TOLERANCE", "compare", "first_difference", "random_like"]
