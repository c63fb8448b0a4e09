"""Keeps batches of tensors: in memory up to a limit, beyond it in a file that goes when its process goes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class _Spilled:
    """Where a tensor lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Cache:
    """Batches, each a list of tensors, in the order in which they came.

    A context: what was spilled is gone behind it.

    Args:
        memory: bytes that may be held in memory.
    """

    def __init__(self, memory: int):
        self.memory, self.held, self.spilled = memory, 0, 0
        self._batches: list[list[Tensor | _Spilled]] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, tensors: list[Tensor]) -> bool:
        """Keep a batch; whether there was room for it, in memory or on the disk."""
        size = sum(tensor.nbytes for tensor in tensors)
        if self.held + size <= self.memory:
            self._batches.append([tensor.detach().to("cpu", copy=True).contiguous() for tensor in tensors])
            self.held += size
            return True
        try:
            self._batches.append([*map(self._spill, tensors)])
        except OSError:  # the disk is full
            return False
        self.spilled += size
        return True

    def __iter__(self) -> Iterator[list[Tensor]]:
        yield from (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> list[Tensor]:
        return [self._read(kept) if isinstance(kept, _Spilled) else kept for kept in self._batches[index]]

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._batches.clear()
        if self._file is not None:
            self._file.close()
        self._file = None

    def _spill(self, tensor: Tensor) -> _Spilled:
        if self._file is None:
            # unbuffered, so that a full disk is met here and not later
            self._file = tempfile.TemporaryFile(prefix="graftkit-", buffering=0)  # noqa: SIM115 (closed by `close`)
        offset = self._file.seek(0, 2)
        tensor.detach().cpu().numpy().tofile(self._file)
        return _Spilled(offset, tuple(tensor.shape), tensor.dtype)

    def _read(self, kept: _Spilled) -> Tensor:
        assert self._file is not None
        self._file.seek(kept.offset)
        like = torch.empty(0, dtype=kept.dtype).numpy()
        return torch.from_numpy(np.fromfile(self._file, like.dtype, math.prod(kept.shape)).reshape(kept.shape))
