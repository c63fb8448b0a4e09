"""Every layout computes what branches do, to the last digits, in standard operators under the same marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import graftkit as gk
from graftkit import api, folding
from graftkit.core.errors import ExportError, RuntimeMissingError
from graftkit.core.table import Table
from graftkit.folding.layouts import BRANCHES, LAYOUTS, arrange, grafted_sites, portable
from graftkit.folding.layouts.alone import alone, likeness, showing
from graftkit.folding.names import DENDRITE_KEY, SITE_KEY, metadata
from graftkit.folding.written import reference
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan
from graftkit.runtimes import RUNTIMES
from graftkit.shipping import CHOICES, Target, build, ship, verify
from graftkit.shipping.layouts import layouts_for


def outputs_of(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return np.asarray(found)


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, inputs: np.ndarray) -> None:
    onnx.checker.check_model(after, full_check=True)
    expected, found = outputs_of(before, inputs), outputs_of(after, inputs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# ── by hand: every geometry ──────────────────────────────────────────────────────────────────────


def by_hand(
    base: dict[str, object],
    branch: dict[str, object],
    *,
    channels: tuple[int, int, int] = (3, 4, 4),
    kernels: tuple[Sequence[int], Sequence[int]] = ((3, 3), (3, 3)),
    size: Sequence[int] = (9, 8),
    biases: tuple[bool, bool] = (True, True),
    seed: int = 0,
) -> onnx.ModelProto:
    """One Conv site with one dendrite whose drive has other settings."""
    random = np.random.default_rng(seed)
    into, own, theirs = channels
    made = {
        "w": random.standard_normal((own, into // int(base.get("group", 1)), *kernels[0])),
        "v": random.standard_normal((theirs, into // int(branch.get("group", 1)), *kernels[1])),
        "b": random.standard_normal(own),
        "c": random.standard_normal(theirs),
        "s": random.standard_normal((own, *(1 for _ in size))),
        "mix": random.standard_normal((own, theirs, *(1 for _ in size))),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", *(["b"] if biases[0] else [])], ["n"], "site/Conv", **base),
        helper.make_node("Conv", ["x", "v", *(["c"] if biases[1] else [])], ["d"], "drive", **branch),
        helper.make_node("Tanh", ["d"], ["t"], "act"),
        *([helper.make_node("Conv", ["t", "mix"], ["u"], "mix")] if own != theirs else []),
        helper.make_node("Mul", ["s", "u" if own != theirs else "t"], ["m"], "site/dendrites/Mul"),
        helper.make_node("Add", ["n", "m"], ["y"], "join"),
    ]
    for index, node in enumerate(nodes):
        node.metadata_props.add(key=SITE_KEY, value="site")
        if index:
            node.metadata_props.add(key=DENDRITE_KEY, value="true")
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", into, *size))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", own, *(None for _ in size)))],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in made.items() if name in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@st.composite
def geometries(draw: st.DrawFn) -> onnx.ModelProto:
    """A kernel of any shape, and the same beside it, or its tap somewhere, or one that sees less."""
    dims = draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 3), min_size=dims, max_size=dims)
    kernel, strides, dilations = draw(sizes), draw(sizes), draw(sizes)
    pads = draw(st.lists(st.integers(0, 2), min_size=2 * dims, max_size=2 * dims))
    base = {"strides": strides, "dilations": dilations, "pads": pads}
    bias = (draw(st.booleans()), draw(st.booleans()))
    own, theirs = draw(st.sampled_from([(4, 4), (4, 2), (1, 1), (5, 5)]))
    common = {"channels": (3, own, theirs), "size": [7] * dims, "biases": bias}
    if draw(st.booleans()):
        return by_hand(base, base, kernels=(kernel, kernel), **common)
    taps = [draw(st.integers(0, size - 1)) for size in kernel]
    reach = [step * (size - 1) for step, size in zip(dilations, kernel, strict=True)]
    before = [pads[dim] - dilations[dim] * taps[dim] for dim in range(dims)]
    after = [pads[dims + dim] - reach[dim] + dilations[dim] * taps[dim] for dim in range(dims)]
    if min(*before, *after) < 0:  # ONNX has no negative padding here: the tap in the corner fits where there is room
        return by_hand({"strides": strides}, {"strides": strides}, kernels=([1] * dims, [1] * dims), **common)
    return by_hand(base, {"strides": strides, "pads": [*before, *after]}, kernels=(kernel, [1] * dims), **common)


@settings(max_examples=120, deadline=None)
@given(geometries(), st.sampled_from([name for name in LAYOUTS if name != BRANCHES]))
def test_any_geometry(model: onnx.ModelProto, layout: str) -> None:
    after = copy(model)
    changed = arrange(after, {"site": layout})
    channels = numpy_helper.to_array(model.graph.initializer[0]).shape[0]
    assert bool(changed) == (layout == "wide" or channels > 1)
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    for rows in (1, 3):
        assert_same(model, after, np.random.RandomState(rows).randn(rows, *dims).astype(np.float32))


def test_the_centre_of_a_kernel_becomes_a_part_of_it() -> None:
    model = by_hand({"pads": [1, 1, 1, 1]}, {}, kernels=((3, 3), (1, 1)))
    after = copy(model)
    assert arrange(after, {"site": "wide"}) == ("site",)
    assert operators(after) == ["Conv", "Split", "Tanh", "Mul", "Add"]
    assert_same(model, after, np.random.RandomState(0).randn(2, 3, 9, 8).astype(np.float32))


@pytest.mark.parametrize(
    "base, branch, more",
    [
        ({"group": 2}, {"group": 2}, {"channels": (4, 4, 4)}),
        ({"strides": [2, 2]}, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"channels": (3, 4, 4), "size": (8, 8)}),
        ({"dilations": [2, 2]}, {"pads": [0, 0, 0, 0]}, {"kernels": ((2, 2), (3, 3))}),
        ({"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_UPPER"}, {}),
    ],
)
def test_what_cannot_be_one_stays_apart(base: dict, branch: dict, more: dict) -> None:
    model = by_hand(base, branch, **more)
    after = copy(model)
    assert arrange(after, {"site": "wide"}) == ()
    assert after.SerializeToString() == model.SerializeToString()


def test_a_tap_that_gives_more_positions_stays_apart() -> None:
    """Nobody adds the two: the dendrite takes a mean of its own, over positions that the kernel does not give."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["n"], "site/Conv"),
        helper.make_node("Conv", ["x", "v"], ["d"], "drive"),
        helper.make_node("GlobalAveragePool", ["d"], ["m"], "mean"),
        helper.make_node("Add", ["n", "m"], ["y"], "join"),
    ]
    for index, node in enumerate(nodes):
        node.metadata_props.add(key=SITE_KEY, value="site")
        if index:
            node.metadata_props.add(key=DENDRITE_KEY, value="true")
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4, 4, 4))],
        [
            numpy_helper.from_array(np.random.RandomState(0).randn(4, 3, 3, 3).astype(np.float32), "w"),
            numpy_helper.from_array(np.random.RandomState(1).randn(4, 3, 1, 1).astype(np.float32), "v"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert arrange(model, {"site": "wide"}) == ()


def test_an_activity_of_one_channel_is_no_depthwise_one() -> None:
    model = by_hand({}, {}, channels=(3, 4, 1))
    model.graph.node.remove(next(node for node in model.graph.node if node.name == "mix"))
    next(node for node in model.graph.node if node.op_type == "Mul").input[1] = "t"
    model = onnx.shape_inference.infer_shapes(model)
    assert arrange(model, {"site": "depthwise"}) == ()


def test_weights_that_an_input_may_replace_stay_apart() -> None:
    model = by_hand({}, {})
    model.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, (4, 3, 3, 3)))
    assert arrange(model, {"site": "wide"}) == ()


