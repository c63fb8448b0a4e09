"""What a trial has to be able to do, whichever command it is a run of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from graftkit.contracts import Observer
from graftkit.request import Request


class Job(Protocol):
    """One run, with the settings of a trial."""

    name: ClassVar[str]  # of the command

    @property
    def request(self) -> Request:
        """Model, data, folder and how to train."""

    def identity(self) -> dict[str, Any]:
        """What makes its result, as `Request.identity`."""

    def check(self) -> None:
        """Raise RuntimeMissingError where no such run could begin here."""

    def begin(self, observer: Observer) -> object:
        """Run it, in a folder where there is nothing."""

    def go_on(self, observer: Observer) -> object:
        """Go on with what lies in its folder."""

    def found(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What a sweep needs of metrics.json, JSON-able: `name`, `metric`, `shipped`, the `baseline` as a measurement.

        And `seeds`: of each the measurements of the network that could have dendrites (`grafted`) and of the one that
        learned as much without (`control`, or None). And `grew`, where sizes do not tell: which seeds grafted; then the
        control is what the trial is for as much as the network with dendrites is.
        """
