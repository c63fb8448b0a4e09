"""Fits one traced model: what a budget buys, the grafted arm, its control, and what each site gained."""

from graftkit.fitting.arms import Settings
from graftkit.fitting.fit import PRECISIONS, FitResult, check_budget, fit_model
from graftkit.fitting.journal import FolderJournal, Journal
from graftkit.fitting.trial import TRIAL

__all__ = ["PRECISIONS", "TRIAL", "FitResult", "FolderJournal", "Journal", "Settings", "check_budget", "fit_model"]
