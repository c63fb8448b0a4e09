"""Lightning: a network that reads handwritten digits grows dendrites while it trains, and becomes one ONNX file.

pip install 'graftkit[demo,lightning]'
"""

from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import graftkit as gk
from graftkit.integrations.lightning import Growth


class Digits(lightning.LightningModule):
    """Nothing in it knows of dendrites."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)
        )

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss."""
        return cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Log what growth looks at."""
        self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> dict[str, object]:
        """An optimizer and its schedule, as ever."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, eta_min=1e-4),
        }


def main(epochs: int = 30) -> Path:
    """Train, grow, export."""
    lightning.seed_everything(0)
    rows = gk.load_data("digits")
    growth = Growth(rows.example(), attribute="net", monitor="val_acc", schedule="rounds:epochs=10,dendrites=2")
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[growth],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), DataLoader(rows.train, 64, shuffle=True), DataLoader(rows.validation, 512))
    grower = growth.grower
    print(f"{grower.best:.4f} with {len(grower.plan.grafts)} dendrites: {grower.stopped}")
    return grower.export("lightning_digits.onnx", rows=rows)


if __name__ == "__main__":
    print(main())
