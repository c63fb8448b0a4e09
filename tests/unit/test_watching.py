"""Curves in TensorBoard and Weights & Biases: what is told there, once, also by a run that goes on."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from graftkit import augmenting
from graftkit.cli.augment import augment
from graftkit.contracts import Observer, SourceRequest
from graftkit.core.errors import RunError, RuntimeMissingError
from graftkit.core.records import EpochRecord
from graftkit.fitting import Settings
from graftkit.loggers import LOGGERS
from graftkit.request import Request


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), tmp_path / "net.pt")
    rows = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
    np.savez(tmp_path / "rows.npz", x_train=rows, y_train=(rows[:, 0] * rows[:, 1] > 0).astype("int64"))
    settings = Settings(epochs=4, cycles=1, margin=0)
    return Request(SourceRequest("net.pt"), "rows.npz", tmp_path / "run", settings=settings, loggers=("tensorboard",))


def curves(run: Path) -> dict[str, dict[int, float]]:
    """The scalars by tag and step; none may be there twice."""
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert event.step not in found[tag], tag
            found[tag][event.step] = event.value
    return found


def told(records: list[EpochRecord]) -> dict[str, dict[int, float]]:
    wanted: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        for key in ("loss", "validation", "learning_rate"):
            wanted[f"{record.arm}/seed_{record.seed}/{key}"][record.epoch] = getattr(record, key)
    return wanted


def same(one: dict[str, dict[int, float]], other: dict[str, dict[int, float]]) -> bool:
    return one.keys() == other.keys() and all(one[tag] == pytest.approx(other[tag], rel=1e-5) for tag in one)


def test_every_epoch_is_a_step_of_its_arms_curves(asked: Request) -> None:
    seen: list[EpochRecord] = []
    augmenting.augment(asked, Observer(on_epoch=lambda record, of: seen.append(record)))
    assert {record.arm for record in seen} == {"grafted", "control"} and len(seen) == 8
    assert same(curves(asked.out), told(seen))
    assert json.loads((asked.out / "metrics.json").read_text())["settings"]["loggers"] == ["tensorboard"]


def test_a_run_that_goes_on_tells_each_epoch_once(asked: Request) -> None:
    def stop(record: EpochRecord, of: int) -> None:
        if record.arm == "control" and record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(augmenting.Interrupted):
        augmenting.augment(asked, Observer(on_epoch=stop))
    assert curves(asked.out)
    seen: list[EpochRecord] = []
    augmenting.resume(asked.out, Observer(on_epoch=lambda record, of: seen.append(record)))
    assert len(seen) == 8 and same(curves(asked.out), told(seen))


def test_weights_and_biases_gets_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with LOGGERS.find("wandb").open(tmp_path / "logs", "net", "key") as logger:
        logger.log_hyperparams({"epochs": 4})
        logger.log_metrics({"grafted/seed_0/validation": 0.25}, step=1)
    (kept,) = tmp_path.rglob("run-key.wandb")
    end = time.monotonic() + 30
    while b"grafted/seed_0/validation" not in kept.read_bytes():  # its own process writes it
        assert time.monotonic() < end
        time.sleep(0.05)
    assert b"0.25" in kept.read_bytes()


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_package_that_is_not_installed_is_told_before_anything_is_read(
    asked: Request, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    from lightning_fabric.loggers import tensorboard

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    stages: list[str] = []
    with pytest.raises(RuntimeMissingError, match=rf"graftkit\[{name}\]"):
        augmenting.augment(replace(asked, loggers=(name,)), Observer(on_stage=stages.append))
    assert stages == [] and not asked.out.exists()


def test_weights_and_biases_without_a_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**given: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    refused = pytest.raises(RunError, match=r"No API key configured.*WANDB_MODE=offline")
    with refused, LOGGERS.find("wandb").open(tmp_path, "net", "key"):
        raise AssertionError


def test_nothing_is_logged_that_was_not_asked_for(asked: Request) -> None:
    augmenting.augment(replace(asked, loggers=()), Observer())
    assert not (asked.out / "logs").exists()
    history = [json.loads(line) for line in (asked.out / "history.jsonl").read_text().splitlines()]
    assert [phase["arm"] for phase in history] == ["grafted", "control"] and math.isfinite(history[0]["validation"])


def test_the_command_line_offers_what_is_in_the_table() -> None:
    (option,) = [parameter for parameter in augment.params if parameter.name == "loggers"]
    assert tuple(option.type.choices) == tuple(LOGGERS)  # type: ignore[attr-defined]
