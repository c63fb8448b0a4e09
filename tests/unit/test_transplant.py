"""A run's dendrites and weights in files that other tools exported of the given model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from transplant_tools import Run, around, legacy, like_tf, modern, run_of, said, saved, seen, woken

from graftkit.core.errors import ExportError, GraftkitError, MismatchError, RunError
from graftkit.plan import Graft
from graftkit.transplanting import Transplanted, transplant

Made = Callable[[nn.Module, Tensor], onnx.ModelProto]


class Net(nn.Module):
    """Batch norms behind convolutions with a bias and without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.last = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(self.body(self.stem(x)))).mean((2, 3)))


GRAFTS = (
    Graft("stem.0", "full", (("activation", "relu"),), join="call"),
    Graft("body.0", "context", (("mode", "gate"),)),
    Graft("body.0", "lowrank"),
    Graft("head", "full", neurons=(0, 2)),
)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.manual_seed(0)
    return run_of(woken(Net()), (2, 6, 6), GRAFTS, tmp_path_factory.mktemp("net") / "run")


def first(run: Run, rows: int = 2) -> Tensor:
    return torch.from_numpy(run.rows[:rows])


def moved(run: Run, made: onnx.ModelProto | Path, folder: Path, **how: object) -> Transplanted:
    path = made if isinstance(made, Path) else saved(made, folder / "deployed.onnx")
    return transplant(path, run.folder, folder / "new.onnx", trust=True, **how)  # type: ignore[arg-type]


def check(run: Run, made: onnx.ModelProto, folder: Path, *, rows: int = 9) -> Transplanted:
    """The file said what the given model says, and says what the trained one does."""
    done = moved(run, made, folder)
    x = run.rows[:rows]
    (now,) = said(done.path, x)
    np.testing.assert_allclose(now, run.expected(x), rtol=1e-4, atol=1e-5)
    assert not np.allclose(now, said(made, x)[0], rtol=1e-3, atol=1e-3)
    assert done.parity < 1e-5 and done.proved == "outputs"
    untouched(made, onnx.load(done.path), done)
    return done


def untouched(before: onnx.ModelProto, after: onnx.ModelProto, done: Transplanted) -> None:
    """All is byte for byte what it was, but for what is told."""
    now = {tensor.name: tensor.SerializeToString() for tensor in after.graph.initializer}
    assert {t.name for t in before.graph.initializer if now[t.name] != t.SerializeToString()} == set(done.updated)
    nodes = [node.SerializeToString() for node in after.graph.node]
    other = [node for node in before.graph.node if node.SerializeToString() not in nodes]
    assert len(other) == done.changed and len(nodes) == len(before.graph.node) + done.added
    parts = ("input", "output", "value_info", "doc_string", "name")
    assert all(getattr(before.graph, part) == getattr(after.graph, part) for part in parts)
    heads = (
        "metadata_props",
        "opset_import",
        "ir_version",
        "producer_name",
        "producer_version",
        "doc_string",
        "domain",
    )
    assert all(getattr(before, part) == getattr(after, part) for part in heads)


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    found, good = onnxsim.simplify(model)
    assert good
    return found


def slimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    found = onnxslim.slim(model)
    assert isinstance(found, onnx.ModelProto)
    return found


EXPORTS: dict[str, Made] = {
    "legacy": legacy,
    "legacy, nothing folded": lambda m, x: legacy(m, x, folding=False, keep=True),
    "legacy, batch norms kept": lambda m, x: legacy(m, x, keep=True),
    "legacy, opset 11": lambda m, x: legacy(m, x, opset=11),
    "legacy, opset 13": lambda m, x: legacy(m, x, opset=13),
    "modern": modern,
    "onnxsim": lambda m, x: simplified(legacy(m, x, keep=True)),
    "onnxslim": lambda m, x: slimmed(legacy(m, x, keep=True)),
    "onnxslim of modern": lambda m, x: slimmed(modern(m, x)),
    "tensorflow": lambda m, x: like_tf(legacy(m, x)),
    "tensorflow, batch norms kept": lambda m, x: like_tf(legacy(m, x, keep=True)),
}


@pytest.mark.parametrize("export", EXPORTS)
def test_files_of_other_tools(net: Run, export: str, tmp_path: Path) -> None:
    done = check(net, EXPORTS[export](net.module, first(net)), tmp_path)
    assert done.matched == 4 and done.sites == ("stem.0", "body.0", "head") and done.added > 10


