"""Searches a command's settings, by any number of workers: accuracy against size, with dendrites and without."""

from graftkit.sweeping.jobs import Augmentation, Compression, Job
from graftkit.sweeping.sweep import DATABASE, FRONT, RECORDS, TRIALS, Sweep, SweepObserver, sweep

__all__ = [
    "DATABASE",
    "FRONT",
    "RECORDS",
    "TRIALS",
    "Augmentation",
    "Compression",
    "Job",
    "Sweep",
    "SweepObserver",
    "sweep",
]
