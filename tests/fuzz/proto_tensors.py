"""Ways to break what an ONNX file says about tensors: sizes, types, numbers, and the files that they are in."""

from __future__ import annotations

import os
from random import Random

from onnx import ModelProto, StringStringEntryProto, TensorProto, helper

from .case import Place

SIZES = (-1, 0, 1, 3, 7, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
NAMES = (
    "",
    "x",
    "y",
    "a\nb",
    "\x1b[2J",
    "../../etc/passwd",
    "x" * 50_000,
    "weight",
    "c",
    "r",
    "é",
    "a'b\"c",
    "a.b.c",
    "0",
)


def absurd_tensor(model: ModelProto, rng: Random, place: Place) -> None:
    """Sizes, types and numbers that do not agree."""
    tensor = _tensor(model, rng)
    match rng.choice(("dims", "more dims", "type", "raw", "typed", "gone", "segment", "name")):
        case "dims" if len(tensor.dims):
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
        case "more dims":
            tensor.dims.extend([rng.choice((0, 1, 2, 2**31))] * rng.choice((1, 13, 100)))
        case "type":
            tensor.data_type = rng.choice((0, 2, 3, 6, 7, 8, 9, 10, 14, 16, 17, 21, 22, 23, 99, -1))
        case "raw":
            tensor.raw_data = rng.randbytes(rng.choice((0, 1, 3, 4, 1000)))
        case "typed":
            tensor.float_data.extend([float("nan")] * rng.choice((1, 27)))
        case "gone":
            tensor.ClearField("raw_data")
        case "segment":
            tensor.segment.begin, tensor.segment.end = rng.choice(SIZES[:5]), rng.choice(SIZES)
        case _:
            tensor.name = rng.choice(NAMES)


def data_elsewhere(model: ModelProto, rng: Random, place: Place) -> None:
    """Numbers in another file: beyond the folder, by a link, by a device, by a length that is not there."""
    tensor = _tensor(model, rng)
    beyond = os.path.relpath(place.secret, place.folder)
    (place.folder / "weights.bin").write_bytes(bytes(300))
    for name, target in (("link.bin", place.secret), ("up", place.secret.parent), ("loop.bin", "loop.bin")):
        if not (place.folder / name).is_symlink():
            (place.folder / name).symlink_to(target)
    if not (place.folder / "hard.bin").exists():
        (place.folder / "hard.bin").hardlink_to(place.secret)
    places = (
        *(
            beyond,
            str(place.secret),
            "../../etc/passwd",
            "/etc/passwd",
            "link.bin",
            f"up/{place.secret.name}",
            "loop.bin",
        ),
        *(
            "hard.bin",
            "",
            ".",
            "..",
            "net.onnx",
            "/dev/zero",
            "/proc/self/mem",
            "weights.bin",
            "weights.bin",
            "gone.bin",
        ),
        *(
            "a\nb",
            "file:///etc/passwd",
            "http://localhost/x",
            f"./{beyond}",
            f"x/../{beyond}",
            "weights.bin\0/../x",
            "~/x",
        ),
        *(beyond.replace("/", "\\"), "x" * 5000, "weights.bin/"),
    )
    told = {
        "location": rng.choice(places),
        "offset": str(rng.choice((0, 0, 4096, -1, 10**20, "x", ""))),
        "length": str(rng.choice((108, 108, 0, -1, 2**40, "1e9", ""))),
    }
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    chosen = [key for key in told if key == "location" or rng.random() < 0.6]
    tensor.external_data.extend(StringStringEntryProto(key=key, value=told[key]) for key in chosen)


def allocation(model: ModelProto, rng: Random, place: Place) -> None:
    """A constant that is short in the file, and huge when it is computed."""
    sizes = rng.choice(([2**40], [2**31, 2**31], [10**6, 10**6], [60_000, 30_000], [-1], [2**62, 4], [0, 2**62]))
    operator = rng.choice(
        ("ConstantOfShape", "Expand", "Tile", "RandomNormal", "Range", "Pad", "EyeLike", "Resize", "OneHot")
    )
    graph = model.graph
    graph.initializer.append(helper.make_tensor("bomb.size", TensorProto.INT64, [len(sizes)], sizes))
    graph.initializer.append(helper.make_tensor("bomb.one", TensorProto.FLOAT, [1] * len(sizes), [1.0]))
    takes = {"ConstantOfShape": ["bomb.size"], "RandomNormal": [], "Range": ["bomb.one", "bomb.size", "bomb.one"]}
    node = helper.make_node(operator, takes.get(operator, ["bomb.one", "bomb.size"]), ["bomb"])
    if operator == "RandomNormal":
        node.attribute.append(helper.make_attribute("shape", sizes))
    graph.node.insert(0, node)
    last = graph.node[len(graph.node) - 1]
    graph.node.append(helper.make_node("Add", [last.output[0] if last.output else "", "bomb"], ["bombed"]))
    if graph.output:
        graph.output[0].name = "bombed"


def absurd_ports(model: ModelProto, rng: Random, place: Place) -> None:
    ports = [*model.graph.input, *model.graph.output] or [model.graph.input.add()]
    port = rng.choice(ports)
    kind = port.type.tensor_type
    match rng.choice(("size", "many", "none", "type", "name", "param", "sequence")):
        case "size" if len(kind.shape.dim):
            kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = rng.choice(SIZES)
        case "many":
            for _ in range(rng.choice((1, 20, 5000))):
                kind.shape.dim.add().dim_value = rng.choice(SIZES)
        case "none":
            kind.ClearField("shape")
        case "type":
            kind.elem_type = rng.choice((0, 7, 8, 9, 14, 16, 17, 99, -1))
        case "name":
            port.name = rng.choice(NAMES)
        case "param" if len(kind.shape.dim):
            kind.shape.dim[0].dim_param = rng.choice((*NAMES, "__import__('os').system('touch MARK')", "N*2", "2**99"))
        case _:
            port.type.sequence_type.elem_type.tensor_type.elem_type = 1


def _tensor(model: ModelProto, rng: Random) -> TensorProto:
    return rng.choice([*model.graph.initializer] or [model.graph.initializer.add()])
