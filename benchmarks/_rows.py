"""The data of the benchmarks, split anew for each seed or fold."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from graftkit.api import load_data
from graftkit.contracts import Data
from graftkit.datasets.splitting import split_rows

SHARES = (0.35, 0.15)  # of all rows: test, validation


def digits(seed: int) -> Data:
    """All of scikit-learn's digits, split 50/15/35 by the seed."""
    given = load_data("digits")
    parts = [rows.tensors for rows in (given.train, given.validation, given.test)]  # type: ignore[union-attr]
    return split(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]), seed)


def _bands(path: Path) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """(inputs [N, 16, 49], targets, who speaks, which recording of a digit it is)."""
    found = np.load(path)
    bands = found["x"].astype(np.float32).reshape(-1, 49, 16, 2).mean(-1).transpose(0, 2, 1)
    inputs = torch.from_numpy((bands - bands.mean()) / bands.std())
    return inputs, torch.from_numpy(found["y"].astype(np.int64)), found["speaker"], found["index"]


def spoken(path: Path, fold: int, *, unseen: bool = False) -> Data:
    """Spoken digits in 16 bands: a tenth of all recordings to test, the next tenth to validate.

    Unseen, one voice to test, and of the others a tenth of all recordings to validate.
    """
    inputs, targets, voices, index = _bands(path)
    tenth = index // 5
    test, validation = tenth == fold % 10, tenth == (fold + 1) % 10
    if unseen:
        test = voices == sorted(set(voices))[fold % len(set(voices))]
        validation &= ~test
    parts = (TensorDataset(inputs[rows], targets[rows]) for rows in (~(test | validation), validation, test))
    train, validating, testing = parts
    return Data(train, validating, testing, "classes", 10, "fsdd")


def speech(path: Path, seed: int, unseen: bool) -> Data:
    """Spoken digits in 16 bands; the test rows are a share of all recordings, or one speaker, the seed's."""
    inputs, targets, voices, _ = _bands(path)
    if not unseen:
        return split(inputs, targets, seed)
    speakers = sorted(set(voices))
    away = torch.from_numpy(voices == speakers[seed % len(speakers)])
    known = split(inputs[~away], targets[~away], seed, shares=(0.0, 0.2))
    return Data(known.train, known.validation, TensorDataset(inputs[away], targets[away]), "classes", 10, "fsdd")


@cache
def _pictures(path: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = np.load(path)
    parts = []
    for name in ("train", "test"):
        pixels = torch.from_numpy(found[f"x_{name}"]).float() / 255
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        parts += [((pixels - 0.45) / 0.25).contiguous(), torch.from_numpy(found[f"y_{name}"]).long()]
    return parts[0], parts[1], parts[2], parts[3]


def images(path: Path, seed: int, rows: int, test: int = 2000) -> Data:
    """`rows` images to train on and 2000 others to validate, drawn by the seed; `test` to test, always the same."""
    inputs, targets, test_inputs, test_targets = _pictures(path)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    train, validation = order[: min(rows, len(inputs) - 2000)], order[-2000:]
    return Data(
        TensorDataset(inputs[train], targets[train]),
        TensorDataset(inputs[validation], targets[validation]),
        TensorDataset(test_inputs[:test], test_targets[:test]),
        "classes", 10, path.stem,
    )  # fmt: skip


def split(inputs: Tensor, targets: Tensor, seed: int, shares: tuple[float, float] = SHARES) -> Data:
    """Rows in three parts, stratified by class and decided by the seed. A test share of zero gives no test rows."""
    labels = targets.numpy()
    rest, test = split_rows(len(labels), shares[0], seed=seed, strata=labels) if shares[0] else (
        np.arange(len(labels)), None
    )  # fmt: skip
    kept, taken = split_rows(len(rest), shares[1] / (1 - shares[0]), seed=seed, strata=labels[rest])
    parts = [None if p is None else TensorDataset(inputs[p], targets[p]) for p in (rest[kept], rest[taken], test)]
    assert parts[0] is not None and parts[1] is not None
    return Data(parts[0], parts[1], parts[2], "classes", 10, "split")
