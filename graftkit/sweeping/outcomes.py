"""What a trial came to, from what its run found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graftkit.core.errors import TrainingError
from graftkit.core.records import Measurement
from graftkit.core.trials import TrialRecord, mean


def completed(begun: TrialRecord, found: Mapping[str, Any]) -> TrialRecord:
    """The trial with what its run found, over all seeds. Raises TrainingError for scores that are no numbers."""
    given = Measurement(**found["baseline"])
    grafted = [Measurement(**seed["grafted"]) for seed in found["seeds"]]
    controls = [Measurement(**seed["control"]) for seed in found["seeds"] if seed["control"]]
    grew = found.get("grew") or [m.parameters != given.parameters for m in grafted]
    if not all(math.isfinite(m.validation) for m in (given, *grafted, *controls)):
        raise TrainingError("a validation score is no number")
    return replace(
        begun,
        state="complete",
        grafted=mean(grafted) if any(grew) else None,
        control=mean(controls) if len(controls) == len(grafted) else None,
        given=mean([given]) if found["trained"] else None,
        shipped=found["shipped"],
    )


def weighed(trial: TrialRecord, found: Mapping[str, Any]) -> Measurement:
    """The network that a trial is for: of a compression the better one, else the one that could have dendrites."""
    if "grew" in found:
        return max(filter(None, (trial.grafted, trial.control)), key=lambda measured: measured.validation)
    return trial.grafted or mean([Measurement(**seed["grafted"]) for seed in found["seeds"]])
