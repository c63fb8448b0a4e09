"""The ONNX file: what is in it, what is not, and how a broken one is caught."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.onnx._internal.exporter import _registration

from graftkit import api, folding, surgery, tracing
from graftkit.core.errors import ExportError, MismatchError
from graftkit.core.signature import Port, Signature
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.runtimes import RUNTIMES


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Identity())
        self.last = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(self.body(self.stem(x)))).mean((2, 3)))


GRAFTS = (
    Graft("stem.0", "full", (("activation", "relu"),), join="call"),
    Graft("body.0", "context", (("mode", "add"),)),
    Graft("body.0", "lowrank"),
    Graft("head", "full", neurons=(0, 2)),
)


def made() -> GraftedModel:
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        for norm in (module.stem[1], module.body[1]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    model = surgery.empty(tracing.trace_module(module, (torch.randn(2, 2, 6, 6),), name="net"))
    surgery.graft(model, GRAFTS, build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.uniform_(0.2, 0.9)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    return made()


@pytest.fixture(scope="module")
def proto(model: GraftedModel) -> onnx.ModelProto:
    return api.to_onnx(model)


def names(proto: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in proto.graph.initializer}


def test_only_standard_operators_and_none_that_do_nothing(proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} == {""} and not proto.functions
    assert {node.domain for node in proto.graph.node} == {""}
    assert not {"Identity", "Dropout", "BatchNormalization", "Constant"} & {n.op_type for n in proto.graph.node}


def test_a_strength_behind_a_rectifier_is_folded(model: GraftedModel, proto: onnx.ModelProto) -> None:
    assert not any(name.startswith("stem.0.dendrites") and name.endswith("strength") for name in names(proto))
    assert any(name.startswith("stem.0.dendrites.0.drive") for name in names(proto))


def test_metadata_say_what_it_is(model: GraftedModel, proto: onnx.ModelProto) -> None:
    assert (proto.producer_name, proto.producer_version) == ("graftkit", version("graftkit"))
    facts = folding.read_description(proto)
    assert facts["version"] == version("graftkit")
    assert GraftPlan.from_json(facts["plan"]) == model.plan
    assert facts["inspection"]["parameters"] == model.parameter_count()
    assert {entry.key for entry in proto.metadata_props} == {
        f"graftkit.{k}" for k in ("version", "plan", "inspection", "signature")
    }


def test_nodes_say_which_site_they_serve_and_nothing_else(proto: onnx.ModelProto) -> None:
    seen: dict[str, int] = {}
    for node in proto.graph.node:
        entries = {entry.key: entry.value for entry in node.metadata_props}
        assert set(entries) <= {"pkg.torch.onnx.name_scopes", "graftkit.site", "graftkit.dendrite"}
        if "graftkit.site" in entries and "graftkit.dendrite" not in entries:
            seen[entries["graftkit.site"]] = seen.get(entries["graftkit.site"], 0) + 1
            assert node.op_type in ("Conv", "Gemm", "MatMul")
    assert seen == {"stem.0": 1, "body.0": 1, "last": 1, "head": 1}
    assert not proto.doc_string and not proto.graph.doc_string and not any(n.doc_string for n in proto.graph.node)


def test_no_path_leaks(proto: onnx.ModelProto) -> None:
    content = proto.SerializeToString()
    for trace in (b".py", b"site-packages", str(Path.cwd()).encode(), b"/work/", b"/home/", b"File "):
        assert trace not in content
    assert not re.search(rb"[ \"'(]/[a-z]+/[a-z]+/", content)


def test_names_carry_module_paths(model: GraftedModel, proto: onnx.ModelProto) -> None:
    assert [value.name for value in proto.graph.output] == ["output"]
    (given,) = proto.graph.input
    shape = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert shape == list(model.traced.signature.inputs[0].shape) and shape[:2] == ["batch", 2]
    (gives,) = proto.graph.output
    assert [dim.dim_param or dim.dim_value for dim in gives.type.tensor_type.shape.dim] == ["batch", 3]
    called = [node.name for node in proto.graph.node]
    assert len(set(called)) == len(called)
    assert {"stem/0/Conv", "body/0/Conv", "last/Conv"} <= set(called)
    assert any(name.startswith("head/dendrites/") for name in called)
    weights = names(proto)
    assert "last.weight" in weights and "body.0.dendrites.0.answer.bias" in weights
    assert {name.split(".dendrites.")[0] for name in weights if ".dendrites." in name} == {"stem.0", "body.0", "head"}
    assert not [name for name in weights if name.startswith("dendrites.")]


@pytest.fixture(scope="module")
def small() -> GraftedModel:
    traced = tracing.trace_module(
        nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten()), (torch.randn(2, 2, 3),), name="small"
    )
    model = surgery.empty(traced)
    surgery.graft(model, [Graft("0", kind) for kind in ("context", "full")], build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.fill_(0.5)
    return model.eval()


@pytest.mark.parametrize("opset", range(17, 24))
def test_the_opset_asked_is_the_opset_written(small: GraftedModel, opset: int) -> None:
    written = api.to_onnx(small, opset=opset)
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", opset)]
    assert api.verify(written, small)["onnxruntime"] < 1e-5


@pytest.mark.parametrize("opset", [0, 16, 26])
def test_other_opsets_are_refused(model: GraftedModel, opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} is not offered; choose 17 to 25"):
        api.to_onnx(model, opset=opset)


def test_what_the_exporter_can_write_is_listed_once_and_nothing_of_it_stays_changed(
    small: GraftedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = _registration.onnxscript_apis
    before, listed = api.to_onnx(small), exporter.get_torchlib_ops
    calls: list[int] = []
    monkeypatch.setattr(exporter._module, "get_torchlib_ops", lambda: calls.append(1) or listed())
    assert api.to_onnx(small) == api.to_onnx(small) == before and calls == [1]
    assert "get_torchlib_ops" not in vars(exporter)


def test_a_dendrite_at_zero_costs_nothing_in_the_file() -> None:
    model = made()
    model.silence("stem.0")
    proto = api.to_onnx(model)
    assert not [name for name in names(proto) if name.startswith("stem.0.dendrites")]
    assert api.verify(proto, model)["onnxruntime"] < 1e-5


def test_export_writes_what_it_verified(model: GraftedModel, tmp_path: Path) -> None:
    path = api.export(model, tmp_path / "model.onnx", layout="branches")
    assert path.read_bytes() == api.to_onnx(model).SerializeToString()
    assert api.verify(path, model, runtimes=("onnxruntime", "reference")).keys() == {"onnxruntime", "reference"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_the_description_survives_facts_and_refuses_broken_json(model: GraftedModel) -> None:
    written = api.to_onnx(model, facts={"source_sha256": "ab", "more": {"a": [1]}})
    facts = folding.read_description(written)
    assert facts["source_sha256"] == "ab" and facts["more"] == {"a": [1]} and "plan" in facts
    assert json.loads(json.dumps(facts)) == facts
    next(entry for entry in written.metadata_props if entry.key == "graftkit.more").value = "{"
    with pytest.raises(ExportError, match=r"'graftkit\.more' is not JSON"):
        folding.read_description(written)
    assert folding.read_description(onnx.ModelProto()) == {}


# ── a broken file ────────────────────────────────────────────────────────────────────────────────


def broken(proto: onnx.ModelProto, site: str, change: Callable[[np.ndarray], np.ndarray], *, inner: bool = False):
    """A copy of which one initializer is changed: of the site's own call, or of its dendrites."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        entries = {entry.key: entry.value for entry in node.metadata_props}
        weights = [name for name in node.input if name in tensors]
        if entries.get("graftkit.site") == site and ("graftkit.dendrite" in entries) is inner and weights:
            tensor = tensors[weights[0]]
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
            return copy
    raise AssertionError(f"{site} has no weight")


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "doubled": lambda values: values * 2,
    "nan": lambda values: values * np.float32("nan"),
    "one number": lambda values: values + np.eye(1, values.size, dtype=np.float32).reshape(values.shape),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("site", ["stem.0", "body.0", "last", "head"])
