"""Shipping in smaller numbers: which rows are measured, what a metric may lose, and what is tried in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import graftkit as gk
from graftkit import shipping, training
from graftkit.contracts import Data, Session
from graftkit.core.errors import DataError, ExportError, MismatchError, RuntimeMissingError
from graftkit.core.table import Table
from graftkit.folding import open_onnx
from graftkit.precisions import PRECISIONS
from graftkit.runtimes import RUNTIMES
from graftkit.runtimes.described import Described, described
from graftkit.runtimes.sized import Sized
from graftkit.shipping.promises import allowed
from graftkit.shipping.smaller import feeds, ship_smaller
from graftkit.training.criteria import negative_mse


def values(count: int, *, scale: float = 1.0) -> TensorDataset:
    inputs = torch.linspace(-1, 1, count * 6).reshape(count, 6) * scale
    return TensorDataset(inputs, inputs[:, :2] * 3)


def data(count: int = 1000, **how) -> Data:
    return Data(values(count, **how), values(90, **how), None, "values", None, "made")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 2))
    return gk.graft(gk.trace(net, torch.randn(2, 6)))


@pytest.mark.parametrize(
    ("before", "tolerance", "most"), [(0.9, 0.005, 0.005), (0.0, 0.01, 0.01), (-4.0, 0.005, 0.02), (-4.0, 0.0, 0.0)]
)
def test_what_a_metric_may_lose(before: float, tolerance: float, most: float) -> None:
    assert allowed(before, tolerance) == pytest.approx(most)


def test_feeds_are_training_rows_spread_over_all(model) -> None:
    rows = data(1000)
    signature = model.traced.signature
    found = list(feeds(rows, signature))
    name = signature.input_names[0]
    assert [len(feed[name]) for feed in found] == [64] * 8
    first = np.concatenate([feed[name] for feed in found])[:, 0]
    every = rows.train.tensors[0][:, 0].numpy()
    assert set(first) <= set(every) and (np.diff(first) > 0).all()
    assert first[0] == every[0] and first[-1] > np.quantile(every, 0.99)


def test_few_rows_and_loaders_are_taken_as_they_are(model) -> None:
    signature, name = model.traced.signature, model.traced.signature.input_names[0]
    assert [len(feed[name]) for feed in feeds(data(70), signature)] == [64, 6]
    loader = DataLoader(values(50), batch_size=20)
    found = list(feeds(Data(loader, values(9), None, "values", None, "made"), signature))
    assert [len(feed[name]) for feed in found] == [20, 20, 10]


def test_int8_leaves_the_costly_in_fp32_until_the_metric_holds(model, tmp_path: Path) -> None:
    rows = data()
    whole = gk.export(model, tmp_path / "full.onnx", rows=rows)
    right = torch.cat([model(inputs) for inputs, _ in training.batches(rows.validation, 90)]).detach()

    def closeness(outputs: Tensor, targets: Tensor) -> float:
        return 1 - float(((outputs - right) ** 2).mean().sqrt() / right.std())

    forms = PRECISIONS["int8"].lower(onnx.load(whole), list(feeds(rows, open_onnx(whole).signature())))
    counts = [sum(node.op_type == "QuantizeLinear" for node in form.model.graph.node) for form in forms]
    assert len(counts) == 2 and counts[0] > counts[1] > 0
    plain = ship_smaller(model, tmp_path / "a.onnx", rows, closeness, precision="int8", tolerance=1.0)
    assert not any("left in fp32" in note for note in plain.notes)
    lost = plain.before - plain.after
    helped = ship_smaller(model, tmp_path / "b.onnx", rows, closeness, precision="int8", tolerance=0.98 * lost)
    assert helped.notes[0].startswith("left in fp32, where whole numbers cost the most: ")
    assert helped.before - helped.after < lost


def test_half_precision_that_overflows_is_refused(tmp_path: Path) -> None:
    net = nn.Linear(6, 2)
    with torch.no_grad():
        net.weight.fill_(6e4)
    model = gk.graft(gk.trace(net, torch.randn(2, 6)))
    with pytest.raises(ExportError, match=r"fp16: .* gives 1\.\d+e\+06, and half precision ends at 65504; choose bf16"):
        ship_smaller(model, tmp_path / "a.onnx", data(scale=5.0), training.find_metric("r2"), precision="fp16")
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_become_smaller_says_so(tmp_path: Path) -> None:
    model = gk.graft(gk.trace(nn.Linear(6, 2), torch.randn(2, 6)))
    found = ship_smaller(model, tmp_path / "a.onnx", data(), lambda outputs, targets: 1.0, precision="int8")
    assert found.bytes_after > found.bytes_before and "no smaller than in fp32" in found.notes[-1]


def test_a_metric_that_is_no_number_ships_nothing(model, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="nothing was written"):
        ship_smaller(model, tmp_path / "a.onnx", data(), lambda outputs, targets: math.nan, precision="fp16")
    assert not list(tmp_path.iterdir())


def test_a_program_exports_with_the_usual_metric(model, tmp_path: Path) -> None:
    path = gk.export(model, tmp_path / "a.onnx", rows=data(), precision="fp16", metric="negative_mse")
    assert path == tmp_path / "a.onnx" and any(t.data_type == t.FLOAT16 for t in onnx.load(path).graph.initializer)
    with pytest.raises(DataError, match="pass rows"):
        gk.export(model, tmp_path / "b.onnx", precision="int8")
    with pytest.raises(ExportError, match=r"unknown precision 'int7'; there are fp16, bf16, int8, int4"):
        gk.export(model, tmp_path / "b.onnx", rows=data(), precision="int7")
    assert [each.name for each in tmp_path.iterdir()] == ["a.onnx"]


def test_int4_gives_no_name_twice() -> None:
    """A site's Gemm becomes a product and an Add, where its dendrites have an Add already."""
    weight, bias = np.random.default_rng(0).random((64, 64), np.float32), np.ones(64, np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="net/Gemm", transB=1),
        helper.make_node("Add", ["a", "x"], ["y"], name="net/Add"),
    ]
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "made", ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (form,) = PRECISIONS["int4"].lower(model, [])
    names = [node.name for node in form.model.graph.node]
    assert len(names) == len(set(names)) and {"net/Gemm", "net/Add"} <= set(names)
    x = np.random.default_rng(1).random((3, 64), np.float32)
    (found,) = RUNTIMES["onnxruntime"].open(form.model.SerializeToString())({"x": x})
    right = x @ weight.T + bias + x
    assert 0 < np.abs(found - right).max() / right.max() < 0.05


