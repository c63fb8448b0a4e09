"""What stands in the metadata of a file of dendrites: written as JSON, and read with suspicion."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.dendrite_files import Score, Scores
from graftkit.core.signature import Signature
from graftkit.plan import Graft, GraftPlan

KEY = "graftkit.dendrites"  # the one key of the metadata: of several, safetensors writes them in an order that changes
VERSION = 1
_LONGEST = 2**24  # characters


@dataclass(frozen=True)
class Facts:
    """What a file of dendrites says beside their tensors.

    Attributes:
        graftkit: the version that wrote it.
        base, base_sha256: the base's name, and the hash of its tensors.
        plan: the grafts.
        sha256: of the dendrites' tensors.
        signature: the base's inputs and outputs.
        example: a shape of each input with which it can be traced, in the signature's order.
        scores: what was measured; None where nothing was.
    """

    graftkit: str
    base: str
    base_sha256: str
    plan: GraftPlan
    sha256: str
    signature: Signature
    example: tuple[tuple[int, ...], ...]
    scores: Scores | None

    def to_text(self) -> str:
        """JSON, the inverse of `from_text`."""
        value = {
            "version": VERSION,
            "graftkit": self.graftkit,
            "base": {"name": self.base, "sha256": self.base_sha256},
            "plan": self.plan.to_json(),
            "tensors": {"sha256": self.sha256},
            "signature": self.signature.to_json(),
            "example": self.example,
            "scores": None if self.scores is None else asdict(self.scores),
        }
        return json.dumps(value, allow_nan=False)

    @staticmethod
    def from_text(text: str) -> Facts:
        """Read what `to_text` wrote. Anything else raises whatever it provokes, ValueError for the most part."""
        if len(text) > _LONGEST:
            raise ValueError(f"its metadata has {len(text):,} characters")
        value = json.loads(text)
        version = value["version"]
        if version != VERSION:
            raise ValueError(f"its format version is {version!r}, and this graftkit reads {VERSION}")
        signature = _signature(value["signature"])
        return Facts(
            graftkit=_text(value["graftkit"]),
            base=_text(value["base"]["name"]),
            base_sha256=_hash(value["base"]["sha256"]),
            plan=_plan(value["plan"]),
            sha256=_hash(value["tensors"]["sha256"]),
            signature=signature,
            example=_example(value["example"], signature),
            scores=None if value["scores"] is None else _scores(value["scores"]),
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value


def _hash(value: Any) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{str(value)[:80]!r} is no SHA-256")
    return str(value)


def _plan(value: Any) -> GraftPlan:
    plan = GraftPlan.from_json(value)
    if not plan.grafts:
        raise ValueError("it has no dendrites")
    for graft in plan.grafts:
        _check(graft)
    return plan


def _check(graft: Graft) -> None:
    plain = all(value is None or isinstance(value, str | int | float) for _, value in graft.options)
    if not plain or not (graft.mask is None or isinstance(graft.mask, str)):
        raise ValueError(f"the graft at {graft.site!r} has options that are none")


def _signature(value: Any) -> Signature:
    found = Signature.from_json(value)
    for port in (*found.inputs, *found.outputs):
        _text(port.name)
        _text(port.dtype)
        if not all(type(size) is int or isinstance(size, str) for size in port.shape):
            raise ValueError(f"{port.name!r} has sizes that are none")
    _text(found.output)
    return found


def _example(value: Any, signature: Signature) -> tuple[tuple[int, ...], ...]:
    found = tuple(tuple(shape) for shape in value)
    if [len(shape) for shape in found] != [len(port.shape) for port in signature.inputs]:
        raise ValueError("its example is of other inputs than its signature")
    if not all(type(size) is int and size >= 0 for shape in found for size in shape):
        raise ValueError("its example has sizes that are none")
    return found


def _scores(value: Mapping[str, Any]) -> Scores:
    return Scores(_text(value["metric"]), *(_score(value[row]) for row in ("given", "grafted")))


def _score(value: Mapping[str, Any]) -> Score:
    return Score(_number(value["validation"]), _number(value["test"]))


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no score")
    return float(value)
