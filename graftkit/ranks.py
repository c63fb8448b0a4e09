"""Several processes that train one model, each with its share of the rows: what they agree on, and how they add up."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import Parameter

from graftkit.core.errors import GraftkitError, RunError

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


def here() -> int:
    """How many processes there are on this machine, as far as that is known."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if several() else 1


@contextmanager
def launched(device: str) -> Iterator[None]:
    """A context in which the processes that torchrun started know each other; where it started none, nothing is done.

    Args:
        device: of all of them, as "cuda".

    Raises:
        RunError: there is no such device for each, or another process was lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not distributed.is_torchelastic_launched():
        yield
        return
    kind, _, index = device.partition(":")
    if index:
        raise RunError(f"the device {device} would be that of all processes; name {kind}, of which each takes its own")
    if kind not in ("auto", "cpu") and not torch.accelerator.is_available():
        raise RunError(f"there is no {kind} here; cpu always is")
    from lightning_fabric import Fabric

    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # which would tell of each process
    try:
        Fabric(accelerator=kind, devices=local, num_nodes=world // local, strategy="ddp").launch()
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or re.search("gloo|nccl|peer", str(error), re.IGNORECASE):
            why = str(error).splitlines()[0]
            raise RunError(f"another process was lost ({why}); `graftkit augment --resume RUN` goes on") from error
        raise
    distributed.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """Of several devices of a kind the one of this process."""
    if not several() or device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", torch.accelerator.current_device_index())))


def told(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them; where it raises an error, that, in all of them."""
    if not several():
        return make()
    found: list[Any] = [None, None]
    if number() == 0:
        try:
            found[0] = make()
        except GraftkitError as error:
            found[1] = error
    distributed.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
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


def weighed(loss: Tensor, labels: int) -> tuple[Tensor, float, int]:
    """This process's part of the mean loss over all processes' labels, that mean, and how many labels those are.

    Args:
        loss: the mean over this process's own labels, which may be those of all the others where they are few.
        labels: how many; one that has none has no part in the mean, but needs a gradient of zero.
    """
    if not several():
        return loss, float(loss.detach()), labels
    table = torch.zeros(count(), 2, dtype=torch.float64)
    table[number()] = torch.tensor([float(loss.detach()), labels])
    table = _sum(table, loss.device)
    losses, counts = table.unbind(1)
    whole = float(counts.sum())
    copies = count() if bool((table == table[0]).all()) else 1  # all have the same rows; the mean is the same
    mean = float(losses[counts > 0] @ counts[counts > 0]) / whole if whole else math.nan
    return loss * (labels / max(whole, 1)), mean, round(whole) // copies


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
    """Buffers that are other ones in another process, such as running statistics, become the mean over all."""
    if not several():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point() and not _alike(buffer):
            mean = buffer.detach().clone(memory_format=torch.contiguous_format).div_(count())
            distributed.all_reduce(mean)
            buffer.copy_(mean)


def make_alike(model: nn.Module) -> None:
    """Parameters and buffers become those of the first process, where they are other ones."""
    if not several():
        return
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if not _alike(tensor):
                tensor.copy_(_of_first(tensor))


def _of_first(tensor: Tensor) -> Tensor:
    """The first process's, in memory of its own without gaps, whatever its type."""
    found = tensor.detach().clone(memory_format=torch.contiguous_format)
    if found.numel():
        distributed.broadcast(found.reshape(-1).view(torch.uint8), 0)
    return found


def _alike(tensor: Tensor) -> bool:
    """Whether all processes have the same numbers."""
    same = torch.equal(torch.nan_to_num(_of_first(tensor)), torch.nan_to_num(tensor.detach()))
    return total(not same, tensor.device) == 0


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
