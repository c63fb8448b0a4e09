"""Fits one traced model: what a budget buys, the grafted arm, its control, and what each site gained."""

from graftkit.fitting.arms import Arm, Fitter, Settings
from graftkit.fitting.evidence import difference_error, jackknife_error, left_out
from graftkit.fitting.fit import PRECISIONS, FitResult, check_budget, fit_model
from graftkit.fitting.journal import FolderJournal, Journal, Prefixed
from graftkit.fitting.trial import TRIAL, trial

__all__ = [
    "PRECISIONS",
    "TRIAL",
    "Arm",
    "FitResult",
    "Fitter",
    "FolderJournal",
    "Journal",
    "Prefixed",
    "Settings",
    "check_budget",
    "difference_error",
    "fit_model",
    "jackknife_error",
    "left_out",
    "trial",
]
