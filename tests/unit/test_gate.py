"""Shipping with a gate: what is refused, which threshold is chosen, and how such a file is judged afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import graftkit as gk
from graftkit import shipping, training
from graftkit.benching import bench, read_file
from graftkit.contracts import Data
from graftkit.core.errors import DataError, ExportError, MismatchError, RuntimeMissingError, SourceError
from graftkit.core.gates import GateReport, GateTrial
from graftkit.core.ratio import Ratio
from graftkit.core.runtime_checks import RuntimeCheck
from graftkit.folding import ALL, gated, graphs_of, tell
from graftkit.model import GraftedModel
from graftkit.reporting import gate_table
from graftkit.shipping.gate import _best, _Gates, thresholds
from graftkit.targets import TARGETS
from graftkit.targets import check as held_against

WIDE = 1024


def rows_of(count: int, seed: int) -> TensorDataset:
    inputs = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs[:, 0] > 0).long() + 2 * (inputs[:, 1] > 0).long())


@pytest.fixture(scope="module")
def rows() -> Data:
    return Data(rows_of(64, 0), rows_of(200, 1), rows_of(100, 2), "classes", 4, "made")


def grafted(net: nn.Module, example: Tensor, sites: str = "*") -> GraftedModel:
    traced = gk.trace(net, example)
    model = gk.graft(traced, gk.make_plan(traced, dendrites="full", sites=sites))
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.add_(torch.randn(parameter.shape))
    return model.eval()


class Sure(nn.Module):
    """Right by its first numbers; most of its arithmetic has hardly a say."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, wide), nn.Linear(wide, wide), nn.Linear(wide, 4)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        rest = self.last(torch.relu(self.middle(torch.relu(self.first(x)))))
        a, b = x[:, 0] * self.scale, x[:, 1] * self.scale
        return torch.stack([-a - b, a - b, b - a, a + b], 1) + 0.02 * rest


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    torch.manual_seed(0)
    return grafted(Sure(WIDE), torch.randn(2, 8), "middle")


@pytest.fixture(scope="module")
def made(model: GraftedModel, rows: Data, tmp_path_factory: pytest.TempPathFactory) -> shipping.Gated:
    path = tmp_path_factory.mktemp("made") / "gate.onnx"
    return shipping.ship_gated(model, path, rows, training.accuracy, tolerance=0.02)


def test_where_it_pays_it_ships(made: shipping.Gated) -> None:
    chosen = made.report.chosen
    assert made.report.pays and chosen.latency.high < 1 and 0 < chosen.share < 1
    assert made.report.before - chosen.metric <= 0.02 and made.report.test is not None
    assert made.parity["onnxruntime"] < 1e-5
    shares = [trial.share for trial in made.report.trials]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0, 1) and len(shares) == 7
    assert made.report.trials[-1].metric == pytest.approx(made.report.before)
    facts = {entry.key: entry.value for entry in onnx.load(made.path).metadata_props}
    assert facts["graftkit.tolerance"] == "0.02" and f'"threshold":{chosen.threshold}' in facts["graftkit.gate"]


