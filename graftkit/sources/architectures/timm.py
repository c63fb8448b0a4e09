"""`timm:NAME`: an architecture of the timm package, with random weights unless some are given."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from torch import nn

from graftkit.core.errors import RuntimeMissingError, SourceError, did_you_mean
from graftkit.sources.architectures.made import Made, Order
from graftkit.sources.pickle_safety import first_line
from graftkit.sources.weights import fill

_PREFIX = "timm:"
_NAME = re.compile(r"\w+(\.\w+)?", re.ASCII)  # the tag behind the dot names weights; `hf-hub:` would fetch
_FETCHING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


@dataclass(frozen=True)
class Timm:
    """Nothing is downloaded: weights come from a file."""

    name: ClassVar[str] = "timm"

    def recognises(self, spec: str) -> bool:
        return spec.startswith(_PREFIX)

    def make(self, order: Order) -> Made:
        model = _create(_package(), order)
        if order.weights is None:
            return Made(model, order.place, None, (f"no --weights were given: {order.spec} has random weights",))
        return Made(model, order.place, order.weights, fill(model, order.weights, order.spec))


def _package() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            f"timm:NAME needs {error.name}, which is not installed; run: pip install 'graftkit[timm]'"
        ) from error
    except Exception as error:  # torchvision, which it imports, may not fit this torch
        raise SourceError(f"timm cannot be imported here: {first_line(error)}") from error


def _create(timm: Any, order: Order) -> nn.Module:
    if not _NAME.fullmatch(order.place):
        raise SourceError(f"{order.spec}: {order.place!r} is no name of timm's; write timm:resnet18 or the like")
    _refuse_fetching(order.arguments, order.spec)
    known = order.place.partition(".")[0]
    if not timm.is_model(known):
        raise SourceError(
            f"{order.spec}: timm {timm.__version__} has no {known}.{did_you_mean(known, timm.list_models())}"
        )
    try:
        model = timm.create_model(order.place, pretrained=False, **order.arguments)
    except Exception as error:  # timm's word for arguments that do not fit, of whatever type
        raise SourceError(f"{order.spec} raised {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise SourceError(f"{order.spec} gave something of type {type(model).__name__}, not an nn.Module")
    return model


def _refuse_fetching(arguments: Mapping[str, Any], spec: str) -> None:
    for name in _FETCHING:
        if name in arguments:
            raise SourceError(
                f"{spec}: {name} is not for --arch-args, because graftkit downloads nothing; give the weights' file"
                " with --weights"
            )