class Twice(nn.Module):
    """One model for two views of an image, as networks that compare or that vote have it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.net(x.flip(-1))


@pytest.mark.parametrize("export", [legacy, modern])
def test_a_model_that_the_file_has_twice_receives_dendrites_at_both(net: Run, export: Made, tmp_path: Path) -> None:
    done = moved(net, export(Twice(net.module).eval(), first(net)), tmp_path)
    assert done.proved == "sites" and done.parity < 1e-5 and done.matched == 8
    x = net.rows[:9]
    wanted = net.expected(x) + net.expected(np.ascontiguousarray(x[..., ::-1]))
    np.testing.assert_allclose(said(done.path, x)[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_file_whose_nodes_are_in_no_order_and_whose_output_has_no_shape(net: Run, tmp_path: Path) -> None:
    """onnxruntime runs it, and tools write such."""
    made = legacy(net.module, first(net))
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    done = moved(net, made, tmp_path)
    np.testing.assert_allclose(said(done.path, net.rows)[0], net.expected(net.rows), rtol=1e-4, atol=1e-5)
    path = tmp_path / "apart" / "deployed.onnx"
    path.parent.mkdir()
    onnx.save(made, str(path), save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(ExportError, match=r"is not a readable ONNX file: .*(topologically sorted|Field 'shape')"):
        moved(net, path, path.parent)  # what lies beside a file is checked with it alone
    made = legacy(net.module, first(net))
    made.graph.node[0].input[0] = made.graph.node[0].output[0]  # which waits for itself
    (tmp_path / "waits").mkdir()
    told = refused(net, made, tmp_path / "waits")
    assert "is not a readable ONNX file" in told and "topologically sorted" in told and "\n" not in told


def test_a_file_with_a_fixed_number_of_rows(net: Run, tmp_path: Path) -> None:
    check(net, legacy(net.module, first(net, 1), fixed=True), tmp_path, rows=1)


@pytest.mark.parametrize("custom", [False, True])
def test_what_stands_around_the_model_stays(net: Run, custom: bool, tmp_path: Path) -> None:
    made = around(legacy(net.module, first(net)), custom=custom)
    done = moved(net, made, tmp_path)
    assert done.proved == "sites" and done.parity < 1e-5 and done.matched == 4
    now = onnx.load(done.path)
    untouched(made, now, done)
    assert custom == any(node.domain == "acme" for node in now.graph.node)
    if not custom:
        x = np.random.default_rng(1).integers(0, 256, (50, 6, 6, 2), dtype=np.uint8)
        shares = torch.softmax(torch.from_numpy(net.expected(seen(x))), -1).numpy()
        classes, best = said(done.path, x)
        np.testing.assert_allclose(best, np.sort(shares, -1)[:, ::-1][:, :2], rtol=1e-4)
        assert (classes.ravel() == shares.argmax(-1)).all()


def test_names_say_whose_dendrites_they_are(net: Run, tmp_path: Path) -> None:
    done = moved(net, modern(net.module, first(net)), tmp_path)
    model = onnx.load(done.path)
    new = [n for n in model.graph.node if any(e.key == "graftkit.dendrite" for e in n.metadata_props)]
    assert len(new) == done.added and all("/dendrites/" in node.name for node in new)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    weights = {tensor.name for tensor in model.graph.initializer}
    assert any(name.startswith("body.0.dendrites.0.answer") for name in weights)
    assert len(weights) == len(model.graph.initializer)


def test_weights_beside_the_file_lie_beside_the_new_one(net: Run, tmp_path: Path) -> None:
    made = legacy(net.module, first(net))
    weights = {tensor.name for tensor in made.graph.initializer if tensor.raw_data}
    (tmp_path / "there").mkdir()
    path = tmp_path / "there/deployed.onnx"
    onnx.save(made, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    done = transplant(path, net.folder, tmp_path / "new.onnx", trust=True)
    proto = onnx.load(done.path, load_external_data=False)
    apart = {t.name for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert apart == weights
    assert len(list(tmp_path.glob("new-*.data"))) == 1
    np.testing.assert_allclose(said(done.path, net.rows)[0], net.expected(net.rows), rtol=1e-4, atol=1e-5)


def test_nothing_is_replaced_unless_it_is_asked_for(net: Run, tmp_path: Path) -> None:
    made = legacy(net.module, first(net))
    (tmp_path / "new.onnx").write_text("mine")
    with pytest.raises(RunError, match="exists already; pass --force"):
        moved(net, made, tmp_path)
    assert (tmp_path / "new.onnx").read_text() == "mine"
    assert moved(net, made, tmp_path, force=True).matched == 4


def refused(run: Run, made: onnx.ModelProto, folder: Path, kind: type[GraftkitError] = ExportError) -> str:
    """What is said; nothing is written."""
    with pytest.raises(kind) as caught:
        moved(run, made, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["deployed.onnx"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_another_model_is_refused(net: Run, tmp_path: Path) -> None:
    torch.manual_seed(7)
    told = refused(net, legacy(woken(Net(), 5), first(net)), tmp_path)
    assert told.startswith("deployed.onnx has no layer with the weights of 'stem.0'")


def test_a_file_of_half_precision_is_refused(net: Run, tmp_path: Path) -> None:
    made = legacy(net.module, first(net))
    for tensor in made.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    assert "'stem.0', where" in refused(net, made, tmp_path)


def test_a_quantised_layer_is_refused(net: Run, tmp_path: Path) -> None:
    made = legacy(net.module, first(net))
    conv = [node for node in made.graph.node if node.op_type == "Conv"][2]
    weight = next(t for t in made.graph.initializer if t.name == conv.input[1])
    value = numpy_helper.to_array(weight)
    scale = np.float32(np.abs(value).max() / 127)
    made.graph.initializer.append(numpy_helper.from_array(np.round(value / scale).astype(np.int8), "q"))
    made.graph.initializer.append(numpy_helper.from_array(np.array(scale), "scale"))
    made.graph.initializer.remove(weight)
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale"], [weight.name], name="dq"))
    assert "'last'" in refused(net, made, tmp_path)


def test_a_weight_that_somebody_else_changed_is_refused(net: Run, tmp_path: Path) -> None:
    """The layer is found, but what stands behind it is no longer the model's."""
    made = legacy(net.module, first(net))
    relu = [node for node in made.graph.node if node.op_type == "Relu"][1]
    relu.op_type = "Abs"
    assert "'last'" in refused(net, made, tmp_path, MismatchError)


def test_an_opset_that_is_too_old_is_refused(net: Run, tmp_path: Path) -> None:
    made = legacy(net.module, first(net), opset=11)
    made.opset_import[0].version = 10
    assert "is of opset 10" in refused(net, made, tmp_path)


def test_what_is_no_onnx_file_is_refused(net: Run, tmp_path: Path) -> None:
    (tmp_path / "deployed.onnx").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match="not a readable ONNX file"):
        moved(net, tmp_path / "deployed.onnx", tmp_path)
