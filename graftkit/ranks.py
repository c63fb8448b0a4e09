"""Several processes that train one model, each with its share of the rows: what they agree on, and how they add up."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import Parameter

Value = TypeVar("Value")


def several() -> bool:
    """Whether other processes train the same model."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if several() else 1


def number() -> int:
    """Which of the processes this is."""
    return distributed.get_rank() if several() else 0


@contextmanager
def launched(device: str) -> Iterator[None]:
    """A context in which the processes that torchrun started know each other; where it started none, nothing is done.

    Args:
        device: of all of them, as "cuda".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not distributed.is_torchelastic_launched():
        yield
        return
    from lightning_fabric import Fabric

    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # which tells of each process
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = device.partition(":")[0]
    Fabric(accelerator=kind, devices=local, num_nodes=world // local, strategy="ddp").launch()
    yield
    distributed.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """Of several devices of a kind the one of this process."""
    if not several() or device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))


def told(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them."""
    if not several():
        return make()
    found: list[Any] = [make() if number() == 0 else None]
    distributed.broadcast_object_list(found)
    value: Value = found[0]
    return value


def gathered(own: Any) -> list[Any]:
    """What each process has, in their order."""
    if not several():
        return [own]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def agreed(value: float, device: torch.device) -> float:
    """The mean of a number over all processes; NaN where one says NaN."""
    return total(value, device) / count()


def total(value: float, device: torch.device) -> float:
    """The sum of a number over all processes; NaN where one says NaN."""
    return float(_sum(torch.tensor([value], dtype=torch.float64), device)) if several() else value


def weighed(loss: Tensor, rows: int) -> tuple[Tensor, float, int]:
    """This process's part of the mean loss over all processes' rows, that mean, and how many rows those are.

    Args:
        loss: the mean over this process's own rows, which may be those of all the others where they are few.
    """
    if not several():
        return loss, float(loss.detach()), rows
    table = torch.zeros(count(), 2, dtype=torch.float64)
    table[number()] = torch.tensor([float(loss.detach()), rows])
    table = _sum(table, loss.device)
    losses, counts = table.unbind(1)
    whole = float(counts.sum())
    copies = count() if rows < 2 * count() and bool((table == table[0]).all()) else 1  # all have the same rows
    return loss * (rows / whole), float(losses @ counts) / whole, round(whole) // copies


def added(own: Tensor) -> Tensor:
    """The sum of a tensor over all processes.

    What is made of it has to be the same in all of them; then each one's gradients are its own part of the whole's.
    """
    summed: Tensor = _Added.apply(own) if several() else own  # type: ignore[no-untyped-call]
    return summed


def largest(own: Tensor) -> Tensor:
    """The largest of each number over all processes; no gradient goes through it."""
    if not several():
        return own
    found = own.detach().clone()
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found


def sum_gradients(parameters: Iterable[Parameter]) -> None:
    """Each gradient becomes the sum over all processes."""
    if not several():
        return
    found = [p.grad for p in parameters if p.grad is not None]
    for dtype in dict.fromkeys(grad.dtype for grad in found):
        alike = [grad for grad in found if grad.dtype == dtype]
        flat = torch.cat([grad.reshape(-1) for grad in alike])
        distributed.all_reduce(flat)
        for grad, part in zip(alike, torch.split(flat, [grad.numel() for grad in alike]), strict=True):
            grad.copy_(part.reshape(grad.shape))


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """From now on each of these gradients becomes the mean over all processes, as soon as it is accumulated.

    DistributedDataParallel knows the parameters that were there when it was made, and no later ones. A mean of what is
    a mean already stays what it is, so that accumulating over several batches is right, too.
    """
    if not several():
        return
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(_mean)  # type: ignore[no-untyped-call]


def average_buffers(model: nn.Module) -> None:
    """Buffers that are no whole numbers, such as running statistics, become their mean over all processes."""
    if not several():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            distributed.all_reduce(buffer)
            buffer.div_(count())


def make_alike(model: nn.Module) -> None:
    """Parameters and buffers become those of the first process."""
    if not several():
        return
    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor.detach(), 0)


class _Added(torch.autograd.Function):
    """A sum over processes. All have the same objective, so each passes its gradient on as it is."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        summed = own.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


def _mean(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.div_(distributed.get_world_size())
    distributed.all_reduce(parameter.grad)


def _sum(numbers: Tensor, device: torch.device) -> Tensor:
    found = numbers.to(device if distributed.get_backend() != "gloo" else "cpu")
    distributed.all_reduce(found)
    return found.cpu()
