"""A dataset of image files that are opened when a row is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from graftkit.core.errors import DataError, RuntimeMissingError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Form:
    """What every image is brought to."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Probe:
    """What a file's header says of the image in it."""

    grey: bool
    height: int
    width: int


class ImageRows(Dataset[tuple[Tensor, Tensor]]):
    """Rows of (float32 [channels, height, width] in 0 to 1, int64 class)."""

    def __init__(self, files: Sequence[Path], labels: np.ndarray, form: Form):
        self.files = tuple(files)
        self.labels = torch.from_numpy(labels)
        self.form = form

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return read_image(self.files[index], self.form), self.labels[index]


def probe_image(path: Path) -> Probe:
    """Mode and size of an image whose file is whole as far as its checksums tell. Raises DataError."""
    try:
        with _open(path) as image:
            probe = Probe(image.mode in ("1", "L") or image.mode.startswith("I;16"), image.height, image.width)
            image.verify()
    except RuntimeMissingError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise _unreadable(path, error) from error
    return probe


def read_image(path: Path, form: Form) -> Tensor:
    """The image, converted and resized to the form, float32 in 0 to 1. Raises DataError."""
    try:
        with _open(path) as image:
            pixels = np.asarray(_convert(image, form), dtype=np.float32) / np.float32(255)
    except (DataError, RuntimeMissingError):
        raise
    except Exception as error:  # as above
        raise _unreadable(path, error) from error
    return torch.from_numpy(pixels.reshape(form.height, form.width, form.channels).transpose(2, 0, 1).copy())


def _convert(image: Image, form: Form) -> Image:
    mode = "L" if form.channels == 1 else "RGB"
    converted = _to_eight_bits(image).convert(mode)
    size = (form.width, form.height)
    return converted if converted.size == size else converted.resize(size, _pillow().Resampling.BILINEAR)


def _to_eight_bits(image: Image) -> Image:
    """Scale 16-bit grey down, which Pillow's own conversion would clip at 255."""
    if image.mode.startswith("I;16"):
        scaled: Image = _pillow().fromarray((np.asarray(image) // 257).astype(np.uint8))
        return scaled
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}) have no known range; store 8 or 16 bits")
    return image


def _open(path: Path) -> Image:
    image: Image = _pillow().open(path)
    return image


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeMissingError("a folder of images needs Pillow: pip install 'graftkit[images]'") from error
    return Image


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"cannot read the image {path} ({type(error).__name__}: {reason}); repair it or take it out")
