"""Structured pruning of a live module: which widths can shrink, what channels are worth, and how they are taken out."""

from graftkit.pruning.cutting import CHEAPEST, Way, cut, keep, worths
from graftkit.pruning.finding import widths
from graftkit.pruning.graph import Channels, library
from graftkit.pruning.importances import IMPORTANCES, Importance
from graftkit.pruning.prices import Prices, Unit, prices
from graftkit.pruning.shapes import Shapes, apply, proved, shapes_of
from graftkit.pruning.widths import Change, Kept, Width

__all__ = [
    "CHEAPEST",
    "IMPORTANCES",
    "Change",
    "Channels",
    "Importance",
    "Kept",
    "Prices",
    "Shapes",
    "Unit",
    "Way",
    "Width",
    "apply",
    "cut",
    "keep",
    "library",
    "prices",
    "proved",
    "shapes_of",
    "widths",
    "worths",
]
