"""The sample models: they load, classify as well as their README says, and never saw a test row."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from graftkit.contracts import SourceRequest
from graftkit.core.errors import SourceError
from graftkit.datasets import load_data
from graftkit.sources import load

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"
# Validation accuracy, in percent: a little below the measured one, because kernels differ between machines.
FLOORS = {"cnn": 97.7, "mlp": 96.6, "vit": 96.6, "gru": 95.2}
TRUSTED = ("vit", "gru")


def sample(name: str) -> nn.Module:
    model = load(SourceRequest(str(SAMPLES / f"{name}.pt"), trust=name in TRUSTED)).model
    assert isinstance(model, nn.Module)
    return model


def rows(part: str) -> tuple[Tensor, Tensor]:
    return getattr(load_data("digits", seed=0, input_shape=None), part).tensors


@pytest.mark.parametrize("name", FLOORS)
def test_it_gives_ten_scores_in_eval_mode(name: str) -> None:
    model = sample(name)
    assert not any(module.training for module in model.modules())
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("name", FLOORS)
def test_it_is_as_good_as_it_was(name: str) -> None:
    inputs, labels = rows("validation")
    with torch.no_grad():
        right = (sample(name)(inputs).argmax(dim=1) == labels).double().mean().item()
    assert 100 * right >= FLOORS[name]


@pytest.mark.parametrize("name", FLOORS)
def test_trust_is_needed_for_classes_of_its_own_only(name: str) -> None:
    if name not in TRUSTED:
        sample(name)
        return
    with pytest.raises(SourceError, match=f"wants to import {name}\\."):
        load(SourceRequest(str(SAMPLES / f"{name}.pt")))


@pytest.mark.parametrize("name", FLOORS)
def test_it_is_small(name: str) -> None:
    parameters = sum(parameter.numel() for parameter in sample(name).parameters())
    assert 1_000 < parameters < 15_000
    assert (SAMPLES / f"{name}.pt").stat().st_size < 200_000
    assert f"| {parameters:,} |" in (SAMPLES / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:The tensor attributes self.gru._flat_weights:UserWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FLOORS)
def test_it_exports_for_any_batch(name: str, training: bool) -> None:
    model = sample(name).train(training)
    program = torch.export.export(model, (torch.rand(3, 1, 8, 8),), dynamic_shapes=({0: Dim.DYNAMIC},))
    assert program.module(check_guards=False)(torch.rand(7, 1, 8, 8)).shape == (7, 10)


@pytest.mark.parametrize("where", ["root", "elsewhere"])
@pytest.mark.parametrize("name", TRUSTED)
def test_a_fresh_process_loads_it_from_anywhere(tmp_path: Path, name: str, where: str) -> None:
    folder, spec = (ROOT, f"sample_models/{name}.pt") if where == "root" else (tmp_path, str(SAMPLES / f"{name}.pt"))
    code = (
        "import sys; from graftkit.contracts import SourceRequest; from graftkit.sources import load\n"
        "sys.path = [entry for entry in sys.path if entry]\n"
        f"print(type(load(SourceRequest({spec!r}, trust=True)).model).__module__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == name, done.stderr


def test_training_reads_graftkits_split_and_nothing_else() -> None:
    """The script has no other source of rows, and the split it uses keeps test rows out of training."""
    source = (SAMPLES / "train.py").read_text()
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
    }
    assert "graftkit.datasets" in imported
    assert "sklearn.datasets" not in imported
    assert 'load_data("digits", seed=0, input_shape=None)' in source


def test_no_row_is_in_two_parts() -> None:
    parts = {part: {row.numpy().tobytes() for row in rows(part)[0]} for part in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
    assert len(rows("train")[0]) > 1_000
