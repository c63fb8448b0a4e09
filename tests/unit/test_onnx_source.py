"""ONNX files as models: what they become, what of them is kept, and which are refused."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from onnx_tools import (
    assert_same,
    check,
    expected,
    graph_of,
    i64,
    model_of,
    node,
    outputs_of,
    read,
    traced,
    weights,
    written,
)
from torch import nn

from graftkit.contracts import SourceRequest
from graftkit.core.errors import RuntimeMissingError, SourceError
from graftkit.core.signature import Port
from graftkit.sources import load
from graftkit.sources.onnx_batch import FREED, KEPT
from graftkit.sources.onnx_compare import EVALUATED
from graftkit.sources.onnx_normalise import STEPS, normalise
from graftkit.sources.onnx_normalise.graph import Graph
from graftkit.sources.onnx_safety import checked, opset
from graftkit.tracing.capture import unlift
from graftkit.tracing.sites import calls

ROWS = {"x": ("n", 6)}


def parameters(module: Any) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def sites(module: Any, inputs: Mapping[str, np.ndarray]) -> list[str]:
    """The keys of the calls with weights once the module is traced."""
    return list(calls(unlift(traced(module, inputs, [True] * len(inputs))).graph))


# ── weights and their names ──────────────────────────────────────────────────────────────────────


def test_a_product_and_a_bias_are_one_linear_call(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="/first/MatMul"),
        node("Add", ["b", "m"], ["a"], name="/first/Add"),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "v"], ["y"], name="second"),
    ]
    loaded = check(model_of(graph_of(nodes, weights(w=(6, 4), b=(4,), v=(4, 3)), {"x": ("n", 5, 6)})), tmp_path)
    assert sites(loaded.model, {"x": np.zeros((2, 5, 6), np.float32)}) == ["first_MatMul", "second"]
    assert parameters(loaded.model) == ["first_MatMul.weight", "first_MatMul.bias", "second.weight"]
    assert all(p.requires_grad and isinstance(p, nn.Parameter) for p in loaded.model.parameters())  # type: ignore[union-attr]


def test_weights_tell_the_modules_their_names(tmp_path: Path) -> None:
    """Exporters of PyTorch name the weights after the modules, and the nodes as they like."""
    values = {
        f"blocks.{i}.{name}.weight": value
        for i in range(2)
        for name, value in weights(i, up=(6, 6), down=(6, 6)).items()
    }
    names = list(values)
    nodes = [node("Gemm", [f"h{i}", name], [f"h{i + 1}"], name=f"node_{i}") for i, name in enumerate(names)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    loaded = check(model_of(graph_of(nodes, values, ROWS)), tmp_path)
    assert sites(loaded.model, {"x": np.zeros((2, 6), np.float32)}) == [
        "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down",
    ]  # fmt: skip


def test_names_become_identifiers_that_nothing_else_has(tmp_path: Path) -> None:
    odd = ["/layer/Gemm", "layer Gemm", "1", "forward", "class", "graph", ""]
    nodes = [node("Gemm", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=name) for i, name in enumerate(odd)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    values = {f"w{i}": weights(i, w=(6, 6))["w"] for i in range(len(odd))}
    loaded = check(model_of(graph_of(nodes, values, ROWS)), tmp_path)
    keys = sites(loaded.model, {"x": np.zeros((2, 6), np.float32)})
    assert len(set(keys)) == len(odd)
    assert all(part.isidentifier() for key in keys for part in key.split("."))


def test_one_weight_at_two_places_is_one_parameter(tmp_path: Path) -> None:
    """As an embedding that is tied to the decoder, which reads it transposed."""
    nodes = [
        node("Gather", ["w", "x"], ["e"], name="embedding"),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["e", "t"], ["y"], name="decoder"),
    ]
    graph = graph_of(nodes, weights(w=(9, 4)), {"x": ("n", 3)}, types={"x": TensorProto.INT64})
    loaded = check(model_of(graph), tmp_path)
    module: Any = loaded.model
    assert module.embedding.weight is module.decoder.weight
    assert len(list(module.parameters())) == 1


def test_weights_in_other_forms_are_found(tmp_path: Path) -> None:
    """As a node, through Identity, as an input with a default, transposed, with another shape, in half precision."""
    values = weights(a=(6, 5), b=(5,), c=(20,), d=(3, 4))
    nodes = [
        node("Constant", [], ["b1"], value=numpy_helper.from_array(values["b"])),
        node("Identity", ["a"], ["a1"]),
        node("Gemm", ["x", "a1", "b1"], ["h"], name="first"),
        node("Constant", [], ["to"], value_ints=[5, 4]),
        node("Reshape", ["c", "to"], ["c1"]),
        node("MatMul", ["h", "c1"], ["i"], name="second"),
        node("Cast", ["d"], ["d1"], to=TensorProto.FLOAT),
        node("Transpose", ["d1"], ["d2"]),
        node("MatMul", ["i", "d2"], ["y"], name="third"),
    ]
    held = {"a": values["a"], "c": values["c"], "d": values["d"].astype(np.float16)}
    graph = graph_of(nodes, held, ROWS)
    graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [6, 5]))
    loaded = check(model_of(graph), tmp_path)
    assert [port.name for port in loaded.signature.inputs] == ["x"]  # type: ignore[union-attr]
    assert sites(loaded.model, {"x": np.zeros((2, 6), np.float32)}) == ["first", "second", "third"]
    assert parameters(loaded.model) == ["first.weight", "first.bias", "second.weight", "third.weight"]


def test_masks_and_scales_are_not_trained(tmp_path: Path) -> None:
    mask = np.triu(np.full((6, 6), -3.4e38, np.float32), 1)
    infinite = np.triu(np.full((6, 6), -np.inf, np.float32), 1)
    values = {"mask": mask, "inf": infinite, "scale": np.float32(0.5), **weights(position=(6, 6))}
    nodes = [
        node("Mul", ["x", "scale"], ["a"]),
        node("Add", ["a", "position"], ["p"], name="place"),
        node("Add", ["p", "mask"], ["m"]),
        node("Add", ["m", "inf"], ["i"]),
        node("Softmax", ["i"], ["y"]),
    ]
    loaded = check(model_of(graph_of(nodes, values, {"x": ("n", 6, 6)})), tmp_path)
    assert parameters(loaded.model) == ["place.bias"]


def test_norms_of_a_file_are_trained(tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", ["x", "s", "b"], ["y"], name="norm")]
    assert parameters(check(model_of(graph_of(nodes, weights(s=(6,), b=(6,)), ROWS)), tmp_path).model) == [
        "norm.weight", "norm.bias",
    ]  # fmt: skip
    nodes = [node("PRelu", ["x", "s"], ["y"], name="bend")]  # one of onnx2fx's
    assert parameters(check(model_of(graph_of(nodes, weights(s=(6,)), ROWS)), tmp_path).model) == ["bend.weight"]


def normed() -> ModelProto:
    """Conv, BatchNormalization, Dropout."""
    values = weights(w=(4, 3, 3, 3), s=(4,), b=(4,), m=(4,)) | {"v": np.full(4, 0.7, np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm", momentum=0.8),
        node("Dropout", ["n", "half"], ["y"]),
    ]
    return model_of(graph_of(nodes, values | {"half": np.float32(0.5)}, {"x": ("n", 3, 8, 8)}), 15)


def test_training_mode_is_followed(tmp_path: Path) -> None:
    module: Any = check(normed(), tmp_path).model
    assert [name for name, _ in module.named_buffers()] == ["norm.running_mean", "norm.running_var"]
    x = torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        quiet = module(x)
        before = module.norm.running_mean.clone()
        torch.manual_seed(0)
        trained = module.train()(x)
        right = nn.functional.batch_norm(
            module.conv(x), None, None, module.norm.weight, module.norm.bias, training=True, eps=1e-5
        )
        torch.manual_seed(0)
        torch.testing.assert_close(trained, nn.functional.dropout(right, 0.5))
        torch.testing.assert_close(module.norm.running_mean, 0.8 * before + 0.2 * module.conv(x).mean((0, 2, 3)))
    assert not torch.allclose(quiet, trained)


def test_a_file_exported_in_training_mode_is_evaluated_outside_of_it(tmp_path: Path) -> None:
    """As torch.onnx.export(training=TrainingMode.TRAINING) writes it."""
    model = normed()
    right = expected(written(model, tmp_path), {"x": (x := np.random.default_rng(0).random((2, 3, 8, 8), np.float32))})
    _, norm, drop = model.graph.node
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["mean", "var"])
    drop.input.append("on")
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    loaded = read(written(model, tmp_path))
    module: Any = loaded.model
    assert_same(outputs_of(module, {"x": x}), right)
    assert loaded.warnings == (EVALUATED,)
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [4]))
    module = read(written(model, tmp_path)).model
    assert_same(outputs_of(module, {"x": x}), [*right, weights(w=(4, 3, 3, 3), s=(4,), b=(4,), m=(4,))["m"]])


# ── what else the file says ──────────────────────────────────────────────────────────────────────


def test_names_types_sizes_and_metadata_are_kept(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("Gather", ["w", "ids:0"], ["e"]), node("Add", ["e", "2.mask"], ["y/out"])],
        "graph",
        [
            helper.make_tensor_value_info("ids:0", TensorProto.INT64, ["rows", "length"]),
            helper.make_tensor_value_info("2.mask", TensorProto.FLOAT, [None, None, 4]),
        ],
        [helper.make_tensor_value_info("y/out", TensorProto.FLOAT, ["rows", "length", 4])],
        [numpy_helper.from_array(weights(w=(9, 4))["w"], "w")],
    )
    model = model_of(graph)
    helper.set_model_props(model, {"author": "us", "classes": "a,b", "graftkit.plan": "{}"})
    path = written(model, tmp_path)
    loaded = read(path)
    assert loaded.signature is not None
    assert loaded.signature.inputs == (
        Port("ids:0", "int64", ("rows", "length")),
        Port("2.mask", "float32", ("batch", "size_1", 4)),
    )
    assert loaded.signature.outputs == (Port("y/out", "float32", ("rows", "length", 4)),)
    assert loaded.signature.output == "y/out"
    assert loaded.metadata == {"author": "us", "classes": "a,b"}
    assert loaded.provenance["format"] == "onnx"
    inputs = {"ids:0": np.array([[1, 8, 0]]), "2.mask": np.ones((1, 3, 4), np.float32)}
    assert_same(outputs_of(loaded.model, inputs), expected(path, inputs))  # type: ignore[arg-type]


def test_metadata_that_are_no_text_are_read_as_far_as_they_are(tmp_path: Path) -> None:
    model = model_of(graph_of([node("Relu", ["x"], ["y"])], {}, ROWS))
    helper.set_model_props(model, {"keyy": "text"})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString().replace(b"keyy", b"key\xff"))
    assert read(tmp_path / "model.onnx").metadata == {"key\ufffd": "text"}


def test_outputs_keep_their_order_however_they_are_made(tmp_path: Path) -> None:
    """Two outputs of one node, a value that is read further, one output twice, and the input itself."""
    nodes = [
        node("Split", ["x", "s"], ["b", "a"], axis=1),
        node("Relu", ["a"], ["c"]),
        node("Identity", ["c"], ["d"]),
        node("Identity", ["x"], ["e"]),
        node("Identity", ["k"], ["f"]),
    ]
    values = {"s": i64(2, 4), "k": np.arange(3, dtype=np.float32)}
    check(model_of(graph_of(nodes, values, ROWS, ["a", "b", "c", "d", "e", "f"])), tmp_path)


def test_nodes_in_any_order_and_unused_ones(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["h"], ["y"]),
        node("NoSuchOperator", ["x"], ["unused"]),
        node("Gemm", ["x", "w"], ["h"]),
    ]
    path = written(model_of(graph_of(nodes, weights(w=(6, 3)), ROWS)), tmp_path)
    assert outputs_of(read(path).model, {"x": np.ones((2, 6), np.float32)})[0].shape == (2, 3)  # type: ignore[arg-type]


def test_functions_of_the_file_are_put_in_place(tmp_path: Path) -> None:
    inner = helper.make_function(
        "own", "Halved", ["a"], ["b"],
        [node("Constant", [], ["h"], value_float=0.5), node("Mul", ["a", "h"], ["b"])], [helper.make_opsetid("", 20)],
    )  # fmt: skip
    outer = helper.make_function(
        "own", "Quartered", ["a"], ["b"],
        [node("Halved", ["a"], ["h"], domain="own"), node("Halved", ["h"], ["b"], domain="own")],
        [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    model = model_of(graph_of([node("Quartered", ["x"], ["y"], domain="own")], {}, ROWS), functions=[inner, outer])
    model.opset_import.append(helper.make_opsetid("own", 1))
    check(model, tmp_path)


@pytest.mark.parametrize("version", [7, 9, 11, 13, 15, 17, 18, 20, 22, 24])
def test_every_opset_is_read(tmp_path: Path, version: int) -> None:
    axes: dict[str, Any] = {} if version >= 18 else {"axes": [2, 3]}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "b", "b", "b", "v"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("ReduceMean", ["r", "at"] if version >= 18 else ["r"], ["m"], keepdims=0, **axes),
        node("Gemm", ["m", "u", "b"], ["y"]),
    ]
    values = weights(w=(4, 3, 3, 3), b=(4,), u=(4, 4)) | {"v": np.ones(4, np.float32)}
    if version >= 18:
        values["at"] = i64(2, 3)
    check(model_of(graph_of(nodes, values, {"x": ("n", 3, 8, 8)}), version), tmp_path)


# ── a batch that the exporter fixed ──────────────────────────────────────────────────────────────


def fixed(rows: int, to: np.ndarray, wide: int) -> ModelProto:
    nodes = [node("Reshape", ["x", "to"], ["f"]), node("Gemm", ["f", "w"], ["y"])]
    return model_of(graph_of(nodes, weights(w=(wide, 3)) | {"to": to}, {"x": (rows, 4, 6)}))


@pytest.mark.parametrize(
    ("rows", "to", "wide"), [(1, i64(1, 24), 24), (1, i64(1, -1), 24), (3, i64(3, 24), 24), (2, i64(8, 6), 6)]
)
def test_a_fixed_batch_is_freed(tmp_path: Path, rows: int, to: np.ndarray, wide: int) -> None:
    path = written(fixed(rows, to, wide), tmp_path)
    loaded = read(path)
    assert loaded.warnings == (FREED.format(rows=rows),)
    assert loaded.signature is not None
    assert loaded.signature.inputs[0].shape == ("batch", 4, 6)
    parts = [np.random.default_rng(i).normal(size=(rows, 4, 6)).astype(np.float32) for i in range(3)]
    right = [np.concatenate([expected(path, {"x": part})[0] for part in parts])]
    together = {"x": np.concatenate(parts)}
    assert_same(outputs_of(loaded.model, together), right)  # type: ignore[arg-type]
    program = traced(loaded.model, together, [True])  # type: ignore[arg-type]
    assert_same(outputs_of(program.module(check_guards=False), together), right)


def test_a_batch_whose_rows_mix_stays_fixed(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", ["x", "at"], ["m"]), node("Sub", ["x", "m"], ["y"])]
    path = written(model_of(graph_of(nodes, {"at": i64(0)}, {"x": (2, 6)})), tmp_path)
    loaded = read(path)
    assert loaded.warnings == (KEPT.format(rows=2),)
    assert loaded.signature is not None
    assert loaded.signature.inputs[0].shape == (2, 6)
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)}
    assert_same(outputs_of(loaded.model, inputs), expected(path, inputs))  # type: ignore[arg-type]


def test_a_class_token_of_one_row_serves_all(tmp_path: Path) -> None:
    nodes = [node("Concat", ["token", "x"], ["y"], axis=1, name="join")]
    path = written(model_of(graph_of(nodes, weights(token=(1, 1, 6)), {"x": (1, 4, 6)})), tmp_path)
    loaded = read(path)
    assert loaded.warnings == (FREED.format(rows=1),)
    assert parameters(loaded.model) == ["join.weight"]
    assert outputs_of(loaded.model, {"x": np.ones((3, 4, 6), np.float32)})[0].shape == (3, 5, 6)  # type: ignore[arg-type]


# ── tensors in other files ───────────────────────────────────────────────────────────────────────


def apart(folder: Path, location: str, **told: int) -> Path:
    """A model whose weight is said to lie in another file."""
    model = model_of(graph_of([node("Gemm", ["x", "w"], ["y"])], weights(w=(6, 3)), ROWS))
    tensor = model.graph.initializer[0]
    set_external_data(tensor, location, **told)
    tensor.ClearField("raw_data")
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_tensors_beside_the_model_are_read(tmp_path: Path) -> None:
    numbers = weights(w=(6, 3))["w"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"1234" + numbers.tobytes())
    path = apart(tmp_path, "sub/w.bin", offset=4, length=72)
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(read(path).model, {"x": x})[0], x @ numbers, rtol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("location", ["../secret", "sub/../../secret", "ABSOLUTE", "link", "linked/secret", "", "."])
def test_tensors_elsewhere_are_not_read(tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(72))
    folder = tmp_path / "model"
    path = apart(folder, str(secret) if location == "ABSOLUTE" else location)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    opened: list[str] = []
    original = Path.open

    def noted(self: Path, *args: Any, **keywords: Any) -> Any:
        opened.append(str(self.resolve()))
        return original(self, *args, **keywords)

    monkeypatch.setattr(Path, "open", noted)
    refusal(path)
    assert str(secret) not in opened


@pytest.mark.parametrize("told", [{"offset": 1}, {"length": 71}, {"offset": -1}, {"offset": 2**62}])
def test_a_data_file_that_does_not_fit_is_refused(tmp_path: Path, told: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(72))
    assert "does not hold" in refusal(apart(tmp_path, "w.bin", **told))


# ── files that are refused ───────────────────────────────────────────────────────────────────────


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def linear(*nodes: Any, **values: Any) -> ModelProto:
    """x through the nodes to y."""
    return model_of(graph_of(nodes, weights(w=(6, 3)) | values, ROWS))


def nested(levels: int) -> ModelProto:
    """Branches within branches."""

    def branch(inner: Any, name: str) -> Any:
        return helper.make_graph([inner], name, [], [helper.make_tensor_value_info(inner.output[0], 1, None)])

    deep = node("Relu", ["x"], ["r"])
    for level in range(levels):
        other = branch(node("Relu", ["x"], [f"e{level}"]), "else")
        deep = node("If", ["c"], [f"o{level}"], then_branch=branch(deep, "then"), else_branch=other)
    deep.output[0] = "y"
    return model_of(graph_of([deep], {"c": np.array(True)}, ROWS))


def doubling(levels: int) -> ModelProto:
    """Functions that call the one before twice."""
    standard = [helper.make_opsetid("", 20)]
    made = [helper.make_function("own", "f0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], standard)]
    for i in range(1, levels):
        body = [node(f"f{i - 1}", [a], [b], domain="own") for a, b in (("a", "h"), ("h", "b"))]
        made.append(
            helper.make_function("own", f"f{i}", ["a"], ["b"], body, [*standard, helper.make_opsetid("own", 1)])
        )
    model = model_of(graph_of([node(f"f{levels - 1}", ["x"], ["y"], domain="own")], {}, ROWS), functions=made)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def endless() -> ModelProto:
    """A function that calls itself."""
    made = helper.make_function(
        "own", "f", ["a"], ["b"], [node("f", ["a"], ["b"], domain="own")], [helper.make_opsetid("own", 1)]
    )
    return model_of(graph_of([node("f", ["x"], ["y"], domain="own")], {}, ROWS), functions=[made])


def changed(model: ModelProto, change: Callable[[ModelProto], object]) -> ModelProto:
    change(model)
    return model


GEMM = node("Gemm", ["x", "w"], ["y"], name="head")


def tensor(**fields: Any) -> Callable[[], ModelProto]:
    """A model whose one tensor says something else of itself; sizes are added to those that it has."""

    def change(model: ModelProto) -> None:
        held = model.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                held.dims[:] = value
            else:
                setattr(held, name, value)

    return lambda: changed(linear(GEMM), change)


def with_input(kind: Callable[[Any], object]) -> Callable[[], ModelProto]:
    """A model whose input is of another kind."""
    return lambda: changed(linear(GEMM), lambda model: kind(model.graph.input[0].type))


def of_opset(version: int) -> Callable[[], ModelProto]:
    return lambda: changed(linear(GEMM), lambda model: setattr(model.opset_import[0], "version", version))


def without(field: str) -> Callable[[], ModelProto]:
    return lambda: changed(linear(GEMM), lambda model: model.ClearField(field))


def through(*nodes: Any, **values: Any) -> Callable[[], ModelProto]:
    return lambda: linear(*nodes, **values)


REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "another's operator": (
        through(node("Gelu", ["x"], ["y"], name="act", domain="com.microsoft")),
        "operator Gelu (node 'act') of com.microsoft",
    ),
    "an unknown operator": (through(node("Frobnicate", ["x"], ["y"], name="f1")), "Frobnicate (node 'f1')"),
    "an operator that torch does not have": (
        through(node("GRU", ["x", "a", "b"], ["y"], name="g", hidden_size=2), **weights(a=(1, 6, 6), b=(1, 6, 2))),
        "GRU (node 'g') is not converted: it resets before the product",
    ),
    "a product of one value": (through(node("MatMul", ["x"], ["y"], name="m")), "MatMul (node 'm') has 1 inputs"),
    "a function that is given too much": (
        lambda: changed(doubling(2), lambda m: m.graph.node[0].input.append("x")), "model.onnx: its functions cannot",
    ),
    "a cycle": (through(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), GEMM), "from itself"),
    "a missing value": (through(node("Gemm", ["x", "lost"], ["y"])), "reads 'lost', which is not there"),
    "a missing output": (through(node("Relu", ["x"], ["z"])), "the output 'y' is never made"),
    "a value made twice": (through(node("Relu", ["x"], ["y"]), GEMM), "makes 'y' twice"),
    "a node that makes an input": (through(node("Relu", ["x"], ["x"]), GEMM), "makes 'x' twice"),
    "two tensors of one name": (
        lambda: changed(linear(GEMM), lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "two things 'w'",
    ),
    "too few numbers": (tensor(dims=[7, 3]), "21 numbers, and there are 18"),
    "terabytes": (tensor(dims=[6, 3, 2**39]), "numbers, and there are 18"),
    "absurd sizes": (tensor(dims=[2**62] * 3), "sizes that no tensor has"),
    "a negative size": (tensor(dims=[-6, -3]), "sizes that no tensor has"),
    "half a number": (tensor(raw_data=bytes(71)), "numbers, and there are"),
    "an odd type": (tensor(data_type=99), "type 99"),
    "texts": (with_input(lambda kind: setattr(kind.tensor_type, "elem_type", 8)), "no tensor of numbers"),
    "a sequence": (
        with_input(lambda kind: kind.sequence_type.elem_type.tensor_type.SetInParent()), "no tensor of numbers",
    ),
    "sparse tensors": (lambda: changed(linear(GEMM), lambda m: m.graph.sparse_initializer.add()), "sparse tensors"),
    "no inputs": (lambda: changed(linear(GEMM), lambda m: m.graph.ClearField("input")), "no inputs"),
    "no graph": (without("graph"), "without a graph"),
    "no opset": (without("opset_import"), "which version"),
    "an old opset": (of_opset(3), "opset 3"),
    "a future opset": (of_opset(99), "opset 99"),
    "graphs within graphs": (lambda: nested(12), "graphs within graphs"),
    "functions that double": (lambda: doubling(60), "more than 100000 nodes"),
    "a function that calls itself": (endless, "calls itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    make, words = REFUSED[name]
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    assert words in refusal(tmp_path / "model.onnx")


def test_a_thousand_graphs_deep_does_not_crash(tmp_path: Path) -> None:
    """Written byte by byte: protobuf itself would not write it."""
    inner = b""
    for _ in range(3000):
        graph = b"\x0a" + _length(inner) + inner if inner else b""
        attribute = b"\x32" + _length(graph) + graph + b"\xa0\x01\x05"
        inner = b"\x2a" + _length(attribute) + attribute
    graph = b"\x0a" + _length(inner) + inner
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x0a\x3a" + _length(graph) + graph)
    assert "nests too deep" in refusal(tmp_path / "deep.onnx")


def _length(content: bytes) -> bytes:
    number, found = len(content), b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = linear(GEMM).SerializeToString()
    for cut in (1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.onnx").write_bytes(whole[:cut])
        refusal(tmp_path / "cut.onnx")


@pytest.mark.parametrize("name", [b"Gemm", b"head", b"weight", b"own.domain", b"rows", b"transB", b"outcome", b"part"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: bytes) -> None:
    """Protobuf reads them all the same, as bytes."""
    inner = node("part", ["x"], ["h"], domain="own.domain")
    last = node("Gemm", ["h", "weight"], ["outcome"], name="head", transB=0)
    body = helper.make_function(
        "own.domain", "part", ["x"], ["y"], [node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 20)]
    )
    rows = helper.make_tensor_value_info("x", 1, ["rows", 6])
    out = helper.make_tensor_value_info("outcome", 1, ["rows", 3])
    held = numpy_helper.from_array(np.ones((6, 3), np.float32), "weight")
    graph = helper.make_graph([inner, last], "g", [rows], [out], [held])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own.domain", 1)]
    whole = helper.make_model(graph, opset_imports=imports, functions=[body]).SerializeToString()
    (tmp_path / "good.onnx").write_bytes(whole)
    read(tmp_path / "good.onnx")
    (tmp_path / "net.onnx").write_bytes(whole.replace(name, b"\xff" + name[1:], 1))
    assert "net.onnx has a name that is no text" in refusal(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ConstantOfShape", ["big"], ["k"]), node("Add", ["x", "k"], ["y"])],
        [node("Expand", ["x", "big"], ["y"])],
        [node("Tile", ["x", "big"], ["y"])],
        [
            node("Range", ["zero", "last", "one"], ["k"]),
            node("Cast", ["k"], ["f"], to=1),
            node("Add", ["x", "f"], ["y"]),
        ],
        [node("Pad", ["x", "pads"], ["y"])],
        [node("OneHot", ["ids", "last", "both"], ["y"])],
    ],
)
def test_a_tensor_that_no_machine_could_hold_is_not_made(tmp_path: Path, nodes: list[Any]) -> None:
    values = {
        "big": i64(2**20, 2**20), "zero": np.array(0), "one": np.array(1), "last": np.array(2**40),
        "pads": i64(0, 0, 0, 2**40), "ids": i64(1, 2), "both": np.zeros(2, np.float32),
    }  # fmt: skip
    module: Any = read(written(linear(*nodes, **values), tmp_path)).model
    with pytest.raises(Exception, match="it makes a tensor of the sizes"):
        module(torch.zeros(1, 6))


def test_what_onnx2fx_converts_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **keywords: Any) -> Any:
        if name.startswith("onnx2fx"):
            raise ImportError(name)
        return original(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    assert read(written(linear(GEMM), tmp_path)).name == "model"
    with pytest.raises(RuntimeMissingError, match=r"graftkit\[onnx\]"):
        read(written(linear(node("Erf", ["x"], ["y"])), tmp_path))


def test_the_table_of_formats_reads_it(tmp_path: Path) -> None:
    path = written(linear(GEMM), tmp_path, "renamed.bin")
    assert load(SourceRequest(str(path))).provenance["format"] == "onnx"


# ── the steps before building, one by one ────────────────────────────────────────────────────────


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Callable[[ModelProto], Graph]]:
    def make(model: ModelProto) -> Graph:
        found, tensors = checked(written(model, tmp_path))
        return normalise(found, tensors, opset(found))

    yield make


def kinds(graph: Graph) -> list[str]:
    return [each.op_type for each in graph.nodes]


def test_each_step_does_its_part(graph: Callable[[ModelProto], Graph]) -> None:
    nodes = [
        node("Relu", ["m2"], ["y"]),
        node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
        node("Identity", ["x"], ["x2"]),
        node("Transpose", ["w"], ["t"]),
        node("Transpose", ["t"], ["t2"]),
        node("MatMul", ["x2", "t2"], ["m"]),
        node("Add", ["m", "c"], ["m2"]),
        node("Relu", ["x2"], ["lost"]),
    ]
    found = graph(linear(*nodes))
    assert kinds(found) == ["Linear", "Relu"]
    assert list(found.nodes[0].input) == ["x", "t2", "c"]
    assert torch.equal(found.tensors["t2"], found.tensors["w"])
    assert found.tensors["t2"].data_ptr() == found.tensors["w"].data_ptr()
    assert next(iter(STEPS)) == "constant nodes become tensors"


def test_a_product_that_is_read_twice_keeps_its_addition(graph: Callable[[ModelProto], Graph]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["a"]), node("Mul", ["m", "a"], ["y"])]
    assert kinds(graph(linear(*nodes, b=np.ones(3, np.float32)))) == ["MatMul", "Add", "Mul"]


def test_a_bias_of_another_width_keeps_its_addition(graph: Callable[[ModelProto], Graph]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    assert kinds(graph(linear(*nodes, b=np.ones((2, 1, 3), np.float32)))) == ["MatMul", "Add"]


def test_nothing_of_the_file_is_changed(tmp_path: Path) -> None:
    path = written(linear(node("Identity", ["x"], ["x2"]), node("Gemm", ["x2", "w"], ["y"])), tmp_path)
    before = path.read_bytes()
    read(path)
    assert path.read_bytes() == before
    assert onnx.load(path).graph.node[0].op_type == "Identity"
