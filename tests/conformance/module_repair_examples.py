"""Examples of what each repair of a module is for, and of what it has to let alone."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class Dropping(nn.Module):
    """Leaves out layers as Python's dice fall; `where` says who knows how often."""

    def __init__(self, where: str, share: float):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        match where:
            case "module":
                self.layerdrop = share
            case "config":
                self.config = SimpleNamespace(encoder_layerdrop=share, hidden=4)
            case _:
                self.config = {"hidden": 4}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and random.random() < self.share()):
                x = layer(x).tanh()
        return x

    def share(self) -> float:
        config = getattr(self, "config", {})
        return getattr(self, "layerdrop", getattr(config, "encoder_layerdrop", 0.0))


class Counting(nn.Module):
    """Asks for the number of rows the way that fixes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.zeros(len(x), 4) + len([1, 2])


class Experts(nn.Module):
    """Each row goes to the expert of its choice: one after the other, which no graph can hold, or all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.choose, self.experts = nn.Linear(4, 3), nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.config = SimpleNamespace(_experts_implementation="eager", hidden=4)

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.choose(x).softmax(1).max(1, keepdim=True)
        if self.config._experts_implementation == "batched_mm":
            every = torch.stack([expert(x) for expert in self.experts], 1)
            return weight * (every * functional.one_hot(chosen, 3).movedim(-1, 1)).sum(1)
        result = torch.zeros_like(x)
        for number in chosen.unique().tolist():
            rows = (chosen[:, 0] == number).nonzero()[:, 0]
            result[rows] = self.experts[number](x[rows])
        return weight * result


class Parts(nn.Module):
    """The first part called under a region, the second through a function, as memory is saved."""

    def __init__(self, region: Callable[[], Any], through: Callable[..., Tensor]):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.region, self.through = region, through

    def forward(self, x: Tensor) -> Tensor:
        with self.region():
            h = self.first(x)
        h = self.through(self.second, h.clone() + 1) if self.training else self.second(h.clone() + 1)
        return self.third(h.tanh())


class Averaging(nn.Module):
    """Keeps a running average in a buffer, which `keep` assigns or writes."""

    def __init__(self, keep: Callable[[Averaging, Tensor], Tensor]):
        super().__init__()
        self.first, self.second, self.keep = nn.Linear(4, 4), nn.Linear(4, 4), keep
        self.register_buffer("average", torch.ones(4))
        self.register_buffer("before", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.second(self.keep(self, h) if self.training else h - self.average)


def _assigned(self: Averaging, h: Tensor) -> Tensor:
    self.average = 0.9 * self.average + 0.1 * h.detach().mean(0)
    return h - self.average


def _read_before_and_after(self: Averaging, h: Tensor) -> Tensor:
    old = self.average
    self.average = self.average + h.detach().mean(0)
    self.average = self.average * 0.5
    return h * old - self.average.tanh()


def _changed_places(self: Averaging, h: Tensor) -> Tensor:
    with torch.no_grad():
        self.before, self.average = self.average, self.before + h.mean(0)
    return h - self.before


def _not_detached(self: Averaging, h: Tensor) -> Tensor:
    self.average = 0.9 * self.average + 0.1 * h.mean(0)
    read = h - self.average
    self.average = self.average.detach()
    return read


class Inside(nn.Module):
    """Called twice, inside another module."""

    def __init__(self, keep: Callable[[Averaging, Tensor], Tensor]):
        super().__init__()
        self.inner = Averaging(keep)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x).tanh())


def _written(self: Averaging, h: Tensor) -> Tensor:
    self.average.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
    return h - self.average


class Sentences(nn.Module):
    """torch's own transformer, over the numbers of a row as tokens."""

    def __init__(self, mask: Tensor | None):
        super().__init__()
        self.lift, layer = nn.Linear(1, 4), nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.lift(x.unsqueeze(-1)), mask=self.mask).mean(1)


class Masking(ModuleType):
    """Stands in for transformers' module of masks, as far as it is asked here."""

    def _ignore_bidirectional_mask_sdpa(self, padding_mask: Any, length: Any, local_attention_size: Any = None) -> bool:
        return not torch.compiler.is_exporting() and padding_mask is None and local_attention_size is None


class Landmarks(nn.Module):
    """Fails with a mask, as some of that library's models do, and asks the library whether there is to be one."""

    def __init__(self, local: int | None = None):
        super().__init__()
        self.layer, self.local = nn.Linear(4, 4), local

    def forward(self, x: Tensor) -> Tensor:
        library: Any = sys.modules["transformers.masking_utils"]
        unmasked = library._ignore_bidirectional_mask_sdpa(None, x.shape[1], self.local)
        scores = self.layer(x)[:, :2]
        return scores if unmasked else scores + torch.zeros(len(x), 4)


