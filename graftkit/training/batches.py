"""Batches of rows, in an order that only the seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, Subset, TensorDataset

from graftkit import ranks
from graftkit.contracts import Rows


def batches(rows: Rows, batch_size: int, *, seed: int | None = None, shared: bool = False) -> Batches:
    """A loader over the rows: shuffled by `seed`, in order without one. A loader is taken as it is.

    A last batch of one row is dropped when shuffling: batch norm cannot learn from it. Where they are `shared`, each of
    several processes gets its share of each batch.
    """
    shared = shared and ranks.several()
    if isinstance(rows, DataLoader):
        return Shared(rows) if shared else rows
    size = len(rows)  # type: ignore[arg-type]
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = SequentialSampler(rows) if generator is None else RandomSampler(rows, generator=generator)  # type: ignore[arg-type]
    lonely = seed is not None and size > batch_size and size % batch_size == 1
    sampler: Any = BatchSampler(order, batch_size, drop_last=lonely)
    sampler = Shared(sampler) if shared else sampler
    if _whole(rows):
        # one indexing a batch instead of one a row
        return DataLoader(rows, sampler=sampler, batch_size=None)
    return DataLoader(rows, batch_sampler=sampler)


@dataclass(frozen=True)
class Shared:
    """This process's share of each batch: of a sampler's lists of rows, or of what a loader gives.

    Of a batch that leaves a process fewer than two rows, which batch norm cannot learn from, all take all.
    """

    sampler: BatchSampler | DataLoader[Any]

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.sampler:
            yield _share(batch) if isinstance(batch, list) and isinstance(batch[0], int) else tree_map(_share, batch)


Batches = DataLoader[Any] | Shared


def _share(batch: Any) -> Any:
    return batch[ranks.number() :: ranks.count()] if len(batch) >= 2 * ranks.count() else batch


def hold_out(rows: Rows, *, share: float, seed: int) -> tuple[Rows, Rows] | None:
    """(the rest, a random share) of the rows; None for a loader, whose rows cannot be told apart."""
    if isinstance(rows, DataLoader):
        return None
    size = len(rows)  # type: ignore[arg-type]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = round(size * share)
    return _take(rows, order[cut:]), _take(rows, order[:cut])


def _whole(rows: Dataset[Any]) -> bool:
    """Whether a dataset gives a whole batch for a list of indices."""
    return isinstance(rows, TensorDataset) or getattr(rows, "batched", False)


def _take(rows: Dataset[Any], indices: list[int]) -> Dataset[Any]:
    if isinstance(rows, TensorDataset):
        return TensorDataset(*(tensor[indices] for tensor in rows.tensors))
    return rows.pick(indices) if _whole(rows) else Subset(rows, indices)  # type: ignore[attr-defined]
