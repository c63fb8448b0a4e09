"""Ways to break ONNX: what the message says about graphs, tensors, files and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, helper

from .case import Break, Place
from .proto_tensors import NAMES, SIZES, absurd_ports, absurd_tensor, allocation, data_elsewhere

_OPERATOR_NAMES = (
    "Expand ConstantOfShape Tile Range Pad Resize Loop Scan If SequenceAt Einsum OneHot NonZero Upsample"
    " TopK EyeLike RandomNormal Reshape Slice Gather Split Conv ConvTranspose Gemm LSTM Attention MaxPool Identity"
    " Constant Shape TfIdfVectorizer Optional DequantizeLinear GridSample DFT RoiAlign CumSum Squeeze Transpose PyOp"
)
_OPERATORS = _OPERATOR_NAMES.split()


def _of_model(change: Callable[[ModelProto, Random, Place], None]) -> Break:
    def changed(content: bytes, rng: Random, place: Place) -> bytes:
        model = ModelProto.FromString(content)
        for _ in range(rng.choice((1, 1, 2))):
            change(model, rng, place)
        return model.SerializeToString()

    changed.__name__ = change.__name__.lstrip("_")
    return changed


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _node(model: ModelProto, rng: Random) -> NodeProto:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node] + [
        n for f in model.functions for n in f.node
    ]
    return rng.choice(nodes or [model.graph.node.add()])


def _values(model: ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in (*node.input, *node.output)] + ["x", "nowhere", ""]


def _rewired(model: ModelProto, rng: Random, place: Place) -> None:
    """A node reads or writes another value: cycles, missing values, values made twice."""
    node = _node(model, rng)
    names = node.input if node.input and rng.random() < 0.6 else node.output
    if names:
        names[rng.randrange(len(names))] = rng.choice(_values(model))
    else:
        node.output.append(rng.choice(_values(model)))


def _ports_in_number(model: ModelProto, rng: Random, place: Place) -> None:
    """A node with more inputs or outputs than its operator has, or with fewer."""
    node = _node(model, rng)
    names = node.input if rng.random() < 0.6 else node.output
    if rng.random() < 0.5:
        names.extend([rng.choice(_values(model))] * rng.choice((1, 5, 1000)))
    elif names:
        del names[rng.randrange(len(names)) :]


def _gone(model: ModelProto, rng: Random, place: Place) -> None:
    """Without a part that others refer to."""
    graph = model.graph
    fields = (graph.node, graph.initializer, graph.input, graph.output, model.opset_import, model.functions)
    field = rng.choice([each for each in fields if len(each)] or [graph.node])
    if rng.random() < 0.3:
        del field[:]
    elif len(field):
        del field[rng.randrange(len(field))]


def _doubled(model: ModelProto, rng: Random, place: Place) -> None:
    graph = model.graph
    fields = (graph.node, graph.initializer, graph.input, graph.output, model.opset_import, model.functions)
    field = rng.choice([each for each in fields if len(each)] or [graph.node])
    for _ in range(rng.choice((1, 1, 300))):
        if len(field):
            field.add().CopyFrom(field[rng.randrange(len(field))])


def _shuffled(model: ModelProto, rng: Random, place: Place) -> None:
    nodes = [*model.graph.node]
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _other_operator(model: ModelProto, rng: Random, place: Place) -> None:
    node = _node(model, rng)
    if rng.random() < 0.6:
        node.op_type = rng.choice((*_OPERATORS, *_OPERATORS, *NAMES, "os.system", "layer"))
    else:
        node.domain = rng.choice(
            ("own", "com.microsoft", "ai.onnx.ml", "ai.onnx", "nobody", "a\nb", "ai.onnx.preview.training")
        )


def _other_attribute(model: ModelProto, rng: Random, place: Place) -> None:
    node = _node(model, rng)
    name = rng.choice(
        ("kernel_shape", "pads", "strides", "axis", "perm", "value", "group", "transB", "to", "auto_pad", "\n")
    )
    values = (
        [rng.choice(SIZES)] * rng.choice((1, 2, 40)),
        rng.choice(SIZES),
        1e38,
        float("nan"),
        "x\ny",
        b"\xff",
        [0.5],
        ["a"],
    )
    made = helper.make_attribute(name, rng.choice(values))
    if node.attribute and rng.random() < 0.6:
        made.name = node.attribute[0].name
        del node.attribute[0]
    if rng.random() < 0.15:
        made.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14))
    if rng.random() < 0.1:
        made.ref_attr_name = "alpha"
    node.attribute.append(made)


def deep_graphs(content: bytes, rng: Random, place: Place) -> bytes:
    """Graphs within graphs, written byte by byte: protobuf's own writer would refuse. A second graph adds to it."""
    graph = b""
    for _ in range(rng.choice((5, 12, 40, 90, 300, 1000, 5000))):
        branch = _field(1, b"then_branch") + b"\xa0\x01\x05" + _field(6, graph + _field(1, b"arm"))
        node = _field(1, b"x") + _field(2, b"d") + _field(4, b"If") + _field(5, branch)
        graph = _field(1, node)
    return content + _field(7, graph)


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes: its number, its length, and what it holds."""
    length, rest = b"", len(content)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + content


def _long(model: ModelProto, rng: Random, place: Place) -> None:
    """A chain of thousands of nodes, or one value that thousands read."""
    count = rng.choice((1000, 8000))
    start = model.graph.output[0].name if model.graph.output else "x"
    for at in range(count):
        reads = start if rng.random() < 0.01 or not at else f"long{at - 1}"
        model.graph.node.append(helper.make_node("Relu", [reads], [f"long{at}"]))


def _functions(model: ModelProto, rng: Random, place: Place) -> None:
    """Functions that call themselves, each other, or the one before twice."""
    levels = rng.choice((1, 3, 40))
    for level in range(levels):
        called = rng.choice((level - 1, level - 1, level, 0)) if level else rng.choice((0, levels - 1))
        body = [helper.make_node(f"f{called}", ["a"], ["b"], domain="own") for _ in range(1)]
        body.append(helper.make_node(f"f{max(called, 0)}", ["b"], ["c"], domain="own"))
        if level == 0 and rng.random() < 0.7:
            body = [helper.make_node("Relu", ["a"], ["c"])]
        model.functions.append(
            helper.make_function("own", f"f{level}", ["a"], ["c"], body, [helper.make_opsetid("", 18)])
        )
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(0, helper.make_node(f"f{levels - 1}", ["x"], ["grown"], domain="own"))


def _versions(model: ModelProto, rng: Random, place: Place) -> None:
    if rng.random() < 0.4:
        model.ir_version = rng.choice((-1, 0, 1, 3, 99, 2**62))
    elif model.opset_import:
        model.opset_import[0].version = rng.choice((-1, 0, 1, 5, 9, 11, 13, 24, 999, 2**62))


def _metadata(model: ModelProto, rng: Random, place: Place) -> None:
    """What graftkit itself writes and reads back."""
    site = {
        "site": "head",
        "operator": "linear",
        "input_shape": [2],
        "output_shape": 3,
        "kernel": None,
        "parameters": "x",
    }
    values = (
        "{",
        "[" * 100_000,
        "{}",
        "[]",
        '{"sites": 3}',
        json.dumps({"sites": [site]}),
        '{"name": null}',
        "null",
        "\x1b[2J",
    )
    other = (
        '{"inputs": [], "outputs": []}',
        '{"inputs": 3}',
        '{"a": NaN}',
        '{"a": 1' + "0" * 5000 + "}",
        '{"name": "a\\nb"}',
    )
    key = rng.choice(
        ("graftkit.inspection", "graftkit.signature", "graftkit.", "graftkit.version", "x\ny", "graftkit.a\nb")
    )
    model.metadata_props.append(StringStringEntryProto(key=key, value=rng.choice((*values, *other))))


def _names(model: ModelProto, rng: Random, place: Place) -> None:
    node = _node(model, rng)
    if rng.random() < 0.5:
        node.name = rng.choice(NAMES)
    else:
        old, new = rng.choice(_values(model)), rng.choice(NAMES)
        for each in model.graph.node:
            for names in (each.input, each.output):
                for at, name in enumerate(names):
                    if name == old:
                        names[at] = new


_CHANGES = (
    *(_rewired,) * 3,
    *(data_elsewhere,) * 3,
    *(absurd_tensor,) * 2,
    *(_other_operator,) * 2,
    *(_other_attribute,) * 2,
    *(allocation,) * 2,
    *(_ports_in_number, _gone, _doubled, _shuffled, absurd_ports, _long, _functions, _versions, _metadata, _names),
)
PROTOS: tuple[Break, ...] = (*(_of_model(change) for change in _CHANGES), deep_graphs)
