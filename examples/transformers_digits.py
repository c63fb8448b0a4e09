"""transformers: a small vision transformer reads handwritten digits, grows dendrites, and becomes one ONNX file.

pip install 'graftkit[demo,trainer]'
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

import graftkit as gk
from graftkit.integrations.transformers import Growth


class Pictures(Dataset[dict[str, Tensor]]):
    """Rows as the Trainer wants them."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        picture, digit = self.rows[index]
        return {"pixel_values": picture, "labels": digit}


def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """What the Trainer minimises."""
    return cross_entropy(outputs["logits"], labels)


def accuracy(found: Any) -> dict[str, float]:
    """What the Trainer evaluates."""
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def main(epochs: int = 24) -> Path:
    """Train, grow, export."""
    set_seed(0)
    rows = gk.load_data("digits")
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=10,
    )
    model = ViTForImageClassification(config)
    example = {"pixel_values": torch.as_tensor(rows.example())}
    growth = Growth(model, example, metric="eval_accuracy", schedule="rounds:epochs=8,dendrites=2")
    arguments = TrainingArguments(
        output_dir="transformers_digits",
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=1e-2,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    trainer = Trainer(
        model=growth.model,
        args=arguments,
        train_dataset=Pictures(rows.train),
        eval_dataset=Pictures(rows.validation),
        compute_loss_func=loss,
        compute_metrics=accuracy,
        callbacks=[growth],
    )
    trainer.train()
    grower = growth.grower
    print(f"{grower.best:.4f} with {len(grower.plan.grafts)} dendrites: {grower.stopped}")
    return grower.export("transformers_digits.onnx", rows=rows)


if __name__ == "__main__":
    print(main())
