"""One model of two: whose answer a row gets, whatever is beside it, and what is computed and stored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import graftkit as gk
from graftkit.core.errors import ExportError
from graftkit.folding import ALL, gated, graphs_of
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES
from graftkit.shipping import build

ROWS = 24


def model_of(net: nn.Module, example: torch.Tensor, *, sites: Sequence[str] = ("*",)) -> GraftedModel:
    """With loud `full` dendrites."""
    torch.manual_seed(1)
    traced = gk.trace(net, example)
    model = gk.graft(traced, gk.make_plan(traced, dendrites="full", sites=sites))
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


class Two:
    """Both models, and their answers to some rows."""

    def __init__(self, model: GraftedModel, rows: np.ndarray, *, opset: int = 20) -> None:
        self.base, self.grafted = (
            build(model, opset=opset, dendrites=with_them).whole() for with_them in (False, True)
        )
        self.rows = rows
        (self.name,) = model.traced.signature.input_names
        self.without, self.with_them = (self.run(each, rows) for each in (self.base, self.grafted))
        self.confidence = torch.from_numpy(self.without).softmax(1).max(1).values.numpy()

    def run(self, model: onnx.ModelProto, rows: np.ndarray, runtime: str = "onnxruntime") -> np.ndarray:
        return RUNTIMES[runtime].open(model.SerializeToString(), threads=1)({self.name: rows})[0]


def images(count: int = ROWS) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2, 6, 6)).astype(np.float32)


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def two() -> Two:
    return Two(model_of(conv_net(), torch.randn(2, 2, 6, 6)), images())


@pytest.fixture(scope="module")
def middle(two: Two) -> tuple[onnx.ModelProto, np.ndarray]:
    """At a threshold that half of the rows stay below, and what each row has to be."""
    ordered = np.sort(two.confidence)
    threshold = float(ordered[ROWS // 2 - 1] + ordered[ROWS // 2]) / 2
    right = np.where(two.confidence[:, None] >= threshold, two.without, two.with_them)
    return gated(two.base, two.grafted, threshold), right


def test_each_row_is_the_answer_of_one_of_both(two: Two, middle) -> None:
    model, right = middle
    assert np.abs(two.without - two.with_them).max() > 0.1
    np.testing.assert_allclose(two.run(model, two.rows), right, atol=1e-6)
    assert (right == two.without).all(1).sum() == (right == two.with_them).all(1).sum() == ROWS // 2


@pytest.fixture(scope="module")
def session(middle):
    return RUNTIMES["onnxruntime"].open(middle[0].SerializeToString(), threads=1)


@settings(max_examples=60, deadline=None)
@given(chosen=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12))
def test_a_rows_answer_does_not_depend_on_its_neighbours(two: Two, middle, session, chosen: list[int]) -> None:
    found = session({two.name: two.rows[chosen]})[0]
    np.testing.assert_allclose(found, middle[1][chosen], atol=1e-6)


def test_a_row_that_is_no_number_takes_nothing_from_the_others(two: Two, middle, session) -> None:
    rows = two.rows.copy()
    rows[3] = np.nan
    found = session({two.name: rows})[0]
    others = [index for index in range(ROWS) if index != 3]
    np.testing.assert_allclose(found[others], middle[1][others], atol=1e-6)
    sure = np.flatnonzero(middle[1][:, 0] == two.without[:, 0])[:3]
    rows = np.concatenate([two.rows[sure], rows[3:4]])
    np.testing.assert_allclose(session({two.name: rows})[0][:3], middle[1][sure], atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 1.0, ALL])
def test_the_ends_are_exactly_the_two_models(two: Two, threshold: float) -> None:
    """In a runtime that computes each node as it stands; another fuses more of one graph than of the other."""
    assert two.confidence.max() < 1
    found = two.run(gated(two.base, two.grafted, threshold), two.rows, "reference")
    right = two.run(two.grafted if threshold else two.base, two.rows, "reference")
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("runtime", ["reference", "openvino", "tract"])
def test_other_runtimes_agree(two: Two, middle, runtime: str) -> None:
    np.testing.assert_allclose(two.run(middle[0], two.rows, runtime), middle[1], atol=1e-5)
    single = two.run(middle[0], two.rows[:1], runtime)
    np.testing.assert_allclose(single, middle[1][:1], atol=1e-5)


@pytest.mark.parametrize("opset", [17, 18, 21, 25])
def test_at_any_opset(opset: int) -> None:
    two = Two(model_of(conv_net(), torch.randn(2, 2, 6, 6)), images(4), opset=opset)
    threshold = float(np.median(two.confidence))
    found = gated(two.base, two.grafted, threshold)
    onnx.checker.check_model(found, full_check=True)
    right = np.where(two.confidence[:, None] >= np.float32(threshold), two.without, two.with_them)
    np.testing.assert_allclose(two.run(found, two.rows), right, atol=1e-6)
    assert [entry.version for entry in found.opset_import if entry.domain == ""] == [opset]


def test_names_are_there_once(middle) -> None:
    graphs = list(graphs_of(middle[0].graph))
    assert len(graphs) == 3
    values = [name for graph in graphs for node in graph.node for name in node.output]
    values += [tensor.name for graph in graphs for tensor in graph.initializer]
    names = [node.name for graph in graphs for node in graph.node]
    assert max(Counter(values).values()) == max(Counter(names).values()) == 1


def test_what_both_compute_is_computed_once_and_stored_once(two: Two, middle) -> None:
    outer, unsure, sure = graphs_of(middle[0].graph)
    gate = ("Softmax", "ReduceMax", "GreaterOrEqual", "Cast", "ReduceMin", "Cast", "If")
    kinds = [node.op_type for node in outer.node]
    assert kinds == [*(node.op_type for node in two.base.graph.node), *gate]
    assert [node.op_type for node in sure.node] == ["Identity"]
    mine = Counter(node.op_type for node in unsure.node)
    # what reads the input alone is outside: the first convolution, whose dendrites are not
    assert mine["Conv"] == 3 and Counter(n.op_type for n in two.grafted.graph.node)["Conv"] == 4
    stored = [
        numpy_helper.to_array(tensor).tobytes()
        for graph in (outer, unsure)
        for tensor in graph.initializer
        if np.prod(tensor.dims) > 1
    ]
    assert len(stored) == len(set(stored))
    larger = gated(two.base, two.grafted, 0.5).ByteSize() - two.grafted.ByteSize()
    assert larger < sum(len(tensor.raw_data) for tensor in two.base.graph.initializer) / 2 + 6000


def test_late_dendrites_leave_all_before_them_outside() -> None:
    two = Two(model_of(conv_net(), torch.randn(2, 2, 6, 6), sites=("6",)), images(5))
    _, unsure, _ = graphs_of(gated(two.base, two.grafted, 0.5).graph)
    kinds = Counter(node.op_type for node in unsure.node)
    assert kinds["Conv"] == 0 and kinds["Gemm"] == 2  # the dendrites, and what reads what they add to


def test_marks_stay_with_their_nodes(two: Two, middle) -> None:
    outer, unsure, _ = graphs_of(middle[0].graph)

    def sites(graph: onnx.GraphProto, *, dendrites: bool) -> set[str]:
        found = [{entry.key: entry.value for entry in node.metadata_props} for node in graph.node]
        return {each["graftkit.site"] for each in found if "graftkit.site" in each and
                ("graftkit.dendrite" in each) == dendrites}  # fmt: skip

    assert sites(outer, dendrites=False) == {"0", "3", "6", "8"} and not sites(outer, dendrites=True)
    assert sites(unsure, dendrites=True) == sites(two.grafted.graph, dendrites=True)


def with_an_if(*, dendrites: bool) -> onnx.ModelProto:
    """[n, 4] to [n, 3]: an If of its own looks at all rows; its branches read values and weights outside of them."""
    node = helper.make_node
    answer = helper.make_tensor_value_info
    branches = [
        helper.make_graph([node(kind, ["h"], ["i"]), node("Mul", ["i", "s"], ["o"])], kind, [], [answer("o", 1, None)])
        for kind in ("Tanh", "Neg")
    ]
    nodes = [
        node("MatMul", ["x", "w"], ["h0"]),
        node("Tanh", ["x"], ["a"]),
        node("MatMul", ["a", "d"], ["b"]),
        node("Add", ["h0", "b"], ["h"]) if dendrites else node("Relu", ["h0"], ["h"]),
        node("ReduceSum", ["h"], ["t"], keepdims=0),
        node("Greater", ["t", "zero"], ["c"]),
        node("If", ["c"], ["f"], then_branch=branches[0], else_branch=branches[1]),
        node("MatMul", ["f", "v"], ["y"]),
    ]
    random = np.random.default_rng(0)
    held = {name: random.normal(size=(4, size)) for name, size in (("w", 4), ("d", 4), ("v", 3))}
    held |= {"s": np.array([2.0, 3.0, 4.0, 5.0]), "zero": np.zeros(())}
    graph = helper.make_graph(
        nodes if dendrites else [each for each in nodes if each.output[0] not in "ab"],
        "made",
        [answer("x", TensorProto.FLOAT, ["n", 4])],
        [answer("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_if_of_the_networks_own(sign: int) -> None:
    base, grafted = (with_an_if(dendrites=which) for which in (False, True))
    rows = (sign * np.abs(np.random.default_rng(1).normal(size=(6, 4)))).astype(np.float32)
    without, with_them = (RUNTIMES["onnxruntime"].open(m.SerializeToString())({"x": rows})[0] for m in (base, grafted))
    confidence = torch.from_numpy(without).softmax(1).max(1).values.numpy()
    threshold = float(np.median(confidence)) + 1e-6
    right = np.where(confidence[:, None] >= np.float32(threshold), without, with_them)
    model = gated(base, grafted, threshold)
    assert len(list(graphs_of(model.graph))) == 7
    np.testing.assert_allclose(
        RUNTIMES["onnxruntime"].open(model.SerializeToString())({"x": rows})[0], right, atol=1e-6
    )


def test_a_network_without_dendrites_of_its_own_is_refused(two: Two) -> None:
    with pytest.raises(ExportError, match="computes the same without its dendrites: there is nothing to gate"):
        gated(two.base, two.base, 0.5)


def test_models_that_do_not_fit_together_are_refused(two: Two) -> None:
    other = onnx.ModelProto.FromString(two.base.SerializeToString())
    other.graph.input[0].name = "elsewhere"
    with pytest.raises(ExportError, match="has other inputs, outputs or operators than with them"):
        gated(other, two.grafted, 0.5)
    several = onnx.ModelProto.FromString(two.grafted.SerializeToString())
    several.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    with pytest.raises(ExportError, match="a gate hands on one output, and the file has 2"):
        gated(two.base, several, 0.5)
