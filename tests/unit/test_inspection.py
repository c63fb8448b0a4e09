"""The same sites from the live model, its file, and any other ONNX file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from graftkit import api, folding, inspection, surgery, tracing
from graftkit.core.errors import SourceError
from graftkit.core.records import EdgeRecord, Inspection
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return self.head(self.gru(hidden)[0][:, -1])


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    torch.manual_seed(0)
    model = surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 2, 5, 5),), name="net"))
    grafts = [Graft("conv", "context"), Graft("conv", "context"), Graft("conv", "full", neurons=(1, 2))]
    surgery.graft(model, [*grafts, Graft("head", "lowrank")], build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.fill_(0.5)
    model.silence("head")
    return model


@pytest.fixture(scope="module")
def proto(model: GraftedModel) -> onnx.ModelProto:
    return api.to_onnx(model)


def test_what_a_grafted_model_says(model: GraftedModel) -> None:
    found = inspection.inspect_grafted(model, {"conv": 0.25})
    conv, head = found.sites
    assert (conv.site, conv.operator, conv.kernel, conv.gain) == ("conv", "conv2d", (3, 3), 0.25)
    assert (conv.input_shape, conv.output_shape) == ((-1, 2, -1, -1), (-1, 4, -1, -1))
    assert (conv.parameters, conv.macs) == (76, 72 * 9)
    context, full = conv.dendrites
    assert (context.kind, context.count, context.neurons) == ("context", 2, 4)
    assert (full.kind, full.count, full.neurons) == ("full", 1, 2)
    assert full.strength == pytest.approx(0.5) and context.strength == pytest.approx(0.5)
    assert context.parameters == (4 * 4 + 4 + 4 * 4 + 4) * 2 + 4 and full.parameters == 76 // 2 + 2 + 2 * 2
    (silent,) = head.dendrites
    assert (silent.neurons, silent.strength, head.gain) == (0, 0.0, None)
    assert found.parameters == model.parameter_count() and found.macs == model.macs()
    assert [(skipped.site, skipped.operator) for skipped in found.skipped] == [("gru", "gru")]
    assert found.edges == (EdgeRecord("", "conv"), EdgeRecord("conv", "head"), EdgeRecord("head", ""))
    assert Inspection.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_file_says_the_same(model: GraftedModel, proto: onnx.ModelProto) -> None:
    live = inspection.inspect_grafted(model, {})
    found = inspection.inspect_onnx(proto, folding.read_description(proto), name="model.onnx")
    assert found == replace(live, name="model.onnx", format="onnx")


def test_a_traced_model_has_no_dendrites(model: GraftedModel) -> None:
    plain = inspection.inspect_traced(model.traced)
    assert all(not site.dendrites for site in plain.sites)
    assert plain.parameters == sum(p.numel() for p in model.base.parameters())
    assert any("multiply-adds count" in note for note in plain.notes)


def test_dendrites_that_the_graph_lacks_are_not_claimed(model: GraftedModel, proto: onnx.ModelProto) -> None:
    stripped = onnx.ModelProto()
    stripped.CopyFrom(proto)
    for node in stripped.graph.node:
        del node.metadata_props[:]
    found = inspection.inspect_onnx(stripped, folding.read_description(proto), name="model.onnx")
    conv, head = found.sites
    assert conv.dendrites == () and head.dendrites  # a silent one is not looked for
    assert any("the metadata names dendrites at conv, but the graph has none there" in note for note in found.notes)


@pytest.mark.parametrize("facts", [{"inspection": {}}, {"inspection": []}, {"inspection": {"sites": [{}]}}])
def test_broken_facts_are_refused(proto: onnx.ModelProto, facts: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="description in the file's metadata is broken"):
        inspection.inspect_onnx(proto, facts, name="model.onnx")


def foreign() -> onnx.ModelProto:
    weights = {"w": torch.randn(4, 2, 3, 3), "b": torch.randn(4), "u": torch.randn(3, 2, 2, 2), "v": torch.randn(4, 5)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], name="first"),
        helper.make_node("ConvTranspose", ["x", "u"], ["t"], strides=[2, 2]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "v"], ["y"], name="last"),
    ]
    tensors = [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    tensors[2] = numpy_helper.from_array(torch.randn(2, 3, 2, 2).numpy(), "u")
    tensors.append(numpy_helper.from_array(torch.tensor([2, 3]).numpy(), "axes"))
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 2, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 5))],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_foreign_file() -> None:
    found = inspection.inspect_onnx(foreign(), {}, name="other.onnx")
    assert [(site.site, site.operator) for site in found.sites] == [
        ("first", "conv2d"), ("ConvTranspose_1", "conv_transpose2d"), ("last", "linear"),
    ]  # fmt: skip
    first, up, last = found.sites
    assert (first.parameters, first.macs, first.kernel) == (76, 72 * 9, (3, 3))
    assert (first.input_shape, first.output_shape) == ((-1, 2, 5, 5), (-1, 4, 3, 3))
    assert (up.parameters, up.macs) == (24, 24 * 25)
    assert (last.parameters, last.macs) == (20, 20)
    assert EdgeRecord("first", "last") in found.edges and EdgeRecord("last", "") in found.edges
    assert EdgeRecord("", "first") in found.edges and found.format == "onnx"
    assert "not written by graftkit" in found.notes[0]


def test_our_file_without_its_facts_has_the_same_weights(proto: onnx.ModelProto, model: GraftedModel) -> None:
    found = inspection.inspect_onnx(proto, {}, name="model.onnx")
    by_name = {site.site: site for site in found.sites}
    conv = by_name["conv/Conv"]
    live = inspection.inspect_grafted(model, {}).sites[0]
    assert (conv.operator, conv.parameters, conv.kernel) == (live.operator, live.parameters, live.kernel)
    assert conv.macs * 9 == live.macs and len(found.notes) > 1  # the file does not say 3x3


@pytest.mark.parametrize("kind", [99, -1, 2**31 - 1])
def test_a_tensor_of_a_type_that_there_is_not_is_refused(proto: onnx.ModelProto, kind: int) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    del broken.metadata_props[:]
    broken.graph.initializer[0].data_type = kind
    shape = onnx.helper.make_node("Reshape", [broken.graph.input[0].name, broken.graph.initializer[0].name], ["seen"])
    broken.graph.node.append(shape)
    try:
        found = inspection.inspect_onnx(broken, {}, name="net.onnx")
    except SourceError as error:
        assert "net.onnx is not a consistent ONNX graph" in str(error) and "\n" not in str(error)
    else:
        assert found.sites


def test_weights_in_smaller_numbers_are_weights() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
            helper.make_node("Cast", ["h"], ["v"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Gemm", ["m", "v"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2))],
        [
            numpy_helper.from_array(np.ones((4, 3), np.int8), "q"),
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.ones((3, 2), np.float16), "h"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    found = inspection.inspect_onnx(model, {}, name="small")
    assert found.macs == 4 * 3 + 3 * 2 and len(found.sites) == 2
    assert found.parameters == 4 * 3 + 3 * 2  # a scale is none