def test_where_it_does_not_pay_nothing_is_written(rows: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = grafted(Sure(4), torch.randn(2, 8))
    reports: list[GateReport] = []
    how = {"layout": "branches", "on_measured": reports.append}
    with pytest.raises(ExportError, match=r"no gate that loses .* saves time .* nothing was written: export"):
        shipping.ship_gated(small, tmp_path / "gate.onnx", rows, training.accuracy, **how)
    assert not list(tmp_path.iterdir()) and not reports[0].pays


def no_dendrites(rows: Data) -> tuple[GraftedModel, Data]:
    return gk.graft(gk.trace(Sure(4), torch.randn(2, 8))), rows


def values(rows: Data) -> tuple[GraftedModel, Data]:
    return grafted(Sure(4), torch.randn(2, 8)), replace(rows, labels="values", classes=None)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(x).relu()


def several(rows: Data) -> tuple[GraftedModel, Data]:
    traced = gk.trace(Two(), torch.randn(2, 8), output="output_0")
    return gk.graft(traced, gk.make_plan(traced, dendrites="full", sites="*")), rows


def sequences(rows: Data) -> tuple[GraftedModel, Data]:
    return grafted(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), torch.randn(2, 5, 8)), rows


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (no_dendrites, "the model has no dendrites"),
        (values, "the labels are values"),
        (several, "a gate hands on one output, and the model has 2"),
        (sequences, r"a gate asks how sure the network is of a class of each row, and it gives .*4\]"),
    ],
)
def test_what_is_none_for_a_gate_is_refused(case, why: str, rows: Data, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{why}.*; export without --gate") as caught:
        net, data = case(rows)
        shipping.ship_gated(net, tmp_path / "a.onnx", data, training.accuracy)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_weights_beside_the_file_are_refused(model: GraftedModel, rows: Data, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a gate is for models that fit into one file"):
        shipping.ship_gated(model, tmp_path / "a.onnx", rows, training.accuracy, one_file=1000)
    assert not list(tmp_path.iterdir())


def test_a_program_asks_for_one(model: GraftedModel, rows: Data, tmp_path: Path) -> None:
    assert gk.export(model, tmp_path / "a.onnx", rows=rows, gate=True, tolerance=0.02) == tmp_path / "a.onnx"
    with pytest.raises(DataError, match="a gate is made from training rows"):
        gk.export(model, tmp_path / "b.onnx", gate=True)
    with pytest.raises(ExportError, match="choose either the gate or int8"):
        gk.export(model, tmp_path / "b.onnx", rows=rows, gate=True, precision="int8")
    with pytest.raises(RuntimeMissingError, match="unknown runtime 'tensorflow'"):
        target = shipping.Target("tensorflow")
        shipping.ship_gated(model, tmp_path / "b.onnx", rows, training.accuracy, target=target)
    assert [each.name for each in tmp_path.iterdir()] == ["a.onnx"]


# ── thresholds and the choice ────────────────────────────────────────────────────────────────────


def test_thresholds_are_quantiles_between_rows() -> None:
    confidence = np.linspace(0.3, 0.9, 100)
    found = thresholds(confidence, (0.1, 0.5))
    assert (found[0], found[-1]) == (0.0, ALL)
    assert [(confidence < each).mean() for each in found] == [0, 0.1, 0.5, 1]
    assert all(np.abs(confidence - each).min() > 1e-3 for each in found)


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(0.25, 1, width=32)))
def test_thresholds_of_any_rows(confidence: np.ndarray) -> None:
    found = thresholds(confidence)
    assert list(found) == sorted(set(found)) and (found[0], found[-1]) == (0.0, ALL)
    assert all(confidence.min() < each <= confidence.max() for each in found[1:-1])
    assert not set(found) - {float(np.float32(each)) for each in found}  # what the file holds is what was measured


def test_rows_that_are_all_alike_leave_none_and_all() -> None:
    assert thresholds(np.ones(50, np.float32)) == (0.0, ALL)


def trial(share: float, metric: float, median: float) -> GateTrial:
    return GateTrial(share, share, metric, Ratio(median, median - 0.01, median + 0.01))


def test_the_fastest_that_holds_is_the_best() -> None:
    some = [trial(0.1, 0.94, 0.6), trial(0.2, 0.95, 0.7), trial(0.5, 0.95, 0.9)]
    trials = [trial(0, 0.95, 0.5), *some, trial(1, 0.96, 2)]
    assert _best(trials, 0.95, 0.005) == 2  # none for no rows at all: that is another network
    assert _best(trials, 0.95, 0.02) == 1
    assert _best(trials, 0.96, 0.0) == 4


def test_a_metric_that_is_no_number_chooses_nothing() -> None:
    with pytest.raises(MismatchError, match="or it is no number; nothing was written"):
        _best([trial(0, 1, 1), trial(1, float("nan"), 1)], 0.9, 0.5)


