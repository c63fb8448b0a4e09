"""Neurons that training killed are not in the file: through the real export, and what reads the file afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from graftkit import api, checking, folding, inspection, shipping, surgery
from graftkit.checking.locate import first_difference
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.runtimes import RUNTIMES

SAMPLE = Path(__file__).parents[2] / "sample_models" / "cnn.pt"
GRAFTS = (
    Graft("block2.conv", "full"),
    Graft("block3.conv", "context"),
    Graft("head", "full", (("activation", "relu"),)),
)


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    """The sample model with dendrites that speak; neurons 1 and 4 of its first block are zero, and nobody reads 2.

    Of its second block, and of the dendrite there, nobody reads 3 and 5.
    """
    rows = api.load_data("digits")
    found = surgery.empty(api.trace(api.load(SAMPLE, trust=True), rows.example(), dynamic="batch"))
    surgery.graft(found, GRAFTS, build_dendrite, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.dendrites.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        tensors = dict(found.base.named_parameters())
        tensors["block1.norm.weight"][[1, 4]] = 0
        tensors["block1.norm.bias"][[1, 4]] = 0
        tensors["block2.conv.weight"][:, 2] = 0
        found.at("block2.conv").get_parameter("cascade.0.drive.weight")[:, 2] = 0
        tensors["block3.conv.weight"][:, [3, 5]] = 0
    return found.eval()


@pytest.fixture(scope="module")
def proto(model: GraftedModel) -> onnx.ModelProto:
    return shipping.to_onnx(model)


def sizes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}


def test_they_are_not_in_the_file(model: GraftedModel, proto: onnx.ModelProto) -> None:
    found = sizes(proto)
    assert found["block1.conv.weight"][0] == 6 - 3
    assert found["block2.conv.weight"][:2] == found["block2.conv.dendrites.0.drive.weight"][:2] == (8 - 2, 6 - 3)
    assert found["block3.conv.weight"][:2] == (12, 8 - 2)
    inputs = torch.rand(5, 1, 8, 8)
    (given,) = RUNTIMES["onnxruntime"].open(proto.SerializeToString(), threads=1)({"input": inputs.numpy()})
    with torch.no_grad():
        wanted = model.outputs(inputs)[0].numpy()
    assert np.abs(given - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("layout", folding.LAYOUTS)
def test_every_layout_takes_what_is_left(model: GraftedModel, layout: str, tmp_path: Path) -> None:
    path = api.export(model, tmp_path / "model.onnx", layout=layout)
    assert max(api.verify(path, model).values()) <= 1e-5
    assert sizes(onnx.load(path))["block1.conv.weight"][0] == 3


def test_smaller_numbers_of_what_is_left(model: GraftedModel, tmp_path: Path) -> None:
    path = api.export(model, tmp_path / "model.onnx", rows=api.load_data("digits"), precision="int8", tolerance=1.0)
    shapes = {tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    assert (3, 1, 3, 3) in shapes and (6, 1, 3, 3) not in shapes


def test_what_is_shown_of_the_file_says_so(model: GraftedModel, proto: onnx.ModelProto) -> None:
    found = inspection.inspect_onnx(proto, folding.read_description(proto), name="model.onnx")
    told = (
        "neurons that were constant or that nobody read are not in the file: block1.conv (3 of 6), block2.conv (6 of 8)"
    )
    assert found.notes[-1] == told
    assert found.sites == inspection.inspect_grafted(model, {}).sites


def test_another_difference_is_still_found_at_its_site(model: GraftedModel, proto: onnx.ModelProto) -> None:
    inputs = {"input": torch.rand(2, 1, 8, 8)}

    def where(file: onnx.ModelProto) -> str | None:
        graph = shipping.building.fresh_graph(model)
        return first_difference(
            file, graph, inputs, lambda m: RUNTIMES["onnxruntime"].open(m, threads=1), tolerance=1e-4
        )

    assert where(proto) is None
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    weight = next(t for t in broken.graph.initializer if t.name == "block3.conv.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), weight.name))
    assert where(broken) == "block3.conv"


def test_a_comparison_is_of_outputs(model: GraftedModel, proto: onnx.ModelProto) -> None:
    session = RUNTIMES["reference"].open(proto.SerializeToString(), threads=1)
    batches = [(torch.rand(rows, 1, 8, 8),) for rows in (1, 3)]
    assert checking.compare(session, lambda batch: model.outputs(*batch), ("input",), batches) <= 1e-5
