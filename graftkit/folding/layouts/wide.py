"""The `wide` layout: what reads a site's input in one convolution or matrix product, whose output is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graftkit.folding.layouts.sites import SiteNodes, attributes, constants, drop_unread, place
from graftkit.folding.names import SITE_KEY

_PLACED = ("pads", "kernel_shape")  # what two convolutions over one input may differ in


def wide(graph: onnx.GraphProto, site: SiteNodes) -> bool:
    """The site's own call and its dendrites' that read the same become one; returns whether there were any.

    A 1x1 convolution, as the centre tap of a kernel, becomes that tap among zeros: more arithmetic, in a call that is
    there anyway. Grouped and transposed convolutions stay apart, and weights that are kept out of the graph.
    """
    known = constants(graph)
    if not _can(site.own, known):
        return False
    same = [node for node in site.dendrites if _fits(node, site.own, known)]
    if not same:
        return False
    _join(graph, site, [site.own, *same], known)
    return True


def _can(own: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    told = attributes(own)
    match own.op_type:
        case "Conv":
            fits = told.get("group", 1) == 1 and told.get("auto_pad", b"NOTSET") == b"NOTSET"
        case "Gemm":
            fits = not told.get("transA", 0) and told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0
            fits = fits and all(len(known[name].dims) == 1 for name in own.input[2:] if name in known)
        case "MatMul":
            fits = own.input[1] in known and len(known[own.input[1]].dims) == 2
        case _:
            return False
    return fits and all(name in known for name in own.input[1:] if name)


def _fits(node: onnx.NodeProto, own: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a dendrite's call can be a part of the site's own."""
    if node.op_type != own.op_type or node.input[0] != own.input[0] or not _can(node, known):
        return False
    if known[node.input[1]].data_type != known[own.input[1]].data_type:
        return False
    mine, theirs = attributes(node), attributes(own)
    if own.op_type != "Conv":
        return mine == theirs
    alike = {key: value for key, value in mine.items() if key not in _PLACED} == {
        key: value for key, value in theirs.items() if key not in _PLACED
    } or not _kernel(node, known, above=1)
    return alike and _offsets(node, own, known) is not None


def _kernel(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], *, above: int = 0) -> tuple[int, ...]:
    """The sizes of a convolution's kernel; with `above`, those that are larger than it."""
    return tuple(size for size in known[node.input[1]].dims[2:] if size > above)


def _offsets(
    node: onnx.NodeProto, own: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]
) -> tuple[int, ...] | None:
    """At which tap of the site's kernel a dendrite's begins; None where it reads what the kernel does not reach.

    With padding p and dilation d, output o of stride s reads input o*s - p + d*j at tap j.
    """
    inner, outer = _kernel(node, known), _kernel(own, known)
    mine, theirs = attributes(node), attributes(own)
    ones = [1] * len(outer)
    if mine.get("strides", ones) != theirs.get("strides", ones):
        return None
    before, after = (_pads(told, len(outer)) for told in (mine, theirs))
    if inner == outer:
        return (0,) * len(outer) if before == after else None
    if any(size != 1 for size in inner):
        return None
    steps = theirs.get("dilations", ones)
    assert isinstance(steps, list)
    found = []
    for small, large, step, size in zip(before, after, steps, outer, strict=False):
        offset, rest = divmod(large - small, step)
        if rest or not 0 <= offset < size:
            return None
        found.append(offset)
    return tuple(found) if _as_far(found, steps, outer, before, after) else None


def _as_far(
    offsets: Sequence[int], steps: Sequence[int], kernel: Sequence[int], inner: Sequence[int], outer: Sequence[int]
) -> bool:
    """Whether a tap's own padding behind its input gives as many positions as the kernel's."""
    dims = len(kernel)
    return all(
        outer[dims + dim] - inner[dims + dim] == step * (size - 1 - offset)
        for dim, (offset, step, size) in enumerate(zip(offsets, steps, kernel, strict=True))
    )


def _pads(told: Mapping[str, object], dims: int) -> list[int]:
    pads = told.get("pads", [0] * (2 * dims))
    assert isinstance(pads, list)
    return pads


def _join(
    graph: onnx.GraphProto, site: SiteNodes, calls: Sequence[onnx.NodeProto], known: Mapping[str, onnx.TensorProto]
) -> None:
    """Make the first call all of them, in place, and split what it gives."""
    own = calls[0]
    weights = [_weight(call, own, known) for call in calls]
    axis = 0 if own.op_type == "Conv" or attributes(own).get("transB", 0) else 1
    counts = [weight.shape[axis] for weight in weights]
    made = {"wide.weight": np.concatenate(weights, axis), "wide.split": np.array(counts, np.int64)}
    if any(len(call.input) > 2 for call in calls):
        biases = [_bias(call, count, weights[0].dtype, known) for call, count in zip(calls, counts, strict=True)]
        made["wide.bias"] = np.concatenate(biases)
    tensors = {part: numpy_helper.from_array(values, f"{site.site}.{part}") for part, values in made.items()}
    given = [call.output[0] for call in calls]
    split = helper.make_node("Split", [f"{site.site}/wide", f"{site.site}.wide.split"], given)
    split.name, split_axis = f"{site.site.replace('.', '/')}/Split", 1 if own.op_type == "Conv" else -1
    split.attribute.add(name="axis", i=split_axis, type=onnx.AttributeProto.INT)
    split.metadata_props.add(key=SITE_KEY, value=site.site)
    unread = {name for call in calls for name in call.input[1:]}
    first = min(place(graph, call) for call in calls)
    one = onnx.NodeProto.FromString(own.SerializeToString())
    for call in calls:
        del graph.node[place(graph, call)]
    biased = [f"{site.site}.wide.bias"] if "wide.bias" in made else []
    one.input[:] = [own.input[0], f"{site.site}.wide.weight", *biased]
    one.output[:] = [f"{site.site}/wide"]
    graph.node.insert(first, split)
    graph.node.insert(first, one)
    graph.initializer.extend(tensors.values())
    drop_unread(graph, unread)


def _weight(call: onnx.NodeProto, own: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> np.ndarray:
    """A call's weight in the shape of the site's kernel."""
    weight = numpy_helper.to_array(known[call.input[1]])
    outer = tuple(known[own.input[1]].dims[2:])
    if own.op_type != "Conv" or weight.shape[2:] == outer:
        return weight
    offsets = _offsets(call, own, known)
    assert offsets is not None
    whole = np.zeros((*weight.shape[:2], *outer), weight.dtype)
    whole[:, :, *(slice(offset, offset + 1) for offset in offsets)] = weight
    return whole


def _bias(call: onnx.NodeProto, count: int, dtype: np.dtype, known: Mapping[str, onnx.TensorProto]) -> np.ndarray:
    if len(call.input) < 3 or not call.input[2]:
        return np.zeros(count, dtype)
    return np.broadcast_to(numpy_helper.to_array(known[call.input[2]]), (count,))
