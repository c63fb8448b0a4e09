"""Batches of rows, in an order that only the seed decides."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, Subset, TensorDataset

from graftkit.contracts import Rows


def batches(rows: Rows, batch_size: int, *, seed: int | None = None) -> DataLoader[Any]:
    """A loader over the rows: shuffled by `seed`, in order without one. A loader is taken as it is.

    A last batch of one row is dropped when shuffling: batch norm cannot learn from it.
    """
    if isinstance(rows, DataLoader):
        return rows
    size = len(rows)  # type: ignore[arg-type]
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = SequentialSampler(rows) if generator is None else RandomSampler(rows, generator=generator)  # type: ignore[arg-type]
    lonely = seed is not None and size > batch_size and size % batch_size == 1
    if _whole(rows):
        # one indexing a batch instead of one a row
        return DataLoader(rows, sampler=BatchSampler(order, batch_size, drop_last=lonely), batch_size=None)
    return DataLoader(rows, batch_size=batch_size, sampler=order, drop_last=lonely)


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