def test_the_table_says_what_was_measured() -> None:
    trials = (trial(0, 0.95, 0.5), trial(0.1, 0.95, 0.6), GateTrial(ALL, 1.0, 0.95, Ratio(2.0, 1.9, 2.1)))
    report = GateReport(trials, 0.95, 0.005, 1, (0.9, 0.89), "onnxruntime", 2, 20)
    console = Console(width=140, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(gate_table(report, "accuracy"))
    text = capture.get()
    assert "10.0% of rows (chosen)" in text and "0.590 to 0.610" in text and "any" in text
    assert "onnxruntime, 2 threads" in text and "accuracy 0.9000, with the chosen gate 0.8900" in text
    assert "Without any dendrites accuracy is 0.9500, which loses no more than that" in text
    told = report.to_json()
    assert told["pays"] and told["chosen"]["share"] == 0.1 and told["test"] == {"before": 0.9, "after": 0.89}


def test_time_is_measured_over_rows_in_their_mix(model: GraftedModel, rows: Data, tmp_path: Path) -> None:
    shipped = shipping.ship(model, tmp_path / "a.onnx", rows, metric=training.accuracy)
    base = shipping.build(model, dendrites=False).whole()
    gates = _Gates(base, onnx.load(shipped.path), shipped, rows, training.accuracy)
    confidence = gates._confidence()
    mix = gates._mix(confidence)
    (name,) = shipped.signature.input_names
    whole = rows.validation.tensors[0].numpy()  # type: ignore[union-attr]
    places = [int(np.flatnonzero((whole == row[name]).all(1))[0]) for row in mix]
    assert all(row[name].shape == (1, 8) for row in mix) and len(set(places)) == 20
    for threshold in thresholds(confidence):
        share = (confidence < np.float32(threshold)).mean()
        assert (confidence[places] < np.float32(threshold)).mean() == pytest.approx(share, abs=0.05)


# ── judged afterwards ────────────────────────────────────────────────────────────────────────────


def judged(file: Path, model: GraftedModel, rows: Data | None, tolerance: float | None = None) -> RuntimeCheck:
    how = {"metric_tolerance": tolerance}
    (found,) = shipping.check_runtimes(file, model, rows, training.accuracy, ["onnxruntime"], **how)
    return found


def test_it_is_judged_by_its_metric_and_row_by_row(made: shipping.Gated, model: GraftedModel, rows: Data) -> None:
    found = judged(made.path, model, rows, 0.02)
    assert found.trouble is None and found.difference is not None and found.difference > 1e-4
    assert found.note is not None and "the difference is expected: its gate leaves dendrites out" in found.note
    assert shipping.verify(made.path, model, rows, metric_tolerance=0.02)["onnxruntime"] < 1e-5
    with pytest.raises(DataError, match="the file has gate in it and is judged by its metric; pass rows"):
        shipping.verify(made.path, model, metric_tolerance=0.02)


def test_a_file_is_believed_no_more_than_export_allows_by_itself(
    made: shipping.Gated, model: GraftedModel, rows: Data
) -> None:
    why = r"the file \(gate\) says of itself that it may lose 0\.02 .*, and no file is believed more than 0\.005;"
    for work in (judged, gk.verify):
        with pytest.raises(MismatchError, match=f"{why} accept it with --tolerance 0.02") as caught:
            work(made.path, model, rows)
        assert "\n" not in str(caught.value)


def test_what_is_asked_for_overrides_what_a_file_says(turned: tuple[Path, GraftedModel, Data]) -> None:
    """The file says 0.005, which is believed, and loses more: a stricter limit and a wider one both count."""
    path, model, rows = turned
    lost = "takes the validation metric from 1.0000 to"
    for tolerance in (None, 0.0, 0.01):
        trouble = judged(path, model, rows, tolerance).trouble
        assert trouble is not None and lost in trouble
        assert trouble.endswith(f"and it may lose {0.005 if tolerance is None else tolerance:.2g} at most")
        with pytest.raises(MismatchError, match=lost):
            gk.verify(path, model, rows, metric_tolerance=tolerance)
    assert judged(path, model, rows, 1.0).trouble is None
    assert gk.verify(path, model, rows, metric="accuracy", metric_tolerance=1.0)["onnxruntime"] < 1e-4


@pytest.mark.parametrize("which", ["with_dendrites", "outside"])
def test_a_weight_that_changed_is_found(
    which: str, made: shipping.Gated, model: GraftedModel, rows: Data, tmp_path: Path
) -> None:
    proto = onnx.load(made.path)
    graph = next(g for g in graphs_of(proto.graph) if g.name == which) if which != "outside" else proto.graph
    tensor = max(graph.initializer, key=lambda each: len(each.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(3), tensor.name))
    onnx.save(proto, tmp_path / "other.onnx")
    found = judged(tmp_path / "other.onnx", model, rows, 0.02)
    assert found.trouble is not None and "differ by" in found.trouble and "tolerance 0.0001" in found.trouble


@pytest.fixture(scope="module")
def turned(rows: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GraftedModel, Data]:
    """The network as it is without its dendrites, where these turn the answers round."""
    torch.manual_seed(3)
    turned = grafted(Sure(16), torch.randn(2, 8), "middle")
    with torch.no_grad():
        for parameter in turned.dendrites.parameters():
            parameter.add_(torch.randn(parameter.shape) * 60)
    base, full = (shipping.build(turned, dendrites=which).whole() for which in (False, True))
    proto = gated(base, full, 0.0)
    tell(proto, gate={"threshold": 0.0}, tolerance=0.005)
    path = tmp_path_factory.mktemp("turned") / "a.onnx"
    onnx.save(proto, path)
    right = turned(rows.validation.tensors[0]).argmax(1)  # type: ignore[union-attr]
    validation = TensorDataset(rows.validation.tensors[0], right)  # type: ignore[union-attr]
    return path, turned, replace(rows, validation=validation)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_numbers_are_judged_by_their_metric(
    precision: str, model: GraftedModel, rows: Data, tmp_path: Path
) -> None:
    path = gk.export(model, tmp_path / "a.onnx", rows=rows, precision=precision, tolerance=0.05)
    found = judged(path, model, rows, 0.05)
    assert found.trouble is None and found.note is not None and f"it is in {precision}" in found.note
    assert gk.verify(path, model, rows, metric_tolerance=0.05)["onnxruntime"] > 1e-5
    with pytest.raises(MismatchError, match="gives outputs that differ by"):
        gk.verify(path, model, tolerance=1e-7)  # without rows there is only the difference
    with pytest.raises(DataError, match="judged by its metric; pass rows"):
        judged(path, model, None, 0.05)
    proto = onnx.load(path)
    kept = [entry for entry in proto.metadata_props if entry.key != "graftkit.tolerance"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    for told in ({}, {"tolerance": "much"}, {"tolerance": float("inf")}, {"tolerance": -1}, {"tolerance": 10**400}):
        other = onnx.ModelProto.FromString(proto.SerializeToString())
        tell(other, **told)
        onnx.save(other, tmp_path / "b.onnx")
        with pytest.raises(ExportError, match=f"graftkit.{precision}, but not its tolerance; export it again"):
            judged(tmp_path / "b.onnx", model, rows)


@pytest.mark.parametrize("gate", [{}, [], {"threshold": None}, {"threshold": float("nan")}])
def test_a_gate_that_says_nothing_is_refused(
    gate, made: shipping.Gated, model: GraftedModel, rows: Data, tmp_path
) -> None:
    proto = onnx.load(made.path)
    kept = [entry for entry in proto.metadata_props if entry.key != "graftkit.gate"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    tell(proto, gate=gate)
    onnx.save(proto, tmp_path / "b.onnx")
    with pytest.raises(ExportError, match=r"graftkit\.gate, but not its threshold; export it again"):
        judged(tmp_path / "b.onnx", model, rows)
    with pytest.raises(SourceError, match="what graftkit says of its gate in the file's metadata is broken"):
        gk.inspect(tmp_path / "b.onnx")


# ── looked at ────────────────────────────────────────────────────────────────────────────────────


def test_what_inspect_says_of_it(made: shipping.Gated, model: GraftedModel) -> None:
    found = gk.inspect(made.path)
    assert [site.site for site in found.sites if site.dendrites] == ["middle"]
    assert found.macs == model.macs()
    outside, dendrites, last = 8 * WIDE + WIDE * WIDE + WIDE * 4, WIDE * WIDE, WIDE * 4
    note = next(note for note in found.notes if note.startswith("a gate runs the dendrites"))
    assert f"{100 * made.report.chosen.share:.1f}% of validation rows" in note
    assert f"such a row takes {outside + dendrites + last:,} multiply-adds, any other {outside:,}" in note
    proto = onnx.load(made.path)
    for graph in graphs_of(proto.graph):
        kept = [node for node in graph.node if not any(p.key == "graftkit.dendrite" for p in node.metadata_props)]
        del graph.node[:]
        graph.node.extend(kept)
    from graftkit.folding import read_description
    from graftkit.inspection import inspect_onnx

    cut = inspect_onnx(proto, {**read_description(proto), "gate": None}, name="cut")
    assert not any(site.dendrites for site in cut.sites) and "the graph has none there" in cut.notes[-1]


def test_multiply_adds_of_positions_whose_number_is_free_are_not_told(made: shipping.Gated) -> None:
    from graftkit.folding import read_description
    from graftkit.inspection import inspect_onnx

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", channels, "height", "width"))
        for name, channels in (("x", 1), ("y", 2))
    ]
    weight = numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "free", ends[:1], ends[1:], [weight])
    found = inspect_onnx(helper.make_model(graph), read_description(onnx.load(made.path)), name="free")
    assert found.notes[-1].startswith("a gate runs") and found.notes[-1].endswith("% of validation rows")


def test_bench_counts_the_costlier_branch(made: shipping.Gated) -> None:
    report = bench([read_file(made.path, "gate")], rounds=20, memory=False)
    outside, inside = 8 * WIDE + WIDE * WIDE + WIDE * 4, WIDE * WIDE + WIDE * 4
    (subject,) = report.subjects
    assert subject.macs == outside + inside
    assert subject.nodes == sum(len(graph.node) for graph in graphs_of(onnx.load(made.path).graph))
    (note,) = report.notes
    assert note.startswith(
        "gate has an If: its costlier branch counts in multiply-adds, and the time is that of inputs"
    )


def test_targets_are_held_against_what_is_inside(made: shipping.Gated) -> None:
    proto = onnx.load(made.path)
    assert not held_against(proto, TARGETS["tensorrt"]) and not held_against(proto, TARGETS["tflite"])
    found = held_against(proto, TARGETS["rknn"])
    assert any(finding.operator == "If" and "is not constant" in finding.why for finding in found)
    inner = next(graph for graph in graphs_of(proto.graph) if graph.name == "with_dendrites")
    inner.node[0].op_type = "Det"
    assert any(finding.operator == "Det" for finding in held_against(proto, TARGETS["tensorrt"]))
