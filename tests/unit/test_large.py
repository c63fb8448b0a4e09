"""A model too large for one file: its weights are streamed into a file beside it, and nothing is left half-written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from graftkit import api, folding, shipping, surgery, tracing
from graftkit.core.errors import ExportError, MismatchError, RunError
from graftkit.dendrites import build_dendrite
from graftkit.folding.written import Written, reference
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.runtimes import RUNTIMES

SMALL = 2_000  # bytes that one file may have here


class Net(nn.Module):
    """Linear over positions (its weight is turned in ONNX), Conv with batch norm (folded), one computed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.layer = nn.Linear(16, 16)
        self.conv = nn.Sequential(nn.Conv1d(16, 24, 3, bias=False), nn.BatchNorm1d(24), nn.ReLU())
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(24, 24))
        self.head = nn.Linear(24, 5)

    def forward(self, ids: Tensor) -> Tensor:
        heard = torch.relu(self.layer(self.embedding(ids)))
        return self.head(torch.tanh(self.normed(self.conv(heard.transpose(1, 2)).mean(-1))))


def made(seed: int = 0) -> GraftedModel:
    torch.manual_seed(seed)
    module = Net()
    with torch.no_grad():
        module.conv[1].running_mean.normal_()
        module.conv[1].running_var.uniform_(0.5, 2)
    model = surgery.empty(tracing.trace_module(module, torch.randint(0, 40, (2, 7)), name="net"))
    grafts = (Graft("layer", "full", (("activation", "relu"),)), Graft("conv.0", "full"), Graft("head", "lowrank"))
    surgery.graft(model, grafts, build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.uniform_(0.2, 0.9)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    return made()


@pytest.fixture(scope="module")
def written(model: GraftedModel) -> Written:
    return shipping.build(model, large=SMALL)


@pytest.fixture(scope="module")
def other() -> GraftedModel:
    return made(1)


@pytest.fixture(scope="module")
def rewritten(other: GraftedModel) -> Written:
    return shipping.build(other, large=SMALL)


def put(written: Written, path: Path, one_file: int = SMALL) -> Path:
    with shipping.staged(written, path, one_file=one_file):
        pass
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def data_of(path: Path) -> Path:
    (data,) = folding.data_files(path)
    return data


def test_a_model_over_the_limit_has_its_weights_beside_it(model: GraftedModel, tmp_path: Path) -> None:
    path = api.export(model, tmp_path / "model.onnx", one_file=SMALL)
    data = data_of(path)
    assert names(tmp_path) == sorted([data.name, "model.onnx"])
    assert data.name == f"model-{hashlib.sha256(data.read_bytes()).hexdigest()[:16]}.data"
    onnx.checker.check_model(str(path), full_check=True)
    stored = onnx.load(path, load_external_data=False)
    apart = [tensor for tensor in stored.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in apart]
    assert len(apart) >= 4 and all(int(entry["offset"]) % 2**16 == 0 for entry in entries)
    assert not any(tensor.raw_data for tensor in apart)
    assert api.verify(path, model, runtimes=("onnxruntime", "reference")).keys() == {"onnxruntime", "reference"}


def test_it_computes_what_the_one_file_computes(model: GraftedModel, written: Written, tmp_path: Path) -> None:
    whole = api.to_onnx(model)
    path = put(written, tmp_path / "model.onnx")
    loaded = onnx.load(path)
    ours, theirs = (
        {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer} for proto in (whole, loaded)
    )
    assert ours.keys() == theirs.keys() and "layer.weight" in ours
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert [n.SerializeToString() for n in whole.graph.node] == [n.SerializeToString() for n in loaded.graph.node]
    assert [n.op_type for n in whole.graph.node].count("Transpose") == 1  # of the values: weights are turned for good
    assert "BatchNormalization" not in [n.op_type for n in whole.graph.node]
    ids = torch.randint(0, 40, (3, 9)).numpy()
    first, second = (RUNTIMES["onnxruntime"].open(what)({"ids": ids})[0] for what in (whole.SerializeToString(), path))
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_one_file_is_the_message_to_the_byte(written: Written, rewritten: Written, tmp_path: Path) -> None:
    for model in (written, rewritten):
        path = put(model, tmp_path / "model.onnx", one_file=2**30)
        assert path.read_bytes() == model.whole().SerializeToString()
        onnx.checker.check_model(str(path), full_check=True)


def test_weights_are_views_of_the_live_model_until_they_are_written(model: GraftedModel) -> None:
    written = shipping.build(model, large=256)
    storages = [p.detach().numpy() for p in model.parameters()]
    loads = {tensor.name: load() for tensor, load in written.apart()}
    shared = {name for name, value in loads.items() if any(np.shares_memory(value, own) for own in storages)}
    assert {"embedding.weight", "layer.weight"} <= shared
    assert written.proto.ByteSize() < 40_000


def test_a_replaced_model_keeps_its_weights_until_the_new_one_is_there(
    model: GraftedModel, other: GraftedModel, written: Written, rewritten: Written, tmp_path: Path
) -> None:
    path = put(written, tmp_path / "model.onnx")
    earlier, content = data_of(path), path.read_bytes()
    with shipping.staged(rewritten, path, one_file=SMALL) as draft:
        assert earlier.exists() and path.read_bytes() == content and draft.parent == tmp_path
        assert api.verify(path, model) and api.verify(draft, other)
    assert names(tmp_path) == sorted([data_of(path).name, "model.onnx"]) and data_of(path) != earlier
    assert api.verify(path, other)
    put(written, path, one_file=2**30)  # in one file: the weights beside it go
    assert names(tmp_path) == ["model.onnx"] and api.verify(path, model)


def test_the_same_model_again_keeps_its_file(model: GraftedModel, written: Written, tmp_path: Path) -> None:
    path = put(written, tmp_path / "model.onnx")
    before = names(tmp_path)
    assert names(put(written, path).parent) == before and api.verify(path, model)


def test_other_files_are_left_alone(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(written.whole(), path, save_as_external_data=True, location="theirs.data", size_threshold=100)
    (tmp_path / "model-0123456789abcdef.data").write_text("of nobody")
    put(written, path)
    assert {"theirs.data", "model-0123456789abcdef.data"} < set(names(tmp_path))


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("one_file", [SMALL, 2**30])
def test_nothing_half_written_stays_where_it_fails(
    written: Written, rewritten: Written, tmp_path: Path, there: bool, one_file: int
) -> None:
    path = tmp_path / "model.onnx"
    if there:
        put(rewritten, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(MismatchError), shipping.staged(written, path, one_file=one_file):
        raise MismatchError("they differ")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_weight_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    def load() -> np.ndarray:
        raise OSError("gone")

    graph = onnx.helper.make_graph([], "none", [], [], [reference("w", (8, 8), onnx.TensorProto.FLOAT, "0")])
    written = Written(onnx.helper.make_model(graph), {"0": load})
    staged = shipping.staged(written, tmp_path / "model.onnx", one_file=1)
    with pytest.raises(RunError, match=r"model\.onnx cannot be written: gone"), staged:
        pass
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_is_told(written: Written, tmp_path: Path) -> None:
    for one_file in (SMALL, 2**30):
        with pytest.raises(RunError, match=r"model\.onnx cannot be written: No such file") as caught:
            put(written, tmp_path / "none" / "model.onnx", one_file)
        assert "\n" not in str(caught.value)


def test_a_wrong_weight_beside_the_file_is_located(model: GraftedModel, written: Written, tmp_path: Path) -> None:
    path = put(written, tmp_path / "model.onnx")
    data = data_of(path)
    stored = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    entry = {entry.key: entry.value for entry in stored["conv.0.weight"].external_data}
    content = bytearray(data.read_bytes())
    content[int(entry["offset"]) : int(entry["offset"]) + 4] = np.float32(9).tobytes()
    data.write_bytes(content)
    with pytest.raises(MismatchError, match=r"first part at site 'conv\.0'"):
        api.verify(path, model)
    assert names(tmp_path) == sorted([data.name, "model.onnx"])


def test_missing_weights_are_told(model: GraftedModel, written: Written, tmp_path: Path) -> None:
    path = put(written, tmp_path / "model.onnx")
    data_of(path).unlink()
    with pytest.raises(ExportError, match="is not a readable ONNX file") as caught:
        api.verify(path, model)
    assert "\n" not in str(caught.value)


def test_weights_outside_of_the_folder_are_not_read(model: GraftedModel, written: Written, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = put(written, tmp_path / "inner" / "model.onnx")
    data = data_of(path)
    data.rename(tmp_path / data.name)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value if entry.key != "location" else f"../{data.name}"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ExportError, match="is not a readable ONNX file"):
        api.verify(path, model)
    with pytest.raises(ExportError, match="is not a readable ONNX file"):
        api.inspect(path)


def test_one_message_is_refused_for_more_than_it_can_hold() -> None:
    huge = reference("w", (2**29,), onnx.TensorProto.FLOAT, "0")
    graph = onnx.helper.make_graph([], "none", [], [], [huge])
    with pytest.raises(ExportError, match=r"the model has 2\.0 GiB, more than one ONNX message holds"):
        Written(onnx.helper.make_model(graph), {"0": lambda: np.zeros(0)}).whole()


@pytest.mark.parametrize("opset", [17, 18, 25])
def test_every_opset_can_have_its_weights_apart(model: GraftedModel, tmp_path: Path, opset: int) -> None:
    path = api.export(model, tmp_path / "model.onnx", one_file=SMALL, opset=opset)
    stored = onnx.load(path, load_external_data=False)
    assert [entry.version for entry in stored.opset_import] == [opset]
    assert [value.name for value in stored.graph.input] == ["ids"]
    assert api.inspect(path).parameters == model.parameter_count()


MEASURE = """
import gc, json, sys
from pathlib import Path
import torch
from torch import nn
import graftkit as gk
from graftkit import shipping

def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))

def ship(width, layers, path):
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=width**-0.5)
    traced = gk.trace(model, torch.randn(2, 3, width))
    grafted = gk.graft(traced, gk.make_plan(traced, dendrites="lowrank", sites=["0"]))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    written = shipping.build(grafted)
    for place, one_file in ((path, 2**20), (path.with_stem(path.stem + "_whole"), 2**30)):
        with shipping.staged(written, place, one_file=one_file):
            pass
    return sum(p.numel() for p in model.parameters()) * 4

ship(8, 2, Path(sys.argv[1]) / "small.onnx")
gc.collect()
base = resident("VmRSS")
size = ship(2048, 16, Path(sys.argv[1]) / "large.onnx")
print(json.dumps([size, resident("VmHWM") - base]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says how much memory was resident")
def test_building_and_writing_take_little_more_than_the_model_itself(tmp_path: Path) -> None:
    """256 MiB of weights, each turned for ONNX: one copy of them would show."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEASURE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, peak = json.loads(done.stdout.splitlines()[-1])
    assert size > 250 * 2**20
    assert peak < 1.7 * size
    assert (tmp_path / "large.onnx").stat().st_size < 2**20
    assert (tmp_path / "large_whole.onnx").stat().st_size > size
