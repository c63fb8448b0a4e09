"""A run's folder: begun, replaced, given up, kept, written and read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graftkit import surgery, tracing
from graftkit.core import atomic
from graftkit.core.errors import PlanError, RunError
from graftkit.core.records import PhaseRecord
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.precisions import PRECISIONS
from graftkit.run_folder import HISTORY, INSPECTION, PLAN, SOURCE, RunFolder, is_run


def files(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    """A finished run."""
    folder = RunFolder(tmp_path / "run")
    folder.begin(force=False)
    folder.write_json(SOURCE, {"old": True, "graftkit": "0.1.0"})
    folder.keep()
    return folder


def test_begin_makes_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.begin(force=False)
    assert folder.path.is_dir() and not list(folder.path.iterdir()) and not is_run(folder.path)
    folder.begin(force=False)
    folder.write_json(SOURCE, {})
    assert is_run(folder.path)


def test_a_run_is_replaced_only_when_asked(old: RunFolder) -> None:
    with pytest.raises(RunError, match="is not empty; pass --force"):
        old.begin(force=False)
    assert is_run(old.path)
    old.begin(force=True)
    assert not list(old.path.iterdir())
    old.write_json(SOURCE, {"new": True})
    old.keep()
    assert json.loads((old.path / SOURCE).read_text()) == {"new": True}
    assert [file.name for file in old.path.parent.iterdir()] == ["run"]


def test_giving_up_brings_the_old_run_back(old: RunFolder) -> None:
    before = files(old.path)
    old.begin(force=True)
    old.write_json(SOURCE, {"new": True})
    old.give_up()
    assert files(old.path) == before and [file.name for file in old.path.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("name", [*PRECISIONS, "gate"])
def test_what_export_writes_into_the_folder_is_the_runs_own(old: RunFolder, name: str) -> None:
    (old.path / f"model-{name}.onnx").touch()
    (old.path / f"model-{name}-{'0' * 16}.data").touch()
    (old.path / "evaluation.json").touch()
    old.begin(force=True)
    old.give_up()
    assert (old.path / f"model-{name}.onnx").exists()
    (old.path / "model-mine.onnx").touch()
    with pytest.raises(RunError, match=r"files that no run makes \(model-mine.onnx\)"):
        old.begin(force=True)


def test_a_run_killed_early_or_while_it_wrote_can_be_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(force=False)
    folder.write_json("request.json", {"versions": {"graftkit": "0.1.0"}})
    for name in (".metrics.json.123.tmp", ".model.onnx.123.draft", ".model.onnx.12.data", ".probe.7"):
        (folder.path / name).touch()
    folder.begin(force=True)
    assert not list(folder.path.iterdir())
    folder.keep()
    folder.write_json("request.json", {"versions": {"graftkit": "0.1.0"}})
    (folder.path / ".notes.12.tmp").touch()
    with pytest.raises(RunError, match="files that no run makes"):
        folder.begin(force=True)


def test_a_run_that_could_go_on_is_not_taken_for_one_that_failed(old: RunFolder) -> None:
    before = files(old.path)
    old.begin(force=True)  # a second run replaces the first, and is killed
    old.progress.mkdir(parents=True)
    (old.progress / "0-grafted-now.000001.json").touch()
    with pytest.raises(RunError, match=r"--resume .* goes on with it"):
        old.begin(force=False)
    assert old.can_go_on
    old.write_json(SOURCE, {"graftkit": "0.1.0"})
    with pytest.raises(RunError, match="goes on with it, or delete the folder first"):
        old.begin(force=True)
    assert old.can_go_on
    old.give_up()
    assert files(old.path) == before


def test_giving_up_a_first_run_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(force=False)
    folder.write_json(SOURCE, {})
    folder.give_up()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(RunError, match="does not replace it" if force else "is not empty"):
        RunFolder(tmp_path).begin(force=force)
    assert files(tmp_path) == {"thesis.tex": "years"}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunError, match="is a file; name a folder"):
        RunFolder(tmp_path / "run").begin(force=True)
    with pytest.raises(RunError, match="cannot be written") as caught:
        RunFolder(tmp_path / "run" / "inner").begin(force=False)
    assert "\n" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        assert path.read_bytes() == b"old"  # written beside it first
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        atomic.write_bytes(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"old"


def test_text_is_utf8(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "file", "×–")
    assert (tmp_path / "file").read_bytes().decode("utf-8") == "×–"


def test_history_is_a_line_a_phase(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    phases = [PhaseRecord("grafted", 0, cycle, "neuron", 3, 0.5, True, 10, cycle) for cycle in (1, 2)]
    folder.write_history(phases)
    lines = (tmp_path / HISTORY).read_text().splitlines()
    assert [PhaseRecord(**json.loads(line)) for line in lines] == phases


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("turned", torch.randn(4, 4).t())
        self.register_buffer("none", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.table(x).mean(1)) @ self.turned) + self.none.sum()


@pytest.fixture(scope="module")
def tied() -> GraftedModel:
    torch.manual_seed(0)
    model = surgery.empty(tracing.trace_module(Tied(), (torch.randint(0, 5, (2, 3)),), name="tied"))
    surgery.graft(model, [Graft("head", "full", neurons=(1, 3))], build_dendrite, seed=0)
    return model


def test_a_checkpoint_round_trips_with_tied_weights(tied: GraftedModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_checkpoint(tied)
    before = tied.snapshot()
    read = folder.read_checkpoint()
    assert set(read) == set(before)
    assert all(
        torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype for name, tensor in read.items()
    )
    aliases = json.loads((tmp_path / "checkpoint" / "state.json").read_text())["aliases"]
    assert set(aliases) | set(aliases.values()) == {"base.table.weight", "base.head.weight"}
    with torch.no_grad():
        for p in tied.parameters():
            p.add_(1)
    tied.restore(read)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tied.state_dict().items())
    assert tied.get_parameter("base.head.weight") is tied.get_parameter("base.table.weight")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("state.json", None),
        ("state.json", b"{"),
        ("state.json", b"{}"),
        ("state.json", b"[]"),
        ("state.json", b"\xff\xfe"),
        ("state.json", b'{"aliases": {"a": "nowhere"}}'),
        ("state.json", b'{"aliases": ["a"]}'),
    ],
)
def test_a_broken_checkpoint_is_refused(tied: GraftedModel, tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = RunFolder(tmp_path)
    folder.write_checkpoint(tied)
    if content is None:
        (tmp_path / "checkpoint" / name).unlink()
    else:
        (tmp_path / "checkpoint" / name).write_bytes(content)
    with pytest.raises(RunError, match="cannot be read") as caught:
        folder.read_checkpoint()
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(tied: GraftedModel, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_checkpoint(tied)
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(RunError, match="cannot be read"):
        folder.read_checkpoint()


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_broken_json_is_refused(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    for name in (SOURCE, PLAN, INSPECTION):
        (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match="cannot be read"):
        folder.read_json(SOURCE)
    with pytest.raises(RunError, match="cannot be read"):
        folder.read_plan()
    with pytest.raises(RunError, match="cannot be read"):
        folder.read_inspection()


def test_json_that_is_something_else_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json(PLAN, {"grafts": 3})
    folder.write_json(INSPECTION, {"sites": []})
    with pytest.raises(PlanError, match="not a graft plan"):
        folder.read_plan()
    with pytest.raises(RunError, match="is broken"):
        folder.read_inspection()
    with pytest.raises(RunError, match="cannot be read"):
        folder.read_json("missing.json")
