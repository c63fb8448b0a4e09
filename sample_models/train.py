"""Trains the four sample models on scikit-learn's digits and writes their `.pt` files: python sample_models/train.py

Trains on the training rows of graftkit's own split until the learning rate has come down to zero. Neither validation
nor test rows decide anything, so the validation score of a sample model is an honest one to start from.
"""

import math
import time
from pathlib import Path
from types import ModuleType

import cnn
import gru
import mlp
import torch
import vit
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graftkit.datasets import load_data

SEED = 7
EPOCHS = 200
WARM_UP = 5
BATCH = 64
HERE = Path(__file__).parent
MODELS: dict[str, tuple[ModuleType, float]] = {  # the module with build(), and the learning rate
    "cnn": (cnn, 5e-3),
    "mlp": (mlp, 5e-3),
    "vit": (vit, 3e-3),
    "gru": (gru, 5e-3),
}

Rows = tuple[Tensor, Tensor]


def main() -> None:
    """Train all four, save them, and print the table."""
    torch.set_num_threads(1)
    data = load_data("digits", seed=0, input_shape=None)
    train, validation, test = (part.tensors for part in (data.train, data.validation, data.test))
    print("| model | parameters | validation | test | seconds |\n| --- | --- | --- | --- | --- |")  # noqa: T201
    for name, (module, rate) in MODELS.items():
        torch.manual_seed(SEED)
        started = time.perf_counter()
        model = fit(module.build(), train, rate)
        torch.save(model, HERE / f"{name}.pt")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        shown = " | ".join(f"{100 * score(model, rows):.2f}" for rows in (validation, test))
        print(f"| {name} | {parameters:,} | {shown} | {time.perf_counter() - started:.0f} |", flush=True)  # noqa: T201


def fit(model: nn.Module, train: Rows, rate: float) -> nn.Module:
    """AdamW with warm-up and a cosine down to zero; the trained model, in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    steps = math.ceil(len(train[0]) / BATCH)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    for _ in range(EPOCHS):
        _train_epoch(model, train, optimizer, scheduler)
    return model.eval()


def score(model: nn.Module, rows: Rows) -> float:
    """Accuracy."""
    model.eval()
    with torch.no_grad():
        outputs = model(rows[0])
    return (outputs.argmax(dim=1) == rows[1]).double().mean().item()


def _train_epoch(
    model: nn.Module,
    train: Rows,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    model.train()
    inputs, targets = train
    for batch in torch.randperm(len(inputs)).split(BATCH):
        optimizer.zero_grad()
        cross_entropy(model(inputs[batch]), targets[batch], label_smoothing=0.05).backward()
        optimizer.step()
        scheduler.step()


def _share(step: int, steps: int) -> float:
    """The share of the full learning rate at a step, of `steps` an epoch."""
    epoch = (step + 1) / steps
    return min(epoch / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * epoch / EPOCHS))


if __name__ == "__main__":
    main()
