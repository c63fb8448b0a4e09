"""What pnnx is given in place of forms that it reads wrongly or not at all; it says the same. The table says what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx

from graftkit.runtimes.pnnx.embeddings import name_no_axis
from graftkit.runtimes.pnnx.heads import cut_first
from graftkit.runtimes.pnnx.known import Known
from graftkit.runtimes.pnnx.masks import number_masks
from graftkit.runtimes.pnnx.maxima import pool_maxima
from graftkit.runtimes.pnnx.norms import give_width
from graftkit.runtimes.pnnx.reductions import reduce_two

Spelling = Callable[[onnx.NodeProto, Known], list[onnx.NodeProto]]  # what stands for a node, nothing where it stays

SPELLINGS: Mapping[str, Spelling] = {
    "reductions": reduce_two,
    "maxima": pool_maxima,
    "masks": number_masks,
    "embeddings": name_no_axis,
    "norms": give_width,
    "heads": cut_first,
}


def spelled(content: bytes) -> bytes:
    """A file whose sizes are fixed, in forms that pnnx reads; the very same where it has no other."""
    proto = onnx.load_model_from_string(content)
    known = Known.of(proto)
    nodes = [new for node in proto.graph.node for new in _spelled(node, known)]
    if nodes == list(proto.graph.node):
        return content
    kept = [value for value in proto.graph.value_info if value.name not in known.truths]  # the others are numbers now
    del proto.graph.node[:], proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(known.lists)
    return bytes(proto.SerializeToString())


def _spelled(node: onnx.NodeProto, known: Known) -> Iterator[onnx.NodeProto]:
    yield from next((found for spelling in SPELLINGS.values() if (found := spelling(node, known))), [node])