@dataclass(frozen=True)
class Odd:
    """onnxruntime, but for outputs that are so much larger."""

    factor: float
    name: ClassVar[str] = "odd"

    def version(self) -> str:
        return "1"

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Session:
        session = RUNTIMES["onnxruntime"].open(model, threads=threads)

        class Larger:
            seconds, close = session.seconds, session.close

            def __call__(_, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
                return [self.factor * output for output in session(inputs)]

        return Larger()


@pytest.mark.parametrize("factor", [1.01, 1.5, math.nan])
def test_a_runtime_is_right_in_smaller_numbers_where_it_is_about_as_far_off_as_onnxruntime(
    factor: float, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gk.export(model, tmp_path / "a.onnx", rows=data(), precision="int8", metric=negative_mse, tolerance=1.0)
    more = Table("runtime", {**RUNTIMES, "odd": Odd(factor)}, RuntimeMissingError)
    for module in ("verifying", "runtime_checks"):
        monkeypatch.setattr(f"graftkit.shipping.{module}.RUNTIMES", more)
    how = {"metric_tolerance": 1e9}
    plain, odd = shipping.check_runtimes(path, model, data(), negative_mse, ["onnxruntime", "odd"], **how)
    assert plain.trouble is None and plain.difference is not None and 1e-4 < plain.difference < 0.1
    if factor == 1.01:
        assert odd.trouble is None
        assert set(gk.verify(path, model, data(), runtimes=("odd",), metric=negative_mse, **how)) == {"odd"}
        return
    wrong = "odd gives outputs that " + ("differ by" if factor == 1.5 else "are infinite or no numbers")
    assert odd.trouble is not None and odd.trouble.startswith(wrong)
    assert (odd.metric is None) == math.isnan(factor)
    with pytest.raises(MismatchError, match=f"^{wrong}"):
        gk.verify(path, model, data(), runtimes=("onnxruntime", "odd"), metric=negative_mse, **how)


@dataclass(frozen=True)
class Late(Odd):
    """It finds that it cannot load the file once it is asked something."""

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Session:
        def refuse(file: Described) -> Session:
            raise ExportError("late does not load the file")

        return Sized(described(model, "late"), refuse)


def test_a_runtime_that_finds_late_that_it_does_not_load_a_file(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gk.export(model, tmp_path / "a.onnx")
    monkeypatch.setattr(
        "graftkit.shipping.runtime_checks.RUNTIMES", Table("runtime", {"odd": Late(1.0)}, RuntimeMissingError)
    )
    (found,) = shipping.check_runtimes(path, model, data(), negative_mse, ["odd"])
    assert not found.loads and found.metric is None and found.latency is None
    assert found.trouble is not None and found.trouble.endswith(": late does not load the file")


class FourRows(nn.Module):
    """Takes four rows, no more and no fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).reshape(4, 8))


def test_a_model_of_a_fixed_number_of_rows_is_judged_in_parts(tmp_path: Path) -> None:
    """90 validation rows: 22 times four, and two that are left over."""
    torch.manual_seed(0)
    net, rows = FourRows(), data()
    model = gk.graft(gk.trace(net, torch.randn(4, 6), dynamic="none"))
    inputs, targets = rows.validation.tensors
    with torch.no_grad():
        wanted = negative_mse(net.last(torch.tanh(net.first(inputs))), targets)
    how = {"precision": "fp16", "metric": negative_mse}
    path = gk.export(model, tmp_path / "small.onnx", rows=rows, **how)
    assert shipping.runtime_metric(path, rows, negative_mse) == pytest.approx(wanted, rel=1e-2)
    (found,) = shipping.check_runtimes(path, model, rows, negative_mse, ["onnxruntime"])
    assert found.trouble is None and found.metric == pytest.approx(wanted, rel=1e-2)
    assert f"{wanted:.4f} less" in str(found.note)