def test_verify_names_the_site_that_was_broken(
    model: GraftedModel, proto: onnx.ModelProto, site: str, change: str
) -> None:
    with pytest.raises(MismatchError, match=re.escape(f"first part at site {site!r}")) as caught:
        api.verify(broken(proto, site, CHANGES[change]), model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("site", ["stem.0", "body.0", "head"])
def test_verify_names_the_site_whose_dendrite_was_broken(
    model: GraftedModel, proto: onnx.ModelProto, site: str
) -> None:
    with pytest.raises(MismatchError, match=re.escape(f"first part at site {site!r}")):
        api.verify(broken(proto, site, lambda values: values * -3 - 1, inner=True), model)


def test_verify_refuses_what_does_not_load(model: GraftedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not onnx")
    with pytest.raises(ExportError, match="is not a readable ONNX file"):
        api.verify(path, model)


def test_nothing_is_written_when_it_does_not_match(
    model: GraftedModel, proto: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = folding.Written(broken(proto, "last", CHANGES["doubled"]))
    monkeypatch.setattr("graftkit.shipping.shipment.build", lambda *args, **more: wrong)
    with pytest.raises(MismatchError):
        api.export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# ── several inputs and outputs ───────────────────────────────────────────────────────────────────


class Several(nn.Module):
    """Tokens, a mask, and an input that nothing reads; outputs of all types, one of them an input, one given twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)

    def forward(self, ids: Tensor, mask: Tensor, unused: Tensor) -> dict[str, Tensor]:
        heard = torch.tanh(self.layer(self.embedding(ids))) * mask.unsqueeze(-1)
        pairs = torch.cat([heard, heard, heard[:, :1]], 1)
        logits = self.head(heard)
        return {"logits": logits, "pairs": pairs, "ids": ids, "best": logits.argmax(-1), "again": logits}


def several(**more: object) -> GraftedModel:
    torch.manual_seed(0)
    example = (torch.randint(0, 12, (2, 5)), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]), torch.randn(2, 3))
    traced = tracing.trace_module(Several(), example, name="several", **more)
    model = surgery.empty(traced)
    surgery.graft(model, [Graft("layer", "lowrank")], build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.uniform_(0.2, 0.9)
    return model.eval()


def ports(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def test_inputs_and_outputs_have_the_names_and_sizes_of_the_signature() -> None:
    model = several()
    proto = api.to_onnx(model)
    assert ports(proto.graph.input) == {
        "ids": ["batch", "length"], "mask": ["batch", "length"], "unused": ["batch", "length_1"],
    }  # fmt: skip
    found = ports(proto.graph.output)
    assert list(found) == ["logits", "pairs", "ids_output", "best", "again"]  # an input is called ids already
    assert found["logits"] == ["batch", "length", 12] and found["best"] == ["batch", "length"]
    assert found["pairs"] == ["batch", "2*length + 1", 8]
    assert not re.search(rb"\bs\d+\b", proto.SerializeToString())
    assert api.verify(proto, model, runtimes=("onnxruntime", "reference"))["onnxruntime"] < 1e-5


def test_names_are_those_of_the_file_the_model_came_from() -> None:
    model = several()
    wanted = Signature(
        (Port("input.1", "int64", ("N", "T")), Port("attn/mask", "int64", ("N", "T")), Port("x", "float32", ("N", 3))),
        tuple(Port(name, "float32", ()) for name in ("linear", "layer.bias", "embedding", "9", "x y")),
        "linear",
    )
    named = replace(model.traced, signature=wanted, metadata={"author": "me", "graftkit.plan": "old"})
    model = surgery.empty(named).eval()
    proto = api.to_onnx(model)
    assert ports(proto.graph.input) == {"input.1": ["N", "T"], "attn/mask": ["N", "T"], "x": ["N", 3]}
    assert list(ports(proto.graph.output)) == ["linear", "layer.bias", "embedding", "9", "x y"]
    assert ports(proto.graph.output)["layer.bias"] == ["N", "2*T + 1", 8]
    own = {entry.key: entry.value for entry in proto.metadata_props}
    assert own["author"] == "me" and json.loads(own["graftkit.plan"])["grafts"] == []
    assert Signature.from_json(folding.read_description(proto)["signature"]) == wanted
    assert api.verify(proto, model)["onnxruntime"] < 1e-5


def test_only_what_has_a_name_stays_free() -> None:
    model = several(free="batch")
    assert ports(api.to_onnx(model).graph.input)["ids"] == ["batch", 5]
    fixed = replace(model.traced, signature=replace(model.traced.signature, inputs=tuple(
        replace(port, shape=tuple(tensor.shape)) for port, tensor in zip(model.traced.signature.inputs,
                                                                         model.traced.inputs, strict=True)
    )))  # fmt: skip
    still = surgery.empty(fixed).eval()
    proto = api.to_onnx(still)
    assert ports(proto.graph.input)["ids"] == [2, 5] and ports(proto.graph.output)["logits"] == [2, 5, 12]
    assert api.verify(proto, still)["onnxruntime"] < 1e-5


def test_a_size_that_the_graph_fixes_after_all_is_fixed() -> None:
    traced = tracing.trace_module(nn.Sequential(nn.Flatten(), nn.Linear(10, 3)), torch.randn(2, 5, 2), name="flat")
    inputs = (Port("x", "float32", ("batch", "length", 2)),)
    hopeful = replace(traced, signature=replace(traced.signature, inputs=inputs))
    assert ports(api.to_onnx(surgery.empty(hopeful).eval()).graph.input) == {"x": ["batch", 5, 2]}


class Branching(nn.Module):
    """A data-dependent branch that reads what was computed outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        heard = self.stem(x)

        def loud(values: Tensor) -> Tensor:
            return torch.relu(values) * 2 + heard

        def quiet(values: Tensor) -> Tensor:
            return torch.tanh(values) - 1

        return self.head(torch.cond(x.sum() > 0, loud, quiet, (heard,)).mean(-1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.cond asks for it
def test_a_branch_over_data_stays_one_and_reads_what_is_outside() -> None:
    module = Branching()
    with torch.no_grad():
        module.stem[1].running_mean.normal_()
        module.stem[1].running_var.uniform_(0.5, 2)
    traced = tracing.trace_module(module, torch.rand(2, 2, 8), name="branching")
    model = surgery.empty(traced)
    surgery.graft(model, [Graft("stem.0", "full"), Graft("head", "lowrank")], build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.uniform_(0.2, 0.9)
    proto = api.to_onnx(model.eval())
    assert [node.op_type for node in proto.graph.node].count("If") == 1
    assert "stack_trace" not in str(proto) and b".py" not in proto.SerializeToString()
    run = RUNTIMES["onnxruntime"].open(proto.SerializeToString())
    for sign in (1, -1):
        x = sign * torch.rand(3, 2, 8)
        with torch.no_grad():
            np.testing.assert_allclose(run({"x": x.numpy()})[0], model(x).numpy(), rtol=1e-4, atol=1e-5)
    assert api.verify(proto, model)["onnxruntime"] < 1e-5


def test_a_weight_with_two_uses_is_written_once() -> None:
    module = Several()
    module.embedding = nn.Embedding(3000, 32)
    module.layer, module.head = nn.Linear(32, 32), nn.Linear(32, 3000, bias=False)
    module.head.weight = module.embedding.weight
    example = (torch.randint(0, 3000, (2, 5)), torch.ones(2, 5), torch.randn(2, 3))
    model = surgery.empty(tracing.trace_module(module, example, name="tied")).eval()
    proto = api.to_onnx(model)
    assert [tuple(t.dims) for t in proto.graph.initializer if 3000 in t.dims] == [(3000, 32)]
    site = next(site for site in model.traced.sites if site.out_channels == 3000)
    marked = {e.value for node in proto.graph.node for e in node.metadata_props if e.key == "graftkit.site"}
    assert site.key in marked
    assert api.verify(proto, model)["onnxruntime"] < 1e-5


def test_what_is_clipped_in_several_ways_keeps_its_bounds(tmp_path: Path) -> None:
    """The exporter's optimizer calls the bounds that it makes alike, and loses all but the last."""

    class Clipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x) * 2.0
            first = h.clamp(-1, 1).clamp(-0.5, 0.6)
            second = h.clamp(-2, 1).clamp(-0.7, 0.6)
            return self.b(first) + self.c(second) + h.clamp(-3, 3)

    torch.manual_seed(0)
    model = surgery.empty(tracing.trace_module(Clipping(), torch.randn(2, 4), name="clipping"))
    path = api.export(model, tmp_path / "net.onnx")
    assert api.verify(path, model)["onnxruntime"] < 1e-5


def test_what_numpy_thinks_of_a_models_constants_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    class Buckets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            steps = torch.arange(4)
            return self.part(x) + torch.where(steps > 0, torch.log(steps.float()), torch.zeros(4))

    traced = tracing.trace_module(Buckets(), torch.randn(2, 4), name="buckets")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        proto = api.to_onnx(surgery.empty(traced))
    assert not [str(warning.message) for warning in told if issubclass(warning.category, RuntimeWarning)]
    assert "Evaluation failed" not in caplog.text
    assert "Log" not in {node.op_type for node in proto.graph.node}