def recomputed(reentrant: bool) -> Callable[..., Tensor]:
    return functools.partial(checkpoint, use_reentrant=reentrant)


def plainly(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x)


@dataclass(frozen=True)
class Found:
    """A module where a repair applies, its sites then, and words of what the user is told of it.

    `drawn` where eager training draws numbers for what the repair turns off.
    """

    make: Callable[[], nn.Module]
    sites: tuple[str, ...]
    note: str | None = None
    drawn: bool = False


_LAYERS = ("layers.0", "layers.1", "layers.2")
_SENTENCES = (
    "lift",
    "encoder.layers.0.self_attn:0",
    "encoder.layers.0.self_attn:1",
    "encoder.layers.0.linear1",
    "encoder.layers.0.linear2",
)
_EXPERTS = ("choose", "experts.0", "experts.1", "experts.2")


def _data_read(part: nn.Module, h: Tensor) -> Tensor:
    return part(h * h.data)


def _data_written(part: nn.Module, h: Tensor) -> Tensor:
    other = h.clone()
    other.data = 2 * h.data
    return part(other)


class Distributed(nn.Module):
    """The parameters of a normal distribution, checked by it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        normal = Normal(self.mean(x), self.spread(x).exp())
        return normal.mean / normal.stddev


_PARTS = ("first", "second", "third")
MODULE_APPLIES: dict[str, dict[str, Found]] = {
    "data": {
        "read": Found(lambda: Parts(nullcontext, _data_read), _PARTS),
        "written": Found(lambda: Parts(nullcontext, _data_written), _PARTS),
    },
    "distributions": {"normal": Found(Distributed, ("mean", "spread"))},
    "layerdrop": {
        "of the module": Found(lambda: Dropping("module", 0.9), _LAYERS, "layer drop", drawn=True),
        "of its config": Found(lambda: Dropping("config", 0.9), _LAYERS, "layer drop", drawn=True),
        "always": Found(lambda: Dropping("module", 1), _LAYERS, "layer drop", drawn=True),
    },
    "length": {"number of rows": Found(Counting, ("layer",))},
    "experts": {"of its config": Found(Experts, _EXPERTS)},
    "causal_hint": {
        "causal": Found(lambda: Sentences(nn.Transformer.generate_square_subsequent_mask(4)), _SENTENCES),
        "any other": Found(lambda: Sentences(torch.eye(4, dtype=torch.bool)), _SENTENCES),
    },
    "needless_mask": {"nobody gave one": Found(Landmarks, ("layer",))},
    "inference_mode": {
        "around a layer": Found(lambda: Parts(torch.inference_mode, plainly), ("second", "third")),
        "turned off": Found(
            lambda: Parts(lambda: torch.inference_mode(mode=False), plainly), ("first", "second", "third")
        ),
    },
    "checkpoint": {
        "reentrant": Found(lambda: Parts(nullcontext, recomputed(True)), ("first", "second", "third")),
        "not reentrant": Found(lambda: Parts(nullcontext, recomputed(False)), ("first", "second", "third")),
    },
    "reassigned_buffers": {
        "of a part that is called twice": Found(
            lambda: Inside(_assigned), ("inner.first:0", "inner.second:0", "inner.first:1", "inner.second:1")
        ),
        "of the whole": Found(lambda: Averaging(_assigned), ("first", "second")),
        "with gradients": Found(lambda: Averaging(_not_detached), ("first", "second")),
        "read before and after": Found(lambda: Averaging(_read_before_and_after), ("first", "second")),
        "changed places": Found(lambda: Averaging(_changed_places), ("first", "second")),
        "in place": Found(lambda: Averaging(_written), ("first", "second")),
    },
}
MODULE_SPARES: dict[str, Callable[[], nn.Module]] = {
    "data": lambda: Parts(nullcontext, plainly),
    "distributions": lambda: Parts(nullcontext, plainly),
    "layerdrop": lambda: Dropping("dict", 0.0),
    "length": lambda: nn.Sequential(nn.Linear(4, 4)),
    "experts": lambda: Dropping("config", 0.0),
    "causal_hint": lambda: Sentences(None),
    "needless_mask": lambda: nn.Sequential(nn.Linear(4, 4)),
    "inference_mode": lambda: Parts(torch.no_grad, plainly),
    "checkpoint": lambda: Parts(nullcontext, plainly),
    "reassigned_buffers": lambda: nn.Sequential(nn.Linear(4, 4)),
}
