"""What is known of a run: its network before and after training, and which layer serves which site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from graftkit import checking, folding
from graftkit.folding.names import SITE_KEY, mark_sites, metadata
from graftkit.folding.written import is_apart, location
from graftkit.model import GraftedModel
from graftkit.shipping import fresh_graph
from graftkit.transplanting.network import TRANSPOSED, Layer, Network, attribute, settled

_NORMS = slice(1, 5)  # scale, shift, mean, variance


@dataclass(frozen=True, eq=False)
class Form:
    """A layer's weight, as torch has it, and bias, before and after training.

    Attributes:
        folded: whether the batch norm behind the layer is in them.
        scale: what a bias' rounding is measured by.
    """

    folded: bool
    weight: tuple[np.ndarray, np.ndarray]
    bias: tuple[np.ndarray, np.ndarray]
    scale: float


class Known:
    """The given network as ONNX, as it is exported without any rewrite, with the numbers of both states.

    Args:
        proto: nodes marked with their sites; weights have their names in the model.
        given, trained: numbers by name.
    """

    def __init__(self, proto: onnx.ModelProto, given: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray]):
        opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
        self.network = Network(proto.graph, given, opset)
        self.trained, _ = settled(proto.graph, trained, opset)

    @cached_property
    def sites(self) -> Mapping[str, int]:
        """The place, among the layers, of each site's."""
        marks = {index: metadata(node).get(SITE_KEY) for index, node in enumerate(self.network.nodes)}
        found = {marks[layer.node]: place for place, layer in enumerate(self.network.layers)}
        return {site: place for site, place in found.items() if site is not None}

    def pair(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A constant before and after training."""
        return self.network.values[name], self.trained[name]

    def changed(self, name: str) -> bool:
        """Whether training changed a constant."""
        given, trained = self.pair(name)
        return not np.array_equal(given, trained)

    def forms(self, layer: Layer) -> list[Form]:
        """The layer as it is, and with the batch norm behind it folded in."""
        weight = [layer.canonical(value) for value in self.pair(layer.weight.name)]
        if layer.kind == TRANSPOSED and attribute(self.network.nodes[layer.node], "group", 1) != 1:
            neurons, norm = 0, None  # its neurons lie along two axes
        else:
            neurons, norm = weight[0].shape[layer.axis], layer.norm
        if layer.bias is None:
            bias = [np.zeros(neurons), np.zeros(neurons)]
        else:
            bias = [value.reshape(-1) for value in self.pair(layer.bias.name)]
        plain = Form(False, (weight[0], weight[1]), (bias[0], bias[1]), float(np.abs(bias[0]).max(initial=0)))
        return [plain] if norm is None else [plain, self._folded(layer, plain)]

    def norm(self, layer: Layer) -> tuple[tuple[np.ndarray, ...], float]:
        """(scale, shift, mean, variance) after training, and epsilon, of the batch norm behind a layer."""
        assert layer.norm is not None
        node = self.network.nodes[layer.norm]
        return tuple(self.trained[name] for name in node.input[_NORMS]), float(attribute(node, "epsilon", 1e-5))

    def names(self, layer: Layer, *, folded: bool) -> frozenset[str]:
        """The model's tensors that a layer's weight and bias are made of."""
        uses = [layer.weight.name, *([layer.bias.name] if layer.bias else [])]
        if folded and layer.norm is not None:
            uses += self.network.nodes[layer.norm].input[_NORMS]
        return frozenset().union(*(self.network.sources[name] for name in uses))

    def same_trained(self, first: int, second: int) -> bool:
        """Whether two layers, by place, have the same numbers after training, in each form."""
        ours, theirs = (self.forms(self.network.layers[place]) for place in (first, second))
        return len(ours) == len(theirs) and all(
            np.array_equal(a.weight[1], b.weight[1]) and np.array_equal(a.bias[1], b.bias[1])
            for a, b in zip(ours, theirs, strict=True)
        )

    def title(self, place: int) -> str:
        """What a message calls a layer: its site, or its weight."""
        by_place = {layer: site for site, layer in self.sites.items()}
        layer = self.network.layers[place]
        return by_place.get(place) or ", ".join(sorted(self.network.sources[layer.weight.name]))

    def _folded(self, layer: Layer, plain: Form) -> Form:
        assert layer.norm is not None
        node = self.network.nodes[layer.norm]
        epsilon = float(attribute(node, "epsilon", 1e-5))
        weights, biases, scale = [], [], 0.0
        for state, values in enumerate((self.network.values, self.trained)):
            gain, shift, mean, variance = (values[name].astype(np.float64) for name in node.input[_NORMS])
            factor = gain / np.sqrt(variance + epsilon)
            sizes = [1] * plain.weight[state].ndim
            sizes[layer.axis] = -1
            weights.append(plain.weight[state] * factor.reshape(sizes))
            biases.append((plain.bias[state] - mean) * factor + shift)
            scale = scale or float(max(np.abs(mean * factor).max(), np.abs(shift).max(), np.abs(biases[0]).max()))
        return Form(True, (weights[0], weights[1]), (biases[0], biases[1]), scale)


def draft_of(model: GraftedModel) -> folding.Written:
    """The network of a model without dendrites, exported without any rewrite, its nodes marked with their sites.

    Raises ExportError.
    """
    traced = model.traced
    graph = fresh_graph(model)
    draft = folding.to_onnx(
        graph, traced.inputs, opset=folding.DEFAULT_OPSET, signature=traced.signature, optimize=False
    )
    mark_sites(draft.proto, traced.sites, ())
    return draft


def numbers_of(draft: folding.Written, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The numbers of the draft's constants, those with a name in the model from its state."""
    found: dict[str, np.ndarray] = {}
    for tensor in draft.proto.graph.initializer:
        if tensor.name in state:
            found[tensor.name] = np.array(checking.array(state[tensor.name]))
        elif is_apart(tensor):
            found[tensor.name] = draft.weights[location(tensor)]()
        else:
            found[tensor.name] = numpy_helper.to_array(tensor)
    return found
