"""Keeps batches of tensors: in memory up to a limit, beyond it in a file that goes when its process goes."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import torch
from torch import Tensor

SHARE = 0.5  # of what is free on the disk, at most


@dataclass(frozen=True)
class _Spilled:
    """Where a tensor lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Cache:
    """Batches, each a list of tensors, in the order in which they came; `close` it.

    Args:
        memory: bytes that may be held in memory. The file lies where the system keeps temporary files (TMPDIR), and
            takes no more than a share of what is free there.
        share: that share.
    """

    def __init__(self, memory: int, share: float = SHARE):
        self.memory, self.share, self.held, self.spilled = memory, share, 0, 0
        self._batches: list[list[Tensor | _Spilled]] = []
        self._file: IO[bytes] | None = None
        self._room = 0

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, tensors: Sequence[Tensor], *, begin: bool = True) -> bool:
        """Keep tensors, as a batch of their own or behind those of the last; whether there was room for them."""
        size = sum(tensor.nbytes for tensor in tensors)
        kept: list[Tensor | _Spilled]
        if self.held + size <= self.memory:
            kept = [tensor.detach().to("cpu", copy=True).contiguous() for tensor in tensors]
            self.held += size
        else:
            spilled = self._spill(tensors, size)
            if spilled is None:
                return False
            kept = [*spilled]
            self.spilled += size
        if begin or not self._batches:
            self._batches.append([])
        self._batches[-1] += kept
        return True

    def take_back(self, count: int) -> None:
        """Forget the last so many tensors, which were added together."""
        for tensor in self._batches[-1][-count:]:
            if isinstance(tensor, Tensor):
                self.held -= tensor.nbytes
        del self._batches[-1][-count:]
        if not self._batches[-1]:
            self._batches.pop()

    def join_last(self) -> None:
        """Make the last two batches one."""
        last = self._batches.pop()
        self._batches[-1] += last

    def __getitem__(self, index: int) -> list[Tensor]:
        return [self._read(kept) if isinstance(kept, _Spilled) else kept for kept in self._batches[index]]

    def close(self) -> None:
        """Forget everything."""
        self._batches.clear()
        if self._file is not None:
            self._file.close()
        self._file = None

    def _spill(self, tensors: Sequence[Tensor], size: int) -> list[_Spilled] | None:
        """Where they were written; None where there is no room."""
        try:
            if self._file is None:
                # unbuffered, so that a full disk is met here and not later
                self._file = tempfile.TemporaryFile(prefix="graftkit-", buffering=0)  # noqa: SIM115 (`close` closes it)
                self._room = int(self.share * shutil.disk_usage(tempfile.gettempdir()).free)
            if self.spilled + size > self._room:
                return None
            return [self._write(self._file, tensor) for tensor in tensors]
        except OSError:
            if self._file is not None:
                self._file.truncate(self.spilled)
            return None

    def _write(self, file: IO[bytes], tensor: Tensor) -> _Spilled:
        offset = file.seek(0, 2)
        data = memoryview(_bytes(tensor.detach().cpu()).numpy())  # type: ignore[arg-type]
        while data.nbytes:
            data = data[file.write(data) :]
        return _Spilled(offset, tuple(tensor.shape), tensor.dtype)

    def _read(self, kept: _Spilled) -> Tensor:
        assert self._file is not None
        raw = bytearray(math.prod(kept.shape) * kept.dtype.itemsize)
        self._file.seek(kept.offset)
        view = memoryview(raw)
        while view.nbytes:
            view = view[self._file.readinto(view) :]  # type: ignore[attr-defined]
        flat = torch.frombuffer(raw, dtype=kept.dtype) if raw else torch.empty(0, dtype=kept.dtype)
        return flat.reshape(kept.shape)


def _bytes(tensor: Tensor) -> Tensor:
    """[bytes] of a tensor of any type: numpy has no bfloat16."""
    return tensor.contiguous().flatten().view(torch.uint8)
