"""Trees and graphs of any shape, made by hypothesis, which finds the smallest that a reader cannot take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

from .case import Place
from .formats import FORMATS
from .pool import Worker
from .trees import codes
from .zips import replaced

_FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_NUMBERS = st.one_of(st.integers(-1, 9), st.sampled_from([2**31, 2**40, 2**62, 2**63, 2**64, -(2**63)]), st.floats())
_TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(codes(Place(Path("case")))))
_TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=12,
)
_TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "I64", "BOOL", "F8_E5M2", "F4", "C64", ""]), _TREES),
        "shape": st.one_of(st.lists(_NUMBERS, max_size=3), _TREES),
        "data_offsets": st.one_of(st.lists(_NUMBERS, min_size=2, max_size=2), _TREES),
    },
)
_VALUES = st.sampled_from(["x", "y", "a", "b", "weight", "", "a\nb"])
_OPERATOR_NAMES = "Conv Gemm MatMul Add Relu Reshape Expand ConstantOfShape Tile Transpose Split If Loop Q"
_OPERATORS = st.sampled_from(_OPERATOR_NAMES.split())
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["axis", "perm", "kernel_shape", "pads", "group", "transB", "value", "to"]),
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(-2, 2**40), min_size=1, max_size=3), st.just("x")),
    max_size=2,
)


@st.composite
def _nodes(draw: st.DrawFn) -> NodeProto:
    names = st.lists(_VALUES, max_size=3)
    node = helper.make_node(draw(_OPERATORS), draw(names), draw(names))
    node.attribute.extend(helper.make_attribute(key, value) for key, value in draw(_ATTRIBUTES).items())
    return node


def _read(worker: Worker, name: str, folder: Path, content: bytes) -> None:
    path = folder / f"net{FORMATS[name].ending}"
    path.write_bytes(content)
    verdict = worker.again(name, path)
    assert verdict.outcome != "failed", verdict.why


@_FEW
@given(header=st.one_of(_TREES, st.dictionaries(_TEXTS, _TENSORS, max_size=3)))
def test_any_safetensors_header(worker: Worker, tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    _read(worker, "safetensors", tmp_path, len(text).to_bytes(8, "little") + text + bytes(64))


@_FEW
@given(nodes=st.lists(_nodes(), max_size=4), sizes=st.lists(st.integers(-1, 2**63 - 1), max_size=4))
def test_any_onnx_graph(worker: Worker, tmp_path: Path, nodes: list[NodeProto], sizes: list[int]) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in ("x", "y")]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 2], [1.0] * 4)
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], [weight])
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for name in ("onnx_inspect", "onnx"):
        if name in FORMATS:
            _read(worker, name, tmp_path, model.SerializeToString())


@_FEW
@given(
    tree=_TREES,
    key=st.sampled_from(
        ["nodes", "inputs", "outputs", "tensor_values", "sym_int_values", "module_call_graph", "signature"]
    ),
)
def test_any_tree_in_a_program(worker: Worker, tmp_path: Path, program: bytes, tree: Any, key: str) -> None:
    def change(old: bytes) -> bytes:
        found = json.loads(old)
        _put(found, key, tree)
        return json.dumps(found).encode()

    _read(worker, "pt2", tmp_path, replaced(program, "models/model.json", change))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("program")
    FORMATS["pt2"].originals(folder)
    return (folder / "0.pt2").read_bytes()


def _put(tree: Any, key: str, value: Any) -> None:
    """Put the value under every such key."""
    if isinstance(tree, dict):
        for each, below in tree.items():
            if each == key:
                tree[each] = value
            else:
                _put(below, key, value)
    elif isinstance(tree, list):
        for below in tree:
            _put(below, key, value)