def test_weights_that_are_kept_elsewhere_stay_apart() -> None:
    model = by_hand({}, {})
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    weight.CopyFrom(reference("w", (4, 3, 3, 3), TensorProto.FLOAT, "0"))
    assert arrange(model, {"site": "wide"}) == ()


def test_constants_that_others_read_stay() -> None:
    model = by_hand({}, {})
    model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ("n", 4, None, None)))
    arrange(model, {"site": "wide"})
    onnx.checker.check_model(model, full_check=True)
    assert {"w"} == {tensor.name for tensor in model.graph.initializer} & {"w", "v", "b", "c"}


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ExportError, match=r"unknown layout 'wid'; there are branches, wide, depthwise\. Did"):
        arrange(by_hand({}, {}), {"site": "wid"})


# ── real sites, of every kind ────────────────────────────────────────────────────────────────────


class Net(nn.Module):
    """A strided and a plain convolution with a batch norm, rows of a sequence, and a Linear."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.rows = nn.Linear(channels, 6)
        self.hidden = nn.Linear(6, 12)
        self.last = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        x = torch.relu(self.rows(x.flatten(2).transpose(1, 2)))
        return self.last(torch.relu(self.hidden(x.mean(1))))


def grafted(kind: str, *, channels: int = 8, count: int = 1, serve: Sequence[int] = ()) -> GraftedModel:
    torch.manual_seed(0)
    traced = gk.trace(Net(channels), torch.randn(2, 3, 12, 12))
    cycle = gk.make_plan(traced, dendrites=kind)
    model = gk.graft(traced, GraftPlan(cycle.grafts * count))
    for dendrite in model.members():
        if serve:
            dendrite.serve(serve)
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


KINDS = ["full", "full:activation=relu", "pointwise", "depthwise", "lowrank", "context:mode=gate", "context:mode=add",
         "own", "around"]  # fmt: skip


@pytest.fixture(scope="module")
def written() -> dict[str, folding.Written]:
    found = {kind: build(grafted(kind)) for kind in KINDS}
    found["two"] = build(grafted("full", count=2))
    found["served"] = build(grafted("full", serve=[1, 3]))
    return found


@pytest.mark.parametrize("kind", [*KINDS, "two", "served"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_computes_the_same(written: dict[str, folding.Written], kind: str, layout: str) -> None:
    before = written[kind].whole()
    after = copy(before)
    every = [site.site for site in grafted_sites(before.graph)]
    changed = arrange(after, dict.fromkeys(every, layout))
    for rows in (1, 5):
        assert_same(before, after, np.random.RandomState(rows).randn(rows, 3, 12, 12).astype(np.float32))
    assert set(changed) <= set(every)
    assert len({node.name for node in after.graph.node}) == len(after.graph.node)
    marked = {metadata(node).get(SITE_KEY) for node in after.graph.node if DENDRITE_KEY in metadata(node)}
    assert marked == set(every)
    assert [site.site for site in grafted_sites(after.graph)] != [] or layout == "wide"


def test_each_changes_what_it_is_for(written: dict[str, folding.Written]) -> None:
    wide, scaled = written["full"].whole(), written["full"].whole()
    assert arrange(wide, dict.fromkeys(["first", "second", "rows", "hidden"], "wide"))
    assert operators(wide).count("Split") == 4
    assert sorted(arrange(scaled, dict.fromkeys(["first", "second", "rows", "hidden"], "depthwise"))) == [
        "first",
        "second",
    ]
    assert operators(scaled).count("Conv") == operators(written["full"].proto).count("Conv") + 2


def test_two_dendrites_become_one_with_their_layer(written: dict[str, folding.Written]) -> None:
    after = written["two"].whole()
    arrange(after, {"second": "wide"})
    (split,) = (node for node in after.graph.node if node.op_type == "Split")
    assert len(split.output) == 3 and split.name == "second/Split"


# ── which one is taken ───────────────────────────────────────────────────────────────────────────


def test_by_rule_small_layers_become_wide(written: dict[str, folding.Written]) -> None:
    assert portable(written["full"].proto) == portable(written["two"].proto) == {"first": "wide", "second": "wide"}
    assert portable(build(grafted("full", channels=24)).proto) == {}
    for kind in ("pointwise", "context:mode=gate"):
        assert portable(written[kind].proto) == {}


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    return grafted("full")


@pytest.mark.parametrize("layout", CHOICES)
def test_a_file_in_any_layout_is_verified_and_says_so(model: GraftedModel, layout: str, tmp_path: Path) -> None:
    shipped = ship(model, tmp_path / "model.onnx", layout=layout)
    proto = api.read_onnx(tmp_path / "model.onnx")
    assert folding.read_description(proto).get("layouts", {}) == dict(shipped.layouts)
    assert verify(proto, model, runtimes=("onnxruntime", "reference"))["reference"] < 1e-5
    assert {site.site for site in gk.inspect(tmp_path / "model.onnx").sites if site.dendrites} == {
        "first", "second", "rows", "hidden"
    }  # fmt: skip
    if layout in LAYOUTS:
        assert set(shipped.layouts.values()) <= {layout} - {BRANCHES}


def test_what_is_measured_is_what_the_file_has(written: dict[str, folding.Written]) -> None:
    proto = written["full"].whole()
    x = np.random.RandomState(0).randn(2, 3, 12, 12).astype(np.float32)
    cut = [alone(proto, site) for site in grafted_sites(proto.graph)]
    assert [site.site for site in cut] == ["first", "second", "rows", "hidden"]
    names = sorted({name for site in cut for name in (*site.reads, *site.gives)} - {"x"})
    shown = onnxruntime.InferenceSession(showing(proto, names).SerializeToString(), providers=["CPUExecutionProvider"])
    values = {"x": x, **dict(zip(names, shown.run(None, {"x": x}), strict=True))}
    models = {site.site: site.model(proto, values) for site in cut}
    for site in cut:
        onnx.checker.check_model(models[site.site], full_check=True)
        (given,), (last, *_) = site.reads, site.gives[::-1]
        made = onnxruntime.InferenceSession(models[site.site].SerializeToString(), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(made.run([last], {given: values[given]})[0], values[last], atol=1e-5)
    assert likeness(models["first"]) != likeness(models["second"])
    assert likeness(models["second"]) == likeness(copy(models["second"]))


class Slow(NamedTuple):
    """A session that takes a fixed time, so that there is a faster one whatever the machine does."""

    each: float

    def __call__(self, inputs: object) -> list[np.ndarray]:
        return []

    def seconds(self, inputs: object, times: int) -> list[float]:
        return [self.each] * times

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("faster", "broken"), [(True, False), (False, False), (True, True)])
def test_auto_follows_the_measurement(
    monkeypatch: pytest.MonkeyPatch, written: dict[str, folding.Written], faster: bool, broken: bool
) -> None:
    def open(model: bytes, *, threads: int | None = None) -> Slow:
        split = sum(node.op_type == "Split" for node in onnx.load_model_from_string(model).graph.node)
        if broken and split:
            raise ExportError("no Split here")
        return Slow(1.0 - 0.1 * split if faster else 1.0 + 0.1 * split)

    real = RUNTIMES["onnxruntime"]

    runtimes = Table("runtime", {"onnxruntime": real, "slow": SimpleNamespace(open=open)}, RuntimeMissingError)
    monkeypatch.setattr("graftkit.shipping.layouts.RUNTIMES", runtimes)
    row = {"x": np.zeros((1, 3, 12, 12), np.float32)}
    found = layouts_for("auto", written["full"], row, Target(runtime="slow"))
    assert found == (dict.fromkeys(["first", "second", "rows", "hidden"], "wide") if faster and not broken else {})


def test_an_unknown_choice_or_runtime_is_refused(written: dict[str, folding.Written]) -> None:
    model, row = written["full"], {"x": np.zeros((1, 3, 12, 12), np.float32)}
    with pytest.raises(ExportError, match="unknown layout 'fast'; there are portable, auto, branches, wide, "):
        layouts_for("fast", model, row, Target())
    with pytest.raises(RuntimeMissingError, match="unknown runtime 'fast'"):
        layouts_for("auto", model, row, Target(runtime="fast"))


def test_to_onnx_is_written_as_branches(model: GraftedModel) -> None:
    """Budgets, transplanting and comparisons read a graph whose parts lie apart."""
    assert "Split" not in operators(api.to_onnx(model))
