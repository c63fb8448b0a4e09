"""What `compress` was asked to do, and the same as JSON, to go on with later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from graftkit.core.errors import RunError
from graftkit.request import Request

_OWN = "compress"


@dataclass(frozen=True)
class Asked:
    """What `compress` was asked to do.

    Attributes:
        request: model, data, folder, and how to train, as `augment` takes them; its `epochs` are those of each step.
        target: how small, as `parameters=40%`.
        max_loss: or how much of the metric may be lost, in points (of R2 and the like: hundredths); the smallest model
            within that is looked for, in the target's cost.
        front: the whole curve instead, from all of the model down to 5% of it.
        steps: between the model and the target, each followed by training.
        importance: what channels are worth, by name in `pruning.IMPORTANCES`.
        distil: the share of the loss that is made of the given model's answers.
        sparsity: weight of the L1 norm of scales and strengths; None chooses it on validation rows.
        dendrites: whether dendrites compete with channels.
        scratch: whether a plain network of the same shape is trained for as long.
    """

    request: Request
    target: str = "parameters=40%"
    max_loss: float | None = None
    front: bool = False
    steps: int = 4
    importance: str = "first-order"
    distil: float = 0.5
    sparsity: float | None = 0.0
    dendrites: bool = True
    scratch: bool = True

    @property
    def searches(self) -> bool:
        """Whether it finds sizes itself."""
        return self.front or self.max_loss is not None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, as `Request.to_json`."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "request"}
        return {**self.request.to_json(), _OWN: own}

    @staticmethod
    def from_json(value: Mapping[str, Any], out: Path, *, trust: bool, allow: tuple[str, ...]) -> Asked:
        """What `to_json` gave, in a run's folder. Raises RunError."""
        plain = dict(value)
        own = plain.pop(_OWN, None)
        if own is None:
            raise RunError(f"{out} was not begun by compress; `graftkit augment --resume {out}` goes on with it")
        request = Request.from_json(plain, out, trust=trust, allow=allow)
        try:
            return Asked(request=request, **own)
        except TypeError as error:
            raise RunError(f"{out} does not say how it was begun: {error!r}") from None
