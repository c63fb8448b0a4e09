"""Padding and resizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError, affordable, given
from graftkit.sources.onnx_operators.numbers import Value, as_tensor, floats, integers

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(call: Call, value: Value, *rest: Value | None) -> Tensor:
    """Pad: amounts and value are attributes before opset 11; axes come with opset 18."""
    x, mode = as_tensor(value), call.get("mode", "constant")
    amounts = integers(rest[0]) if rest and rest[0] is not None else call.get("pads")
    fill, axes = given(rest, 1), given(rest, 2)
    number = call.get("value", 0.0) if fill is None else floats(fill)[0]
    places = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in integers(axes)]
    before, after = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(places):
        before[axis], after[axis] = amounts[place], amounts[place + len(places)]
    affordable([b + n + a for b, n, a in zip(before, x.shape, after, strict=True)])
    pairs = [(b, a) for b, a in zip(before, after, strict=True)][::-1]
    if mode == "constant":
        return F.pad(x, [n for pair in pairs for n in pair], value=number)
    return _padded_by_itself(x, pairs, _MODES[mode])


def _padded_by_itself(x: Tensor, pairs: list[tuple[Any, Any]], mode: str) -> Tensor:
    """By reflection, repetition or wrapping, which torch does for the last axes, behind two others."""
    while pairs and pairs[-1] == (0, 0):
        pairs.pop()
    if len(pairs) > 3:
        raise UnsupportedError(f"it pads {len(pairs)} axes by what is in them")
    if not pairs:
        return x
    around, padded = x.shape[: x.ndim - len(pairs)], x.shape[x.ndim - len(pairs) :]
    found = F.pad(x.reshape(1, -1, *padded), [n for pair in pairs for n in pair], mode=mode)
    return found.reshape(*around, *found.shape[2:])


def resize(call: Call, value: Value, *rest: Value | None) -> Tensor:
    """Resize, and Upsample: as torch's interpolation where it is the same, and otherwise refused."""
    x, rank = as_tensor(value), as_tensor(value).ndim
    scales, sizes = _wanted(call, rest)
    axes = [axis % rank for axis in call.get("axes", range(rank))]
    spatial = list(range(2, rank))
    if not 1 <= len(spatial) <= 3 or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("it resizes something that is no image, or keeps its aspect ratio")
    given_sizes = None if sizes is None else dict(zip(axes, sizes, strict=True))
    given_scales = None if scales is None else dict(zip(axes, scales, strict=True))
    outer = [given_scales.get(a, 1.0) == 1.0 if given_scales else _kept(given_sizes, a, x) for a in (0, 1)]
    if not all(outer):
        raise UnsupportedError("it resizes the batch or the channels")
    options = _options(call, len(spatial))
    if given_sizes is not None:
        wanted = affordable([given_sizes.get(axis, x.shape[axis]) for axis in spatial])
        return F.interpolate(x, size=list(wanted), **options)
    assert given_scales is not None
    factors = [float(given_scales.get(axis, 1.0)) for axis in spatial]
    affordable(
        [*x.shape[:2], *(int(n * f) if isinstance(n, int) else n for n, f in zip(x.shape[2:], factors, strict=True))]
    )
    return F.interpolate(x, scale_factor=factors, recompute_scale_factor=False, **options)


def _kept(sizes: Mapping[int, Any] | None, axis: int, x: Tensor) -> bool:
    """Whether the size of an axis stays; a free size that is given is the one that was there."""
    wanted = (sizes or {}).get(axis)
    return wanted is None or not (isinstance(wanted, int) and isinstance(x.shape[axis], int)) or wanted == x.shape[axis]


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


def _options(call: Call, rank: int) -> dict[str, Any]:
    mode, cubic = call.get("mode", "nearest"), rank == 2 and call.get("cubic_coeff_a", -0.75) == -0.75
    place = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    smooth = bool(call.get("antialias", 0))
    if mode == "nearest":
        rounding = call.get("nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor")
        if (place, rounding) == ("asymmetric", "floor"):
            return {"mode": "nearest"}
        if place in ("half_pixel", "pytorch_half_pixel") and rounding in ("round_prefer_floor", "round_prefer_ceil"):
            return {"mode": "nearest-exact"}
        raise UnsupportedError(f"it resizes to the nearest with {place} and {rounding}")
    names = {"linear": ("linear", "bilinear", "trilinear")[rank - 1], "cubic": "bicubic" if cubic else None}
    if names.get(mode) is None or place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise UnsupportedError(f"it resizes by {mode} with {place}")
    return {"mode": names[mode], "align_corners": place == "align_corners", **({"antialias": True} if smooth else {})}


IMAGES: Mapping[str, Operator] = {"Pad": pad, "Resize": resize, "Upsample": resize}
