"""Every target in the table: data that make sense, and a check that names nodes and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from graftkit.core.errors import RuntimeMissingError
from graftkit.targets import TARGETS, Target, check

FLOAT = TensorProto.FLOAT
WITH_LISTS = [name for name, target in TARGETS.items() if not target.refuses]
STANDARD = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""}
NEWER = {"CumProd"}  # than the onnx here may be


def model_of(
    *nodes: onnx.NodeProto,
    shape: Sequence[int | str] = ("n", 3, 8, 8),
    kind: int = FLOAT,
    opset: int = 19,
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """A file that reads `x` and gives `y`."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    domains = {node.domain for node in nodes} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def node(operator: str, *inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    domain = attributes.pop("domain", "")
    return helper.make_node(operator, inputs or ("x",), [output], name=f"net/{operator}", domain=domain, **attributes)


@pytest.mark.parametrize("name", TARGETS)
def test_the_data_make_sense(name: str) -> None:
    target = TARGETS[name]
    assert target.name == name and target.title and target.instead
    assert bool(target.refuses) != bool(target.operators)
    assert target.operators - NEWER <= STANDARD
    assert set(target.limits) <= target.operators
    assert set(target.types) <= set(TensorProto.DataType.keys())
    for operator, limit in target.limits.items():
        assert limit.instead, operator
        known = {
            attribute
            for schema in defs.get_all_schemas_with_history()
            if schema.name == operator
            for attribute in schema.attributes
        }
        assert set(limit.values) <= known, operator


@pytest.mark.parametrize("name", WITH_LISTS)
def test_nothing_is_known_against_a_plain_network(name: str) -> None:
    weight, head = np.ones((4, 3, 3, 3), np.float32), np.ones((4, 2), np.float32)
    nodes = [
        node("Conv", "x", "w", output="a"),
        node("Relu", "a", output="b"),
        node("GlobalAveragePool", "b", output="c"),
        node("Flatten", "c", output="d"),
        node("Gemm", "d", "h"),
    ]
    assert check(model_of(*nodes, w=weight, h=head), TARGETS[name]) == ()


@pytest.mark.parametrize("name", WITH_LISTS)
@pytest.mark.parametrize("operator", ["StringNormalizer", "Gelu"])
def test_an_operator_that_is_not_listed_is_named_with_its_node(name: str, operator: str) -> None:
    target = TARGETS[name]
    found = check(model_of(node(operator), opset=19 if operator == "StringNormalizer" else 20), target)
    named = [finding for finding in found if finding.operator]
    if operator in target.operators:
        assert named == []
    else:
        assert [(f.node, f.operator, f.why) for f in named] == [
            (f"net/{operator}", operator, "not on its list of operators")
        ]
        assert named[0].instead == target.instead


@pytest.mark.parametrize("name", WITH_LISTS)
def test_an_operator_of_another_domain_is_found_inside_a_branch_too(name: str) -> None:
    inner = helper.make_graph(
        [helper.make_node("Fancy", ["x"], ["z"], name="net/Fancy", domain="com.example")],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("z")],
    )
    made = model_of(node("If", "c", then_branch=inner, else_branch=inner), c=np.array(True))
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    found = check(made, TARGETS[name])
    assert [finding.why for finding in found] == ["of the domain com.example, not the standard's"] * 2


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.refuses])
def test_what_reads_no_onnx_says_what_to_do(name: str) -> None:
    (found,) = check(model_of(node("Relu")), TARGETS[name])
    assert not found.node and "no ONNX file" in found.why and "torch.export" in found.instead


@pytest.mark.parametrize(("name", "opset"), [("tensorrt", 21), ("tensorrt", 8), ("rknn", 20)])
def test_an_opset_beyond_the_list_is_told(name: str, opset: int) -> None:
    (found,) = check(model_of(node("Relu"), opset=opset), TARGETS[name])
    assert found.why.startswith(f"opset {opset}; its list is of") and found.instead.startswith("export with --opset")


ONE = np.ones((2, 3, 3), np.float32)
SCALE = np.array(0.1, np.float32)
BEYOND = {
    "ranks": (
        "tensorrt",
        model_of(node("MaxPool", kernel_shape=[2]), shape=(1, 3, 8)),
        "3 dimensions; it takes 4 or 5",
    ),
    "a free rank": ("tflite", model_of(node("Conv", "x", "w"), shape=("n", 3, 8), w=ONE), "3 dimensions; it takes 4"),
    "types": ("tensorrt", model_of(node("Relu"), kind=TensorProto.UINT16), "numbers of type UINT16"),
    "zero points": (
        "tensorrt",
        model_of(node("QuantizeLinear", "x", "s", "z"), s=SCALE, z=np.array(3, np.int8)),
        "its input 2 (z) is not zero",
    ),
    "attributes": (
        "tensorrt",
        model_of(node("Resize", "x", "", "s", mode="cubic"), s=np.array([1, 1, 2, 2], np.float32)),
        "mode=cubic; it takes nearest or linear",
    ),
    "a batch": ("rknn", model_of(node("Softmax"), shape=(4, 8)), "a batch of 4; it takes 1"),
    "a weight that is computed": (
        "tflite",
        model_of(node("Relu", output="w"), node("Gemm", "x", "w"), shape=(3, 3)),
        "its input 1 (w) is not constant",
    ),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_is_beyond_a_limit_is_told(what: str) -> None:
    name, made, why = BEYOND[what]
    (found,) = check(made, TARGETS[name])
    assert found.why.startswith(why) and found.node.startswith("net/") and found.instead


def test_what_is_within_the_limits_is_not_held_against_a_file() -> None:
    zero = np.array(0, np.int8)
    turned = [node("DequantizeLinear", "q", "s", "z", output="w"), node("Gemm", "x", "w")]
    fixed = model_of(*turned, shape=("n", 3), q=np.ones((3, 2), np.int8), s=SCALE, z=zero)
    assert check(fixed, TARGETS["tensorrt"]) == check(fixed, TARGETS["tflite"]) == ()
    assert check(model_of(node("Softmax"), shape=("n", 8)), TARGETS["rknn"]) == ()
    assert check(model_of(node("Softmax"), shape=(1, 8)), TARGETS["rknn"]) == ()


def test_a_type_that_there_is_not_is_told() -> None:
    found = check(model_of(node("Relu"), kind=99), TARGETS["tensorrt"])
    assert [finding.why for finding in found] == ["numbers of type 99, which it does not take"]


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(RuntimeMissingError, match=r"unknown target 'tensorr'; there are tensorrt, coreml"):
        TARGETS.find("tensorr")
    assert isinstance(TARGETS.find("rknn"), Target)
