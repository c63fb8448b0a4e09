"""Where each number that training changed lies in the user's file, and what it becomes there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graftkit.transplanting.known import Known
from graftkit.transplanting.matching import Match, alike, near
from graftkit.transplanting.network import Layer, Network, Use

_TELLING = 3  # so many different numbers are of one tensor; fewer, such as zeros alone, may be of any


@dataclass(frozen=True, eq=False)
class Update:
    """New numbers for what a node reads.

    Attributes:
        use: where it is read.
        value: as the node reads it.
        names: the model's tensors that it is made of.
    """

    use: Use
    value: np.ndarray
    names: frozenset[str]


@dataclass(frozen=True, eq=False)
class Missing:
    """A bias that a node of the file has not got, since it was zero before training."""

    node: int
    value: np.ndarray
    names: frozenset[str]


def layer_updates(known: Known, file: Network, matches: Sequence[Match], raw: frozenset[int]) -> list[Update | Missing]:
    """New weights and biases of the layers that were matched.

    Args:
        raw: places, among the file's layers, of those that get their weights without the batch norm.
    """
    found: list[Update | Missing] = []
    for match in matches:
        layer, ours = file.layers[match.theirs], known.network.layers[match.ours]
        form = known.forms(ours)[0] if match.theirs in raw else match.form
        names = known.names(ours, folded=match.form.folded)
        now = file.values[layer.weight.name]
        weight = form.weight[1].T if layer.turned else form.weight[1]
        found.append(Update(layer.weight, weight.reshape(now.shape), names))
        if layer.bias is not None:
            found.append(Update(layer.bias, form.bias[1].reshape(file.values[layer.bias.name].shape), names))
        elif np.any(form.bias[1]):
            found.append(Missing(layer.node, form.bias[1], names))
    return found


class Others:
    """What is neither a layer's weight nor its bias: norms, embeddings, slopes, recurrent weights and so on."""

    def __init__(self, known: Known, file: Network, matches: Sequence[Match]):
        self.known, self.file = known, file
        self._of = {match.theirs: match.ours for match in matches}
        self._ours = list(_others(known.network, known.network.layers))
        self._theirs = list(_others(file, [file.layers[match.theirs] for match in matches]))
        self._near = near(known.network, set(self._of.values()))
        self._near_there = near(file, set(self._of))
        folded = {known.network.layers[match.ours].norm for match in matches if match.form.folded}
        unfolded = {known.network.layers[match.ours].norm for match in matches if not match.form.folded}
        self._gone = folded - unfolded

    def updates(self) -> tuple[list[Update], list[Use]]:
        """The updates, and the changed constants of the model that have no place in the file."""
        found: list[Update] = []
        lost: list[Use] = []
        for use in self._ours:
            if use.node in self._gone or not self.known.changed(use.name):
                continue
            places = self._places(use)
            _, trained = self.known.pair(use.name)
            names = self.known.network.sources[use.name]
            for place in places:
                now = self.file.values[place.name]
                found.append(Update(place, trained.reshape(now.shape), names))
            if not places and not self._stored(names, found):
                lost.append(use)
        return found, lost

    def _places(self, use: Use) -> list[Use]:
        """Where the file reads the same: by numbers where these tell, else by the place among the layers, too."""
        given, trained = self.known.pair(use.name)
        same = [other for other in self._theirs if alike(self.file.values[other.name], given)]
        rivals = [
            other
            for other in self._ours
            if alike(self.known.network.values[other.name], given)
            and not np.array_equal(self.known.trained[other.name].reshape(-1), trained.reshape(-1))
        ]
        if len(np.unique(given)) >= _TELLING and not rivals:
            return same
        own = self._signature(use)
        if any(self._signature(other) == own for other in rivals):
            return []
        return [other for other in same if self._signature_there(other) == own]

    def _stored(self, names: frozenset[str], found: list[Update]) -> bool:
        """Whether the tensors themselves lie in the file, and it computes what is made of them; adds their updates."""
        updates = []
        for name in sorted(names):
            if not self.known.changed(name):
                continue
            given, trained = self.known.pair(name)
            if len(np.unique(given)) < _TELLING:
                return False
            there = [n for n, value in self.file.stored.items() if value.dtype.kind == "f" and alike(value, given)]
            updates += [
                Update(Use(-1, 0, n), trained.reshape(self.file.stored[n].shape), frozenset({name})) for n in there
            ]
            if not there:
                return False
        found += updates
        return True

    def _signature(self, use: Use) -> tuple[object, ...]:
        up, down = (side[use.node] for side in self._near)
        return (*_role(self.known.network, use), up, down)

    def _signature_there(self, use: Use) -> tuple[object, ...]:
        up, down = (frozenset(self._of[place] for place in side[use.node]) for side in self._near_there)
        return (*_role(self.file, use), up, down)


def changed_names(updates: Sequence[Update | Missing], file: Network) -> Iterator[str]:
    """The model's tensors whose numbers in the file become others."""
    for update in updates:
        if isinstance(update, Missing) or not np.array_equal(update.value, file.values[update.use.name]):
            yield from update.names


def _others(network: Network, layers: Sequence[Layer]) -> Iterator[Use]:
    taken = {(use.node, use.place) for layer in layers for use in (layer.weight, layer.bias) if use}
    for use in network.uses():
        if (use.node, use.place) not in taken:
            yield use


def _role(network: Network, use: Use) -> tuple[object, ...]:
    operator = network.nodes[use.node].op_type
    return operator, 0 if operator in ("Add", "Mul") else use.place
