"""Every precision in the table: the metric holds or nothing is shipped, and the file is still a plain graftkit file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import graftkit as gk
from graftkit import shipping, training
from graftkit.contracts import Data
from graftkit.core.errors import ExportError, MismatchError
from graftkit.model import GraftedModel
from graftkit.precisions import PRECISIONS
from graftkit.runtimes import RUNTIMES

OPSETS = (17, 25)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 16, 3, padding=1)
        self.wide = nn.Linear(256, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, image: Tensor) -> Tensor:
        hidden = torch.nn.functional.max_pool2d(torch.relu(self.conv(image)), 2)
        return self.head(torch.relu(self.wide(hidden.flatten(1))))


def rows_of(count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 4
    images = 0.3 * torch.randn(count, 2, 8, 8, generator=generator)
    for row, label in enumerate(labels):
        images[row, label % 2, 4 * (label // 2) :] += 0.5
    return TensorDataset(images, labels)


@pytest.fixture(scope="module")
def rows() -> Data:
    return Data(rows_of(300), rows_of(200), None, "classes", 4, "made")


@pytest.fixture(scope="module")
def model(rows: Data) -> GraftedModel:
    """A trained network with a dendrite at each site, all of which speak."""
    torch.manual_seed(0)
    traced = gk.trace(Net(), rows.example())
    grafted = gk.graft(traced, gk.make_plan(traced, dendrites=["conv=context", "linear=lowrank:rank=2"]))
    optimizer = torch.optim.Adam(grafted.parameters(), lr=3e-3)
    for epoch in range(4):
        for images, labels in training.batches(rows.train, 50, seed=epoch):
            optimizer.zero_grad()
            training.find_loss("cross_entropy")(grafted(images), labels).backward()
            optimizer.step()
    return grafted.eval()


def ship(model: GraftedModel, path: Path, rows: Data, name: str, **how) -> shipping.Smaller:
    metric = how.pop("metric", training.accuracy)
    return shipping.ship_smaller(model, path, rows, metric, precision=name, opset=how.pop("opset", 21), **how)


@pytest.fixture(scope="module", params=PRECISIONS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def full(model: GraftedModel, rows: Data, tmp_path_factory: pytest.TempPathFactory) -> shipping.Shipped:
    path, facts = tmp_path_factory.mktemp("full") / "full.onnx", {"source_sha256": "abc"}
    return shipping.ship(model, path, rows, opset=21, metric=training.accuracy, facts=facts)


@pytest.fixture(scope="module")
def small(name: str, full: shipping.Shipped, rows: Data) -> shipping.Smaller:
    return shipping.lower(full, full.path.with_name(f"{name}.onnx"), rows, training.accuracy, precision=name)


def test_the_metric_holds(name: str, small: shipping.Smaller, rows: Data) -> None:
    assert PRECISIONS[name].name == name and PRECISIONS[name].summary
    assert small.before > 0.9 and small.before - small.after <= shipping.TOLERANCE
    assert 0 < small.difference < 0.2 and small.latency > 0
    assert small.bytes_after == small.path.stat().st_size < small.bytes_before
    assert small.after == pytest.approx(shipping.runtime_metric(small.path, rows, training.accuracy))


@pytest.mark.parametrize("opset", OPSETS)
def test_the_file_is_a_plain_one(name: str, opset: int, model: GraftedModel, rows: Data, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    if opset < PRECISIONS[name].opset:
        with pytest.raises(ExportError, match=f"needs opset {PRECISIONS[name].opset} or newer; pass --opset"):
            ship(model, path, rows, name, opset=opset)
        return
    ship(model, path, rows, name, opset=opset)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""} and proto.producer_name == "graftkit"
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [opset]
    assert {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)} == {1}


def test_it_runs_at_any_batch(small: shipping.Smaller) -> None:
    run = RUNTIMES["onnxruntime"].open(small.path)
    images = rows_of(7).tensors[0]
    whole = run({"image": images.numpy()})[0]
    assert whole.shape == (7, 4) and whole.dtype == np.float32
    for count in (1, 2):
        np.testing.assert_allclose(run({"image": images[:count].numpy()})[0], whole[:count], rtol=1e-2, atol=2e-2)


def test_what_the_file_says_of_itself_survives(
    name: str, small: shipping.Smaller, full: shipping.Shipped, model: GraftedModel
) -> None:
    made, plain = onnx.load(small.path), onnx.load(full.path)
    facts = {entry.key: entry.value for entry in made.metadata_props}
    assert facts["graftkit.precision"] == name and facts["graftkit.source_sha256"] == "abc"
    assert json.loads(facts["graftkit.plan"]) == model.plan.to_json()
    assert gk.inspect(small.path).sites == gk.inspect(full.path).sites
    names = [node.name for node in made.graph.node]
    assert len(names) == len(set(names))
    marks = [
        {
            (entry.key, entry.value, node.name)
            for node in proto.graph.node
            for entry in node.metadata_props
            if entry.key.startswith("graftkit.")
        }
        for proto in (plain, made)
    ]
    assert marks[0] and marks[0] <= marks[1]


def test_what_costs_too_much_is_not_shipped(
    name: str, full: shipping.Shipped, model: GraftedModel, rows: Data, tmp_path: Path
) -> None:
    right = torch.cat([model(images) for images, _ in training.batches(rows.validation, 200)]).detach()

    def exact(outputs: Tensor, targets: Tensor) -> float:
        return -float((outputs - right).abs().max())

    (tmp_path / "small.onnx").write_bytes(b"earlier")
    with pytest.raises(
        MismatchError, match=f"{name} takes the validation metric from .* nothing was written"
    ) as caught:
        shipping.lower(replace(full, metric=0.0), tmp_path / "small.onnx", rows, exact, precision=name, tolerance=0.0)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    assert (tmp_path / "small.onnx").read_bytes() == b"earlier"


def test_weights_beside_the_file_are_refused(model: GraftedModel, rows: Data, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8 is for models that fit into one file"):
        ship(model, tmp_path / "small.onnx", rows, "int8", one_file=1000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_model_with_nothing_to_lower_is_refused(precision: str, rows: Data, tmp_path: Path) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4))

        def forward(self, image: Tensor) -> Tensor:
            return image.mean((1, 3))[:, ::2] * self.scale

    traced = gk.trace(Small(), rows.example())
    with pytest.raises(ExportError, match=f"{precision}: "):
        ship(gk.graft(traced), tmp_path / "small.onnx", rows, precision, tolerance=1.0)
    assert not list(tmp_path.iterdir())
