"""Resizing: to the nearest by indices that are computed, smoothly by torch's interpolation where it is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError, affordable, given
from graftkit.sources.onnx_operators.numbers import Value, as_integer, as_tensor, floats, integers

_REPEATED = frozenset({1.0, 2.0, 4.0, 8.0, 16.0})  # scales by which torch's nearest has no rounding to lose
_CENTRED = ("half_pixel", "pytorch_half_pixel")
_SMOOTH: Mapping[str, tuple[str, ...]] = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}


@dataclass(frozen=True)
class Axis:
    """One axis: how long it is and how long it is to be, which may be symbols, and by what scale.

    Attributes:
        scale: None where it comes from free sizes.
        told: the scale as the file says it; None where it says a size.
    """

    old: Any
    new: Any
    scale: float | None
    told: float | None = None

    def factor(self) -> Any:
        """The scale as onnxruntime has it, in single precision."""
        if self.scale is not None:
            return self.scale
        return torch.scalar_tensor(self.new, dtype=torch.float32) / torch.scalar_tensor(self.old, dtype=torch.float32)

    @property
    def to_one(self) -> bool:
        """Whether one place is left of it."""
        return isinstance(self.new, int) and self.new == 1


def resize(call: Call, value: Value, *rest: Value | None) -> Tensor:
    """Resize, and Upsample: of one to three axes behind the batch and the channels."""
    x = as_tensor(value)
    if not 3 <= x.ndim <= 5 or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("it resizes something that is no image, or keeps its aspect ratio")
    axes = _axes(call, x, rest)
    affordable([*x.shape[:2], *(axis.new for axis in axes)])
    place = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    if call.get("mode", "nearest") == "nearest":
        return _to_nearest(x, axes, place, _rounding(call))
    return _smoothly(call, x, axes, place)


def _axes(call: Call, x: Tensor, rest: Sequence[Value | None]) -> list[Axis]:
    """The axes behind the channels. Raises UnsupportedError where the batch or the channels are resized, too."""
    scales, sizes = _wanted(call, rest)
    named = [axis % x.ndim for axis in call.get("axes", range(x.ndim))]
    if scales is not None:
        by_scale = dict(zip(named, scales, strict=True))
        found = [_scaled(size, float(by_scale.get(axis, 1.0))) for axis, size in enumerate(x.shape)]
    else:
        by_size = dict(zip(named, sizes or (), strict=True))
        found = [_sized(size, by_size.get(axis, size)) for axis, size in enumerate(x.shape)]
    if any(axis.scale not in (1.0, None) for axis in found[:2]):
        raise UnsupportedError("it resizes the batch or the channels")
    return found[2:]


def _scaled(old: Any, scale: float) -> Axis:
    """By a scale: the few decimals that single precision stands for, or 10 times 0.7 would be 6."""
    told = float(str(np.float32(scale)))
    return Axis(old, int(old * told) if isinstance(old, int) else as_integer(old * told), scale, told)


def _sized(old: Any, new: Any) -> Axis:
    known = isinstance(old, int) and isinstance(new, int) and old > 0
    return Axis(old, new, float(np.float32(new) / np.float32(old)) if known else None)


def _wanted(call: Call, rest: Sequence[Value | None]) -> tuple[list[float] | None, list[Any] | None]:
    """(scales, sizes), one of them None: Resize takes (roi, scales, sizes), its first version and Upsample (scales)."""
    if "scales" in call.attributes:
        return call.attributes["scales"], None
    held = rest if len(rest) > 1 else (None, *rest)
    scales, sizes = given(held, 1), given(held, 2)
    if sizes is not None:
        return None, integers(sizes)
    found = [] if scales is None else floats(scales)
    if not found:
        raise UnsupportedError("it says neither a size nor a scale")
    return found, None


# ── to the nearest ───────────────────────────────────────────────────────────────────────────────


def _rounding(call: Call) -> str:
    return str(call.get("nearest_mode", "round_prefer_floor")) if call.opset >= 11 else "simple"


def _to_nearest(x: Tensor, axes: Sequence[Axis], place: str, rounding: str) -> Tensor:
    tensorflow = place == "tf_half_pixel_for_nn" and rounding != "floor"  # ties there are a matter of the last bit
    if place not in _PLACES or rounding not in _ROUNDED or tensorflow:
        raise UnsupportedError(f"it resizes to the nearest with {place} and {rounding}")
    repeats = (place == "asymmetric" and rounding in ("floor", "simple")) or (
        place in _CENTRED and rounding in ("round_prefer_floor", "round_prefer_ceil")
    )
    scales = [axis.scale for axis in axes if axis.scale in _REPEATED]
    if repeats and len(scales) == len(axes):
        return F.interpolate(x, scale_factor=scales, mode="nearest")
    for dim, axis in enumerate(axes, 2):
        if axis.scale != 1.0:
            at = _ROUNDED[rounding](_PLACES[place](axis), axis)
            x = x.index_select(dim, at.clamp(0, axis.old - 1).to(x.device, torch.int64))
    return x


def _steps(axis: Axis) -> Tensor:
    return torch.arange(axis.new, dtype=torch.float32)


def _centred(axis: Axis) -> Tensor:
    found: Tensor = (_steps(axis) + 0.5) / axis.factor() - 0.5
    return found


# Where in the old axis each place of the new one lies.
_PLACES: Mapping[str, Callable[[Axis], Tensor]] = {
    "half_pixel": _centred,
    "pytorch_half_pixel": lambda axis: torch.zeros(1) if axis.to_one else _centred(axis),
    "asymmetric": lambda axis: _steps(axis) / axis.factor(),
    "align_corners": lambda axis: torch.zeros(1) if axis.to_one else _steps(axis) * (axis.old - 1) / (axis.new - 1),
    "tf_half_pixel_for_nn": lambda axis: (_steps(axis) + 0.5) / axis.factor(),
}


def _simply(at: Tensor, axis: Axis) -> Tensor:
    """As onnxruntime before opset 11: up where it grows smaller."""
    return at.ceil() if axis.scale is not None and axis.scale < 1 else at.floor()


_ROUNDED: Mapping[str, Callable[[Tensor, Axis], Tensor]] = {
    "round_prefer_floor": lambda at, axis: at.floor() + (at - at.floor() > 0.5),
    "round_prefer_ceil": lambda at, axis: at.floor() + (at - at.floor() >= 0.5),
    "floor": lambda at, axis: at.floor(),
    "ceil": lambda at, axis: at.ceil(),
    "simple": _simply,
}


# ── smoothly ─────────────────────────────────────────────────────────────────────────────────────


def _smoothly(call: Call, x: Tensor, axes: Sequence[Axis], place: str) -> Tensor:
    options: dict[str, Any] = {"mode": _torch_mode(call, len(axes), place), "align_corners": place == "align_corners"}
    if call.get("antialias", 0):
        options["antialias"] = True
    to_one = any(axis.to_one for axis in axes)
    if to_one and options.get("antialias"):
        raise UnsupportedError(f"it resizes by {call.get('mode')} with antialias to a single place")
    if to_one and place == "pytorch_half_pixel":
        x, axes = _begun(x, axes)
    told = [axis.told for axis in axes if axis.told is not None]
    if len(told) == len(axes):
        return F.interpolate(x, scale_factor=told, recompute_scale_factor=False, **options)
    return F.interpolate(x, size=[axis.new for axis in axes], **options)


def _begun(x: Tensor, axes: Sequence[Axis]) -> tuple[Tensor, list[Axis]]:
    """With the first place alone of the axes of which one is left: there pytorch_half_pixel begins at zero."""
    found = []
    for dim, axis in enumerate(axes, 2):
        if axis.to_one:
            x, axis = x.narrow(dim, 0, 1), Axis(1, 1, 1.0, None if axis.told is None else 1.0)
        found.append(axis)
    return x, found


def _torch_mode(call: Call, rank: int, place: str) -> str:
    mode, smooth, outside = call.get("mode"), call.get("antialias", 0), call.get("exclude_outside", 0)
    found = _SMOOTH.get(mode, ("", "", ""))[rank - 1]
    if not found or place not in (*_CENTRED, "align_corners"):
        raise UnsupportedError(f"it resizes by {mode} with {place}")
    if smooth and (rank != 2 or not outside or place == "align_corners"):
        raise UnsupportedError(f"it resizes by {mode} with antialias, {place} and exclude_outside={outside}")
    if outside and not smooth:
        raise UnsupportedError(f"it resizes by {mode} with exclude_outside=1")
    steep = call.get("cubic_coeff_a", -0.75)
    if mode == "cubic" and steep != (-0.5 if smooth else -0.75):
        raise UnsupportedError(f"it resizes by {mode} with cubic_coeff_a={steep:g}{' and antialias' * bool(smooth)}")
    return found


RESIZING: Mapping[str, Operator] = {"Resize": resize, "Upsample": resize}
