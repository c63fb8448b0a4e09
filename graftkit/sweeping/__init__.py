"""Searches settings of `augment`, by any number of workers: accuracy against size, with dendrites and without."""

from graftkit.sweeping.sweep import DATABASE, FRONT, RECORDS, TRIALS, Sweep, SweepObserver, sweep

__all__ = ["DATABASE", "FRONT", "RECORDS", "TRIALS", "Sweep", "SweepObserver", "sweep"]
