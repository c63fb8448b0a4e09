"""scikit-learn's handwritten digits: 1797 rows [1, 8, 8] in ten classes, in a split that never moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.utils.data import TensorDataset

from graftkit.contracts import Data
from graftkit.core.errors import RuntimeMissingError
from graftkit.datasets.splitting import split_rows

_SPLIT_SEED = 0


@dataclass(frozen=True)
class Digits:
    """The word `digits`."""

    name: ClassVar[str] = "digits"

    def recognises(self, spec: str) -> bool:
        return spec == self.name

    def load(self, spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
        """60% training, 20% validation and 20% test rows, whatever the seed. Raises RuntimeMissingError."""
        pixels, labels = _read()
        rest, test = split_rows(len(labels), 0.2, seed=_SPLIT_SEED, strata=labels)
        kept, taken = split_rows(len(rest), 0.25, seed=_SPLIT_SEED, strata=labels[rest])
        train, validation, test_rows = (
            TensorDataset(torch.from_numpy(pixels[part]), torch.from_numpy(labels[part]))
            for part in (rest[kept], rest[taken], test)
        )
        return Data(train, validation, test_rows, labels="classes", classes=10, name=spec)


def _read() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RuntimeMissingError("--data digits needs scikit-learn: pip install 'graftkit[demo]'") from error
    digits = load_digits()
    return (digits.images[:, None] / 16).astype(np.float32), digits.target.astype(np.int64)
