"""Learning rules: the table."""

from __future__ import annotations

from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.learning import Rule
from graftkit.rules.correlation import Correlation
from graftkit.rules.gradient import Gradient

RULES: Table[type[Rule]] = Table("learning rule", {rule.name: rule for rule in (Gradient, Correlation)}, PlanError)

__all__ = ["RULES", "Correlation", "Gradient"]
