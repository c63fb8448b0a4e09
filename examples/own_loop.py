"""A loop of one's own, on one process or several: it grows dendrites, may be killed at any time, and exports.

pip install 'graftkit[demo]'
python examples/own_loop.py
torchrun --nproc-per-node 2 examples/own_loop.py
"""

import os
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import graftkit as gk


def main(epochs: int = 30) -> Path | None:
    """Train, grow, export; returns the file in the process that writes it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        distributed.init_process_group("gloo")
    first = world == 1 or distributed.get_rank() == 0
    torch.manual_seed(0)
    rows = gk.load_data("digits")
    inputs, targets = rows.validation.tensors
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, eta_min=1e-4)
    grower = gk.Grower(model, rows.example(), optimizer, lr_scheduler=schedule, schedule="rounds:epochs=10,dendrites=2")
    trained = DistributedDataParallel(grower.model) if world > 1 else grower.model
    sampler = DistributedSampler(rows.train) if world > 1 else None
    loader = DataLoader(rows.train, batch_size=64 // world, shuffle=sampler is None, sampler=sampler)
    begin = grower.resume("own_loop")  # 0 where there is no checkpoint
    for epoch in range(begin, epochs):
        if grower.finished:
            break
        if sampler is not None:
            sampler.set_epoch(epoch)
        grower.model.train()
        for batch, labels in loader:
            optimizer.zero_grad()
            cross_entropy(trained(batch), labels).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            score = float((grower.model.eval()(inputs).argmax(1) == targets).float().mean())
        grower.step(score)
        grower.save("own_loop", epochs=epoch + 1)
    grower.finish()
    if first:
        print(f"{grower.best:.4f} with {len(grower.plan.grafts)} dendrites: {grower.stopped}")
    found = grower.export("own_loop.onnx", rows=rows) if first else None
    if world > 1:
        distributed.barrier()  # who leaves while gloo still ends an exchange is aborted
        distributed.destroy_process_group()
    return found


if __name__ == "__main__":
    print(main())
