"""What `augment` was asked to do, and the same as JSON, to go on with later."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from graftkit import folding, sources
from graftkit.contracts import SourceRequest
from graftkit.core.errors import RunError
from graftkit.costs import Budget, parse_budget
from graftkit.datasets import DATASETS
from graftkit.fitting import Settings, check_budget
from graftkit.learning import Rule
from graftkit.model import TracedModel
from graftkit.plan import GraftPlan
from graftkit.planning import plan_cycle
from graftkit.training import Recipe

_VERSIONS = "versions"


@dataclass(frozen=True)
class Request:
    """What `augment` was asked to do.

    Attributes:
        told: what reports call the data, where that is not `data` itself: as the user first wrote it.
    """

    source: SourceRequest
    data: str
    out: Path
    dendrites: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    rule: str = "gradient"
    loss: str | None = None
    label_smoothing: float = 0.0
    metric: str | None = None
    output: str | None = None
    dynamic: str = "auto"
    max_parameters: str | None = None
    budget: str | None = None
    join: str = "activation"
    mask: str | None = None
    opset: int = folding.DEFAULT_OPSET
    layout: str = "portable"
    settings: Settings = field(default_factory=Settings)
    loggers: tuple[str, ...] = ()
    force: bool = False
    told: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, with paths that hold from anywhere; whether a file is trusted is not in it."""
        source = self.source
        plain = {name: value for name, value in asdict(self).items() if name not in ("source", "out", "force")}
        if self.mask is None:
            plain.pop("mask")  # so that runs and sweeps that were begun before there were masks go on
        return {
            **plain,
            "data": anchored_data(self.data),
            "told": self.told or self.data,
            "stamp": _stamp(self.data),
            "source": {
                "spec": sources.anchored(source.spec),
                "weights": anchored(str(source.weights)) if source.weights else None,
                "arch": sources.anchored(source.arch) if source.arch else None,
                "arch_args": dict(source.arch_args),
                "allow": list(source.allow),
                "part": source.part,
            },
            _VERSIONS: versions(),
        }

    def told_settings(self) -> dict[str, Any]:
        """The options in force, for reports, JSON-able."""
        plain = asdict(self.settings)
        recipe = plain.pop("recipe")
        asked = {
            "data": self.told or self.data,
            "rule": self.rule,
            "dendrites": list(self.dendrites),
            "sites": list(self.sites),
            "max_parameters": self.max_parameters,
            "label_smoothing": self.label_smoothing,
            "budget": self.budget,
            "join": self.join,
            "mask": self.mask,
            "opset": self.opset,
            "layout": self.layout,
            "loggers": list(self.loggers),
        }
        return {**asked, **{key: value for key, value in plain.items() if key not in asked}, **recipe}

    def additions(self, traced: TracedModel, rule: Rule) -> tuple[GraftPlan, tuple[str, ...]]:
        """What a cycle grafts, or a trial chooses from; and a line for each site that is left out. Raises PlanError."""
        return plan_cycle(
            traced,
            dendrites=self.dendrites,
            sites=self.sites,
            rule=rule,
            join=self.join,
            mask=self.mask,
            every=self.budget is not None,
        )

    def growth(self, rule: Rule) -> Budget | None:
        """The budget that was asked for, if one was. Raises PlanError."""
        if self.budget is None:
            return None
        check_budget(rule, self.max_parameters)
        return parse_budget(self.budget)

    def identity(self) -> dict[str, Any]:
        """What makes its result, JSON-able: the same for the same run on another day, or beside copied data."""
        return identity(self.to_json())

    @staticmethod
    def from_json(value: Mapping[str, Any], out: Path, *, trust: bool, allow: tuple[str, ...]) -> Request:
        """What `to_json` gave, in a run's folder. Raises RunError where it is broken, or the data have changed."""
        if "compress" in value:
            raise RunError(f"{out} was begun by compress; `graftkit compress --resume {out}` goes on with it")
        try:
            plain = dict(value)
            told, settings = plain.pop("source"), plain.pop("settings")
            stamp, _ = plain.pop("stamp"), plain.pop(_VERSIONS)
            source = SourceRequest(
                **{
                    **told,
                    "weights": Path(told["weights"]) if told["weights"] else None,
                    "arch_args": tuple(told["arch_args"].items()),
                    "allow": (*told["allow"], *allow),
                    "trust": trust,
                }
            )
            found = Request(
                **{
                    **plain,
                    "source": source,
                    "out": out,
                    "dendrites": tuple(plain["dendrites"]),
                    "sites": tuple(plain["sites"]),
                    "loggers": tuple(plain["loggers"]),
                    "settings": Settings(**{**settings, "recipe": Recipe(**settings["recipe"])}),
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunError(f"{out} does not say how it was begun: {error!r}") from None
        if _stamp(found.data) != stamp:
            raise RunError(f"{found.data} has changed since {out} was begun, so it would not go on as it began")
        return found


def identity(told: Mapping[str, Any]) -> dict[str, Any]:
    """`Request.identity` of a request's JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return {name: value for name, value in plain.items() if name not in ("told", "stamp", _VERSIONS)}


def versions() -> dict[str, str]:
    """Of what decides about numbers."""
    return {"graftkit": version("graftkit"), "torch": torch.__version__}


def other_versions(value: Mapping[str, Any]) -> str:
    """What is another version now than when the request was written, in words; empty where nothing is."""
    then = value.get(_VERSIONS, {})
    return ", ".join(
        f"{name} {then.get(name)} then and {now} now" for name, now in versions().items() if then.get(name) != now
    )


def anchored(spec: str) -> str:
    """A path, or a path and `:function`, made absolute, so that the run's folder can be used from anywhere."""
    path, colon, function = spec.partition(":")
    return f"{Path(path).resolve()}{colon}{function}" if Path(path).exists() else spec


def anchored_data(spec: str) -> str:
    """`anchored`, and the data that come along by their name."""
    return spec if DATASETS["digits"].recognises(spec) else anchored(spec)


def _stamp(data: str) -> int | None:
    """What tells whether data were changed: names, sizes and times of the files; None for what is no file or folder."""
    path = Path(anchored_data(data).partition(":")[0])
    if DATASETS["digits"].recognises(data) or not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return zlib.crc32(repr(told).encode())
