"""Batches of rows, in an order that only the seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, Subset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from graftkit import ranks
from graftkit.contracts import Rows
from graftkit.core.errors import DataError


def batches(rows: Rows, batch_size: int, *, seed: int | None = None, shared: int = 0) -> Batches:
    """A loader over the rows: shuffled by `seed`, in order without one. A loader is taken as it is.

    A last batch of one row is dropped when shuffling: batch norm cannot learn from it. Of several processes each gets
    its share of each batch where they are `shared`: so many rows at least.

    Raises DataError for a loader that shares its rows itself.
    """
    shared = shared if ranks.several() else 0
    if isinstance(rows, DataLoader):
        if ranks.several() and isinstance(rows.sampler, DistributedSampler):
            raise DataError("the loader has a DistributedSampler; leave it out: each process gets its share of a batch")
        return Shared(rows, shared) if shared else rows
    size = len(rows)  # type: ignore[arg-type]
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = SequentialSampler(rows) if generator is None else RandomSampler(rows, generator=generator)  # type: ignore[arg-type]
    lonely = seed is not None and size > batch_size and size % batch_size == 1
    sampler: Any = BatchSampler(order, batch_size, drop_last=lonely)
    sampler = Shared(sampler, shared) if shared else sampler
    if _whole(rows):
        # one indexing a batch instead of one a row
        return DataLoader(rows, sampler=sampler, batch_size=None)
    return DataLoader(rows, batch_sampler=sampler)


@dataclass(frozen=True)
class Shared:
    """This process's share of each batch: of a sampler's lists of rows, or of what a loader gives.

    Of a batch with fewer than `least` rows for each, which may be too few for batch norm, all take all.
    """

    sampler: BatchSampler | DataLoader[Any]
    least: int

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.sampler:
            size = len(batch) if isinstance(batch, list) and isinstance(batch[0], int) else len(batch[1])
            yield _share(batch, size) if size >= self.least * ranks.count() else batch


Batches = DataLoader[Any] | Shared


def _share(batch: Any, size: int) -> Any:
    """This process's rows of whatever has that many."""
    if isinstance(batch, Mapping):
        return {name: _share(value, size) for name, value in batch.items()}
    if isinstance(batch, list | tuple) and not (batch and isinstance(batch[0], int)):
        return [_share(value, size) for value in batch]
    rows = isinstance(batch, list) or (isinstance(batch, Tensor) and batch.ndim and len(batch) == size)
    return batch[ranks.number() :: ranks.count()] if rows else batch


def hold_out(rows: Rows, *, share: float, seed: int) -> tuple[Rows, Rows] | None:
    """(the rest, a random share) of the rows; None for a loader, whose rows cannot be told apart."""
    if isinstance(rows, DataLoader):
        return None
    size = len(rows)  # type: ignore[arg-type]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = round(size * share)
    return take(rows, order[cut:]), take(rows, order[:cut])


def _whole(rows: Dataset[Any]) -> bool:
    """Whether a dataset gives a whole batch for a list of indices."""
    return isinstance(rows, TensorDataset) or getattr(rows, "batched", False)


def take(rows: Dataset[Any], indices: list[int]) -> Dataset[Any]:
    """These rows alone, in this order."""
    if isinstance(rows, TensorDataset):
        return TensorDataset(*(tensor[indices] for tensor in rows.tensors))
    return rows.pick(indices) if _whole(rows) else Subset(rows, indices)  # type: ignore[attr-defined]
