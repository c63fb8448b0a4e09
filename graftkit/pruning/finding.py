"""Finds the widths of a module that can shrink, by taking a unit out of a copy and running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from graftkit.core.errors import PruningError
from graftkit.pruning.graph import Channels, copied, evaluated
from graftkit.pruning.widths import Change, Kept, Width

_LEAST = 2  # channels that a width must have to lose one
_HEADS = 64  # more than so many heads are none
_FUSED = 3  # queries, keys and values in one layer
_CLEARLY = 0.05  # larger units have to leave so much less behind


def widths(
    module: nn.Module, example: Any, *, tell: Callable[[str], None] = lambda name: None
) -> tuple[tuple[Width, ...], tuple[Kept, ...]]:
    """The widths that can shrink, and the layers that keep theirs, with the reason; the module is left as it was.

    Each is tried on a copy: single channels, one of each head or group of a convolution, whole heads, with the numbers
    that modules keep of their widths as they are or following. Of what runs and gives outputs of the same shapes, that
    is taken which differs least from a copy in which the unit's weights are zero.

    Args:
        module: with its weights.
        example: inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        tell: told of each layer that is tried.

    Raises:
        RuntimeMissingError: torch-pruning is not installed.
        PruningError: the module cannot be followed as a whole.
    """
    channels = Channels(copied(module), example)
    found: list[Width] = []
    kept: list[Kept] = []
    done: set[str] = set()
    for root, count in channels.roots():
        if root in done:
            continue
        tell(root)
        try:
            group = channels.group(root, range(count))
            done.update(channels.makers(group))
            _check_learns(channels, group)
            found.append(_proved(channels, root, count, tuple(channels.layers(group))))
        except PruningError as error:
            kept.append(Kept(root, str(error)))
    return tuple(found), (*kept, *_others(module, done))


def _check_learns(channels: Channels, group: Any) -> None:
    """Raise PruningError where a tensor of the group is frozen: it could not learn to do without."""
    for part in channels.parts(group):
        if not part.tensor.requires_grad:
            where = channels.paths.get(part.layer, "")
            raise PruningError(f"it goes together with {where or 'a parameter'}, which is frozen (requires_grad=False)")


def _proved(channels: Channels, root: str, count: int, layers: tuple[str, ...]) -> Width:
    """The width whose units leave least behind, of those alike the one with the smallest. Raises PruningError."""
    if count < _LEAST:
        raise PruningError("it has one output")
    before, best, why = evaluated(channels.module, channels.example), None, ""
    for width in _ways(channels.module, root, count, layers):
        if len(width.units) < _LEAST:
            continue
        try:
            after = _without_a_unit(channels, width, before)
        except PruningError as error:
            why = why or str(error)
            continue
        if len(width.units) == count and not width.changes:  # channels by themselves: no heads are in them
            return width
        distance = _distance(channels, width, before, after)
        if best is None or distance < _CLEARLY * best[0]:
            best = distance, width
    if best is None:
        raise PruningError(why or "it runs in no way that was tried")
    return best[1]


def _ways(module: nn.Module, root: str, count: int, layers: Sequence[str]) -> Iterator[Width]:
    """Single channels; one of each group or head, also of queries, keys and values in one layer; whole heads."""
    owners = _owners(module, layers)
    singles = tuple((channel,) for channel in range(count))
    yield Width(root, tuple(layers), singles)
    for heads, times in _counts(module, owners, layers, count):
        each = count // (heads * times)
        starts = [part * each for part in range(heads * times)]
        strided = tuple(tuple(start + channel for start in starts) for channel in range(each))
        whole = tuple(
            tuple(starts[third * heads + head] + channel for third in range(times) for channel in range(each))
            for head in range(heads)
        )
        for units, head, width in ((strided, {each: -1}, -heads), (whole, {heads: -1}, -each)):
            yield Width(root, tuple(layers), units)
            yield from _followed(module, owners, root, layers, units, {count // times: width, **head})
    yield from _followed(module, owners, root, layers, singles, {count: -1})


def _followed(
    module: nn.Module,
    owners: Sequence[str],
    root: str,
    layers: Sequence[str],
    units: tuple[tuple[int, ...], ...],
    by: dict[int, int],
) -> Iterator[Width]:
    """With the numbers of the owners that have one of these values following."""
    changes = tuple(
        Change(path, name, by[value])
        for path in owners
        for name, value in _numbers(module.get_submodule(path))
        if value in by
    )
    if changes:
        yield Width(root, tuple(layers), units, changes)


def _owners(module: nn.Module, layers: Sequence[str]) -> list[str]:
    """Modules of the user's own that hold one of the layers, and say nothing in another language than numbers."""
    found: dict[str, None] = {}
    for path in layers:
        parent = path.rpartition(".")[0]
        while parent:
            found.setdefault(parent)
            parent = parent.rpartition(".")[0]
    found.setdefault("")  # the model itself
    own = [path for path in found if not type(module.get_submodule(path)).__module__.startswith("torch.nn")]
    return [path for path in own if any(_numbers(module.get_submodule(path)))]


