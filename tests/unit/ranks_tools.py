"""Starts several processes that know each other, as torchrun would."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

Task = Callable[[int, int], Any]  # of the number of a process, and how many there are


def spread(tasks: Mapping[str, Task], world: int, folder: Path) -> dict[str, list[Any]]:
    """What each of so many processes found, by task; they work in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_work, (world, port, tasks, folder), nprocs=world)
    return {
        task: [torch.load(folder / f"{task}{rank}.pt", weights_only=False) for rank in range(world)] for task in tasks
    }


def _work(rank: int, world: int, port: int, tasks: Mapping[str, Task], folder: Path) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    for name, task in tasks.items():
        torch.save(task(rank, world), folder / f"{name}{rank}.pt")
    distributed.destroy_process_group()
