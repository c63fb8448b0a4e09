"""Checkpoints on disk: tensors as safetensors, the rest as JSON, the last ones kept, each with checksums."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from graftkit.core.atomic import renamed_at_the_end
from graftkit.core.errors import RunError
from graftkit.training.packing import pack, unpack

FORMAT = 1


@dataclass(frozen=True)
class Checkpoints:
    """The last states of one thing, as pairs of files `NAME.NUMBER.json` and `NAME.NUMBER.safetensors`.

    The JSON is written last, so where it is, the tensors were written before it. What a power cut or a disk did to a
    pair is found by its checksums, and then the one before it counts.

    Attributes:
        folder: where they lie; made where it is not there.
        name: of this thing among others in the folder.
        keep: how many are kept.
    """

    folder: Path
    name: str
    keep: int = 2

    def write(self, state: Any) -> None:
        """Keep a state of nested dicts, lists, tuples, tensors, numbers and text. Raises RunError."""
        plain, tensors = pack(state)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            numbers = self._numbers()
            number = numbers[-1] + 1 if numbers else 1
            with ThreadPoolExecutor(1) as beside:  # it is as slow as writing, and leaves the lock alone
                sums = beside.submit(_checksums, tensors)
                with renamed_at_the_end(self._file(number, "safetensors")) as draft:
                    safetensors.torch.save_file(tensors, draft)
            text = json.dumps({"format": FORMAT, "state": plain, "checksums": sums.result()})
            with renamed_at_the_end(self._file(number, "json")) as draft:
                draft.write_text(json.dumps({"checksum": zlib.crc32(text.encode()), "content": text}))
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{self.folder} cannot be written: {reason}") from error
        for old in numbers[: max(0, len(numbers) + 1 - self.keep)]:
            self._remove(old)

    def read(self, warn: Callable[[str], None]) -> Any:
        """The newest state that is whole; None where there is none. `warn` is told of each that is not."""
        for number in reversed(self._numbers()):
            try:
                return self._read(number)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                warn(f"{self._file(number, 'json')} is broken ({error}); the checkpoint before it is taken")
        return None

    def clear(self) -> None:
        """Forget all of them."""
        for number in self._numbers():
            self._remove(number)

    def _read(self, number: int) -> Any:
        whole = json.loads(self._file(number, "json").read_text())
        text = whole["content"]
        if zlib.crc32(text.encode()) != whole["checksum"]:
            raise ValueError("its checksum is another one")
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, not {FORMAT}")
        tensors = safetensors.torch.load_file(self._file(number, "safetensors"))
        if _checksums(tensors) != content["checksums"]:
            raise ValueError("its tensors have other checksums")
        return unpack(content["state"], tensors)

    def _numbers(self) -> list[int]:
        """Of the checkpoints that there are, oldest first."""
        found = [path.name.split(".")[-2] for path in self.folder.glob(f"{self.name}.*.json")]
        return sorted(int(number) for number in found if number.isdigit())

    def _file(self, number: int, ending: str) -> Path:
        return self.folder / f"{self.name}.{number:06d}.{ending}"

    def _remove(self, number: int) -> None:
        for ending in ("json", "safetensors"):  # without its JSON a checkpoint is none
            self._file(number, ending).unlink(missing_ok=True)


def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Of each tensor's type, shape and numbers."""
    return {name: _checksum(tensor) for name, tensor in sorted(tensors.items())}


def _checksum(tensor: Tensor) -> int:
    head = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    flat = tensor.reshape(-1).contiguous()
    content: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return zlib.crc32(content, zlib.crc32(head))
