"""Where in the user's file each site's dendrites read and join; refuses, by the site's name, what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from graftkit.core.errors import ExportError
from graftkit.core.sites import Site
from graftkit.model import ACTIVATION_MARK, SITE_MARK, GraftedModel
from graftkit.transplanting.known import Known
from graftkit.transplanting.matching import Match
from graftkit.transplanting.network import LINEAR, Layer, Network, numbers

_AUTO = (b"SAME_UPPER", b"SAME_LOWER", b"VALID")


@dataclass(frozen=True)
class Placement:
    """Where the dendrites of one site go.

    Attributes:
        site: its key.
        match: the layer.
        input, neuron: what they read; `neuron` is also what is joined then.
        node: the place of the node that gives `neuron`.
        norm: whether a batch norm that is in the layer has to stand behind them instead.
    """

    site: str
    match: Match
    input: str
    neuron: str
    node: int
    norm: bool = False


def place(model: GraftedModel, known: Known, file: Network, matches: Sequence[Match], ranks: Mapping[str, int],
          name: str) -> tuple[Placement, ...]:  # fmt: skip
    """Where all dendrites go, at each layer of the file that is their site's.

    Args:
        model: with its trained dendrites.
        ranks: the number of dimensions of the file's tensors, as far as it is known.
        name: of the file, for messages.

    Raises ExportError that names the site.
    """
    sites = {site.key: site for site in model.traced.sites}
    behind = _behind_norm(model)
    found = []
    for key in model.plan.sites():
        there = [match for match in matches if match.ours == known.sites.get(key)]
        if not there:
            raise ExportError(f"{name} has no layer with the weights of the site {key!r}, {HINT}")
        for match in there:
            joins_behind = key in behind and model.plan.at(key)[0].join == "activation"
            found.append(_placed(sites[key], match, file, ranks, joins_behind=joins_behind, name=name))
    return tuple(found)


HINT = (
    "where dendrites or other weights would go: it has to be the model that the run was given, in single precision,"
    " and no layer quantised, fused otherwise or inside an If or a Loop"
)


def check_clear(known: Known, matches: Sequence[Match], name: str) -> None:
    """Raise ExportError where a layer may as well be another one, and it makes a difference which."""
    for match in matches:
        titles = [known.title(place) for place in (match.ours, *match.others)]
        if len(titles) > 1:
            raise ExportError(
                f"{name} has a layer with the weights of {' and of '.join(map(repr, titles))}, and nothing tells which"
                " it is; training made them differ, so neither can be transplanted"
            )


def input_of(layer: Layer, site: Site, file: Network) -> str | None:
    """What the site itself reads, before any padding by a node of its own; None where the kernel lies otherwise."""
    node = file.nodes[layer.node]
    if site.geometry is None:
        return layer.input
    if site.is_transposed or any(attr.name == "auto_pad" and attr.s in _AUTO for attr in node.attribute):
        return layer.input
    margins = site.geometry.margins()
    wanted = (*(before for before, _ in margins), *(after for _, after in margins))
    pads = numbers(node, "pads") or (0,) * len(wanted)
    if pads == wanted:
        return layer.input
    return _before_padding(layer, file, wanted) if not any(pads) else None


def _before_padding(layer: Layer, file: Network, wanted: tuple[int, ...]) -> str | None:
    place = file.made.get(layer.input)
    node = file.nodes[place] if place is not None else onnx.NodeProto()
    if node.op_type != "Pad" or len(node.input) < 2 or node.input[1] not in file.values:
        return None
    pads = [int(each) for each in file.values[node.input[1]]]
    half = len(pads) // 2
    inner = (*pads[2:half], *pads[half + 2 :])
    return str(node.input[0]) if inner == wanted else None


@dataclass(frozen=True)
class Around:
    """What a site reads and says in the file, which may reshape rows and positions into one around a layer.

    Attributes:
        input: None where the layer pads otherwise.
        output: given by the node at the place `node`.
        rank: how many dimensions both have, None where that is not known.
    """

    input: str | None
    output: str
    node: int
    rank: int | None


def around(layer: Layer, site: Site, file: Network, ranks: Mapping[str, int]) -> Around:
    """The tensors of the file that have the shapes of a site's."""
    if layer.kind != LINEAR:
        return Around(input_of(layer, site, file), layer.output, layer.last, file.values[layer.weight.name].ndim)
    rank = 2 if file.nodes[layer.node].op_type == "Gemm" else ranks.get(layer.input)
    plain = Around(layer.input, layer.output, layer.last, rank)
    before, behind = file.made.get(layer.input), file.only_reader(layer.output)
    if rank == len(site.output_shape) or before is None or behind is None:
        return plain
    if file.nodes[before].op_type != "Reshape" or file.nodes[behind].op_type != "Reshape":
        return plain
    outer, output = str(file.nodes[before].input[0]), str(file.nodes[behind].output[0])
    if ranks.get(outer) == len(site.input_shape) and ranks.get(output, len(site.output_shape)) == ranks.get(outer):
        return Around(outer, output, behind, ranks[outer])
    return plain


def _placed(
    site: Site, match: Match, file: Network, ranks: Mapping[str, int], *, joins_behind: bool, name: str
) -> Placement:
    layer = file.layers[match.theirs]
    called = file.nodes[layer.node].name or file.nodes[layer.node].output[0]
    there = around(layer, site, file, ranks)
    if there.input is None:
        raise ExportError(f"{name}: {called!r} pads its input otherwise than the site {site.key!r} does")
    if there.rank not in (None, len(site.output_shape)):
        raise ExportError(
            f"{name}: {called!r} reads {there.rank} dimensions where the site {site.key!r} has"
            f" {len(site.output_shape)}, so its dendrites do not fit; export it without reshaping around that layer"
        )
    if not joins_behind or match.form.folded:
        put_back = match.form.folded and not joins_behind
        return Placement(site.key, match, there.input, there.output, there.node, norm=put_back)
    if layer.norm is None:
        raise ExportError(f"{name}: no BatchNormalization follows {called!r} where the site {site.key!r} has one")
    return Placement(site.key, match, there.input, str(file.nodes[layer.norm].output[0]), layer.norm)


def _behind_norm(model: GraftedModel) -> frozenset[str]:
    """The sites whose activation reads a batch norm."""
    nodes = list(model.graphs[1].graph.nodes)
    calls, reads = ({n.meta[mark]: n for n in nodes if mark in n.meta} for mark in (SITE_MARK, ACTIVATION_MARK))
    return frozenset(site for site, node in reads.items() if calls.get(site) is not node)


def ranks_of(model: onnx.ModelProto) -> dict[str, int]:
    """How many dimensions the tensors of a model have, as far as onnx can tell."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # onnx's own kinds, for what it does not know
        graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}
