"""What is grafted where, as data: the grafts, their order, and their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from graftkit.core.errors import PlanError
from graftkit.core.options import Options

PLAN_VERSION = 1


@dataclass(frozen=True, slots=True)
class Graft:
    """One dendrite at one site.

    Attributes:
        site: the site's key.
        kind: the dendrite kind's name.
        options: the kind's options, name and value, sorted by name.
        join: "activation": joins behind a batch norm that follows the call, where the activation reads;
            "call": joins at the call's own output.
        detach: whether errors are kept from flowing through the dendrite to earlier layers.
        neurons: which neurons it serves, None for all.
        mask: the name of the model input that says which positions count, None for all.
    """

    site: str
    kind: str
    options: Options = ()
    join: str = "activation"
    detach: bool = False
    neurons: tuple[int, ...] | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        if self.join not in ("activation", "call"):
            raise PlanError(f"graft at {self.site!r}: join must be 'activation' or 'call', not {self.join!r}")

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; the inverse of `from_json`."""
        return {
            "site": self.site,
            "kind": self.kind,
            "options": dict(self.options),
            "join": self.join,
            "detach": self.detach,
            "neurons": None if self.neurons is None else list(self.neurons),
            "mask": self.mask,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Graft:
        """Read what `to_json` wrote. Raises PlanError for anything else."""
        try:
            neurons = value["neurons"]
            return Graft(
                site=str(value["site"]),
                kind=str(value["kind"]),
                options=tuple(sorted(value["options"].items())),
                join=value["join"],
                detach=bool(value["detach"]),
                neurons=None if neurons is None else tuple(int(n) for n in neurons),
                mask=value["mask"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PlanError(f"not a graft: {str(value)[:120]} ({error!r})") from None


@dataclass(frozen=True, slots=True)
class GraftPlan:
    """All grafts of a model, in the order they were made; dendrites of one site form a cascade in that order."""

    grafts: tuple[Graft, ...] = ()

    def at(self, site: str) -> tuple[Graft, ...]:
        """The grafts at one site, first made first."""
        return tuple(graft for graft in self.grafts if graft.site == site)

    def sites(self) -> tuple[str, ...]:
        """The keys of the sites that have dendrites, in the order of their first graft."""
        return tuple(dict.fromkeys(graft.site for graft in self.grafts))

    def with_grafts(self, more: Iterable[Graft]) -> GraftPlan:
        """This plan and then `more`."""
        return replace(self, grafts=(*self.grafts, *more))

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; the inverse of `from_json`."""
        return {"version": PLAN_VERSION, "grafts": [graft.to_json() for graft in self.grafts]}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> GraftPlan:
        """Read what `to_json` wrote. Raises PlanError for anything else."""
        if not isinstance(value, Mapping) or not isinstance(value.get("grafts"), list):
            raise PlanError("not a graft plan: expected an object with a list called 'grafts'")
        if value.get("version") != PLAN_VERSION:
            raise PlanError(
                f"graft plan version {value.get('version')!r} is not the version this graftkit reads ({PLAN_VERSION})"
            )
        return GraftPlan(tuple(Graft.from_json(graft) for graft in value["grafts"]))