def _numbers(owner: nn.Module) -> Iterator[tuple[str, int]]:
    """Whole numbers that a module keeps."""
    for name, value in vars(owner).items():
        if isinstance(value, Integral) and not isinstance(value, bool) and not name.startswith("_"):
            yield name, int(value)


def _counts(module: nn.Module, owners: Sequence[str], layers: Sequence[str], count: int) -> list[tuple[int, int]]:
    """How many parts the channels may be in, groups of convolutions or heads of attention, and how often."""
    groups = [getattr(module.get_submodule(path), "groups", 1) for path in layers]
    heads = [getattr(module.get_submodule(path), "num_heads", 1) for path in layers]
    kept = [value for path in owners for _, value in _numbers(module.get_submodule(path))]
    parts = [n for n in dict.fromkeys([*groups, *heads, *kept]) if isinstance(n, int) and 1 < n <= max(_HEADS, *groups)]
    return [(n, times) for n in parts for times in (1, _FUSED) if n * times < count and not count % (n * times)]


def _without_a_unit(channels: Channels, width: Width, before: Sequence[Tensor]) -> list[Tensor]:
    """What a copy gives from which a unit was taken. Raises PruningError."""
    smaller = Channels(copied(channels.module), channels.example)
    try:
        smaller.take(width, _middle(width), 1)
        after = evaluated(smaller.module, channels.example)
    except PruningError:
        raise
    except Exception as error:  # whatever the module raises that was made for other sizes
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PruningError(f"with a channel less it does not run: {text[:160]}") from error
    if [x.shape for x in after] != [x.shape for x in before]:
        raise PruningError("the model's output would have another shape")
    return after


def _distance(channels: Channels, width: Width, before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """How far that is, for each channel of the unit, from the module in which the unit's weights are zero."""
    parts = [*channels.parts(channels.group(width.name, _middle(width)))]
    kept = [part.tensor.detach().clone() for part in parts]
    with torch.no_grad():
        for part in parts:
            part.tensor.index_fill_(part.dimension, torch.tensor(part.numbers, device=part.tensor.device), 0)
        wanted = evaluated(channels.module, channels.example)
        for part, values in zip(parts, kept, strict=True):
            part.tensor.copy_(values)
    apart = sum(_apart(a, w, b) for a, w, b in zip(after, wanted, before, strict=True))
    return apart / len(width.units[0])


def _middle(width: Width) -> tuple[int, ...]:
    return width.units[len(width.units) // 2]


def _apart(after: Tensor, wanted: Tensor, before: Tensor) -> float:
    if not after.is_floating_point():
        return 0.0
    found = float((after - wanted).norm() / before.norm().clamp(min=1e-12))
    return found if found == found else float("inf")


def _others(module: nn.Module, done: set[str]) -> Iterator[Kept]:
    """Layers with weights that no group reaches."""
    for path, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
            yield Kept(path, "its hidden units are not pruned: gates of recurrent layers go together over time")
