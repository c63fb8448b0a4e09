"""Which layer of the user's file is which of the model's: by weights, then by what feeds them and what they feed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graftkit.transplanting.known import Form, Known
from graftkit.transplanting.network import Layer, Network

CLOSE = 1e-6  # of the largest weight: what computing anew in single precision may change
_CLOSE_BIAS = 1e-5  # of the largest term

_SIZES = ("Shape", "Size")

Near = tuple[Mapping[int, frozenset[int]], Mapping[int, frozenset[int]]]


@dataclass(frozen=True)
class Match:
    """A layer of the file, by its place among the layers there, and the model's, by its place among its own.

    Attributes:
        others: further layers of the model that it may as well be; nothing tells which.
    """

    theirs: int
    ours: int
    form: Form
    others: tuple[int, ...] = ()


def match_layers(known: Known, file: Network) -> tuple[Match, ...]:
    """The file's layers that have the weights of one of the model's, in the file's order."""
    forms = [known.forms(layer) for layer in known.network.layers]
    fitting = [_fitting(known.network.layers, forms, layer, file) for layer in file.layers]
    candidates = {place: set(found) for place, found in enumerate(fitting) if found}
    told = _told_apart(candidates, known.network, file)
    matches = []
    for place, ours in sorted(told.items()):
        first, *others = sorted(ours)
        matches.append(Match(place, first, fitting[place][first], tuple(others)))
    return tuple(matches)


def alike(first: np.ndarray, second: np.ndarray, *, close: float = CLOSE, scale: float | None = None) -> bool:
    """Whether two arrays have the same numbers, up to rounding and axes of size one."""
    if _squeezed(first.shape) != _squeezed(second.shape):
        return False
    if not first.size:
        return True
    ours, theirs = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    size = float(np.abs(theirs).max()) if scale is None else scale
    return bool(np.abs(ours - theirs).max() <= close * size)


def near(network: Network, places: Collection[int]) -> Near:
    """For each node, and at each of these layers, the nearest of the layers that feed it and that it feeds.

    Returns two mappings from a node's place in the graph: the layers upstream, and downstream.
    """
    at = {network.layers[place].node: place for place in places}
    return _spread(network, at, forward=True), _spread(network, at, forward=False)


def _fitting(ours: Sequence[Layer], forms: Sequence[Sequence[Form]], layer: Layer, file: Network) -> dict[int, Form]:
    """The model's layers that have these weights, and in which form."""
    weight = layer.canonical(file.values[layer.weight.name])
    bias = None if layer.bias is None else file.values[layer.bias.name].reshape(-1)
    found: dict[int, Form] = {}
    for place, (other, each) in enumerate(zip(ours, forms, strict=True)):
        fits = [f for f in each if other.kind == layer.kind and alike(weight, f.weight[0]) and _same_bias(bias, f)]
        if fits:
            found[place] = fits[0]
    return found


def _same_bias(bias: np.ndarray | None, form: Form) -> bool:
    """Whether the biases are the same; none is like one of zeros, which optimisers drop."""
    wanted = form.bias[0]
    if bias is None or not wanted.size:
        return not np.any(wanted)
    return len(bias) == len(wanted) and alike(bias, wanted, close=_CLOSE_BIAS, scale=form.scale)


def _told_apart(candidates: Mapping[int, set[int]], ours: Network, theirs: Network) -> dict[int, set[int]]:
    """Layers of the same weights told apart by their neighbours, and these by theirs.

    (Arc consistency, Mackworth 1977, between the graphs of the layers that are in both.)
    """
    told = {place: set(found) for place, found in candidates.items()}
    if all(len(found) == 1 for found in told.values()):
        return told
    links = (_links(theirs, told), _links(ours, set().union(*told.values())))
    again = True
    while again:
        again = False
        for place, found in told.items():
            kept = {each for each in found if len(found) > 1 and _consistent(place, each, told, *links)}
            if kept and kept != found:
                told[place], again = kept, True
    return told


def _consistent(theirs: int, ours: int, told: Mapping[int, set[int]], file: Near, model: Near) -> bool:
    """Whether the neighbours of one may be the neighbours of the other, both ways."""
    for side in (0, 1):
        around, wanted = file[side][theirs], model[side][ours]
        if any(not told[place] & wanted for place in around):
            return False
        if any(all(each not in told[place] for place in around) for each in wanted):
            return False
    return True


def _links(network: Network, places: Collection[int]) -> Near:
    """By layer: the layers that feed it, and those that it feeds, with no other of these in between."""
    up, down = near(network, places)
    at = {place: network.layers[place].node for place in places}
    return {p: up[node] for p, node in at.items()}, {p: down[node] for p, node in at.items()}


def _spread(network: Network, at: Mapping[int, int], *, forward: bool) -> dict[int, frozenset[int]]:
    """What reaches each node, of the layers before it or behind it."""
    before = _before(network) if forward else _behind(network)
    order = range(len(network.nodes)) if forward else reversed(range(len(network.nodes)))
    found: dict[int, frozenset[int]] = {}
    for node in order:
        told = [frozenset({at[each]}) if each in at else found[each] for each in before(node)]
        # sizes are told along other ways by each exporter
        found[node] = frozenset() if network.nodes[node].op_type in _SIZES else frozenset().union(*told)
    return found


def _before(network: Network) -> Callable[[int], list[int]]:
    return lambda node: [network.made[name] for name in network.reads[node] if name in network.made]


def _behind(network: Network) -> Callable[[int], list[int]]:
    return lambda node: [each for name in network.nodes[node].output for each in network.readers.get(name, ())]


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
