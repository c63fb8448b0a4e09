"""The Lightning callback: it grows, the Trainer's checkpoints hold what is needed, and what cannot be is said."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from graftkit.core.errors import RuntimeMissingError, TrainingError
from graftkit.integrations.lightning import Growth

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning has many of its own

ROWS = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
WORDS = (ROWS[:, 0] * ROWS[:, 1] > 0).long()


class Falling:
    """A schedule's function with a state of its own, which LambdaLR saves."""

    def __init__(self, share: float):
        self.share = share

    def __call__(self, step: int) -> float:
        return self.share**step


class Module(lightning.LightningModule):
    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        self.count = optimizers
        self.automatic_optimization = optimizers == 1

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1]))

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.validation_step(batch, index)

    def configure_optimizers(self) -> Any:
        made = [torch.optim.AdamW(self.parameters(), lr=0.05) for _ in range(self.count)]
        return made, [torch.optim.lr_scheduler.LambdaLR(optimizer, Falling(0.9)) for optimizer in made]


def trainer(folder: Path, growth: Growth, epochs: int, **asked: Any) -> lightning.Trainer:
    checkpoints = lightning.callbacks.ModelCheckpoint(dirpath=folder, save_last=True)
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[growth, checkpoints],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        **asked,
    )


def growth(**asked: Any) -> Growth:
    whole = {"attribute": "net", "monitor": "val_loss", "mode": "min", "dendrites": "full", **asked}
    return Growth(ROWS[:2], schedule="rounds:epochs=2,dendrites=5,tries=5", **whole)


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    rows = TensorDataset(ROWS, WORDS)
    return DataLoader(rows, batch_size=16), DataLoader(rows, batch_size=64)


def fitted(folder: Path, epochs: int, ckpt: str | None = None) -> tuple[Module, Growth, lightning.Trainer]:
    module, growing = Module(), growth()
    training = trainer(folder, growing, epochs)
    training.fit(module, *loaders(), ckpt_path=ckpt)
    return module, growing, training


def test_it_grows_and_a_checkpoint_goes_on_with_the_dendrites(tmp_path: Path) -> None:
    whole, growing, _ = fitted(tmp_path / "whole", 7)
    assert len(growing.grower.history) == 3 and whole.net is growing.grower.model
    fitted(tmp_path / "broken", 5)
    saved = torch.load(tmp_path / "broken" / "last.ckpt", weights_only=False)
    assert set(saved["state_dict"]) == set(Module().state_dict())  # it loads into the module as it is written
    assert len(saved["optimizer_states"][0]["param_groups"]) == 1
    again, resumed, _ = fitted(tmp_path / "broken", 7, str(tmp_path / "broken" / "last.ckpt"))
    assert resumed.grower.history == growing.grower.history
    expected = whole.net.state_dict()
    assert again.net.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.net.state_dict().items())


def test_growth_that_has_ended_stops_the_trainer(tmp_path: Path) -> None:
    growing = growth(score=-1e9)  # nothing is better, so five growths are all
    training = trainer(tmp_path, growing, 50)
    module = Module()
    before = {name: tensor.clone() for name, tensor in module.net.state_dict().items()}
    training.fit(module, *loaders())
    assert training.current_epoch == 12 and growing.grower.finished
    assert all(torch.equal(module.net.grafted.base.get_parameter(n), t) for n, t in before.items())


def test_epochs_without_a_validation_do_not_count(tmp_path: Path) -> None:
    growing = growth()
    trainer(tmp_path, growing, 8, check_val_every_n_epoch=2).fit(Module(), *loaders())
    assert sum(record.epochs for record in growing.grower.history) == 4


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no metric 'val_acc' was logged in validation; there are val_loss"):
        trainer(tmp_path, growth(monitor="val_acc"), 1).fit(Module(), *loaders())
    with pytest.raises(TrainingError, match="2 optimizers, and growth works with one"):
        trainer(tmp_path, growth(), 1).fit(Module(optimizers=2), *loaders())


@pytest.mark.parametrize(("name", "extra"), [("lightning", "lightning"), ("transformers", "trainer")])
def test_without_the_framework_the_extra_is_named(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"graftkit.integrations.{name}", raising=False)
    with pytest.raises(RuntimeMissingError, match=rf"graftkit\[{extra}\]"):
        importlib.import_module(f"graftkit.integrations.{name}")


def test_a_checkpoint_of_a_finished_run_comes_back_with_its_dendrites(tmp_path: Path) -> None:
    first, module = growth(), Module()
    trainer(tmp_path, first, 6).fit(module, *loaders())
    again, other = growth(), Module()
    trainer(tmp_path / "again", again, 6).fit(other, *loaders(), ckpt_path=tmp_path / "last.ckpt")
    assert again.grower.plan == first.grower.plan and again.grower.plan.grafts
    assert again.grower.best == first.grower.best and again.grower.finished
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in module.state_dict().items())
    assert again.grower.export(tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_checkpoint_without_its_dendrites_is_not_scored(tmp_path: Path, stage: str) -> None:
    module = Module()
    made = trainer(tmp_path, growth(), 3)
    made.fit(module, *loaders())
    made.validate(module, loaders()[1])  # which is in its best state
    for own, scored in ((made, module), (trainer(tmp_path / "again", growth(), 3), Module())):
        with pytest.raises(TrainingError, match=f"without its dendrites, so {stage} would not see them"):
            getattr(own, stage)(scored, loaders()[1], ckpt_path=tmp_path / "last.ckpt")
        scored.load_state_dict(scored.state_dict())  # anything else may be loaded


def test_what_grows_has_to_be_a_part(tmp_path: Path) -> None:
    for attribute in ("nett", "", "automatic_optimization"):
        with pytest.raises(TrainingError, match=r"has no part .* that could grow .*; there are net"):
            trainer(tmp_path, growth(attribute=attribute), 1).fit(Module(), *loaders())


def test_growth_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        trainer(tmp_path, growing := growth(), 6).fit(Module(), *loaders())
    told = [record.message for record in caplog.records if record.message.startswith("growth: phase 1 ended after")]
    assert len(told) == 1 and "dendrites" in told[0] and growing.grower.history
