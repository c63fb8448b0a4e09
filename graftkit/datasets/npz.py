"""Arrays in a NumPy archive: x_train and y_train, or an array for each named input, and the same for val and test."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from graftkit.contracts import Data
from graftkit.core.errors import DataError, shown
from graftkit.datasets.arrays import ArrayPart, conform_part
from graftkit.datasets.labels import describe_targets
from graftkit.datasets.rows import members
from graftkit.datasets.splitting import SPLIT_WARNING, split_validation

_PARTS = ("train", "val", "test")
_BROKEN = (
    OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class Npz:
    """A `.npz` file.

    `x_train` alone is the model's single input; otherwise every `NAME_train` but `y_train` is the input NAME.
    """

    name: ClassVar[str] = "npz"

    def recognises(self, spec: str) -> bool:
        path = Path(spec)
        if path.is_file() and zipfile.is_zipfile(path):
            return _holds_arrays(path)
        return path.suffix == ".npz" and not path.is_dir()

    def load(self, spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
        """The parts in the archive. Raises DataError."""
        try:
            return self._load(spec, seed=seed, input_shape=input_shape)
        except DataError as error:  # it may repeat names and headers that the file made up
            raise DataError(shown(str(error))) from error

    def _load(self, spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
        arrays = _read(Path(spec))
        parts = {part: _part(arrays, part, spec, input_shape) for part in _PARTS if _has(arrays, part)}
        _check_alike(spec, arrays, parts)
        labels = describe_targets({f"{spec}: y_{part}": rows.targets for part, rows in parts.items()})
        warnings = _ignored(spec, arrays) + sum((rows.warnings for rows in parts.values()), ()) + labels.warnings
        if "val" not in parts:
            train, taken = split_validation(
                parts["train"].targets, classes=labels.kind == "classes", seed=seed, where=f"{spec}: y_train"
            )
            parts["val"], parts["train"] = parts["train"].pick(taken), parts["train"].pick(train)
            warnings += (SPLIT_WARNING,)
        test = parts["test"].rows() if "test" in parts else None
        train_rows, validation_rows = parts["train"].rows(), parts["val"].rows()
        return Data(train_rows, validation_rows, test, labels.kind, labels.classes, spec, warnings)


def _holds_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _BROKEN:
        return path.suffix == ".npz"
    # A TorchScript or .pt file is a zip too; only NumPy's has nothing but arrays.
    return path.suffix == ".npz" or (bool(names) and all(name.endswith(".npy") for name in names))


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if not path.exists():
        raise DataError(f"there is no file {path}; check the path")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a NumPy archive, or a broken one; write it with numpy.savez")
    try:
        # NumPy leaves a file open that it cannot read; this one is closed.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: _member(archive, name, path) for name in archive.files}
    except _BROKEN as error:
        raise DataError(f"{path} is a broken archive ({_line(error)}); write it again with numpy.savez") from error


def _member(archive: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(f"{path}: {name} is an object array, which would need pickle; store plain numbers") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {name} is not a NumPy array; write the archive with numpy.savez")
    return array


def _has(arrays: Mapping[str, np.ndarray], part: str) -> bool:
    return part == "train" or bool(_inputs(arrays, part)) or f"y_{part}" in arrays


def _inputs(arrays: Mapping[str, np.ndarray], part: str) -> list[str]:
    """The names of the inputs that a part has, in the archive's order."""
    names = [name.removesuffix(f"_{part}") for name in arrays if name.endswith(f"_{part}")]
    return [name for name in names if name not in ("", "y")]


def _part(arrays: Mapping[str, np.ndarray], part: str, spec: str, input_shape: tuple[int, ...] | None) -> ArrayPart:
    names = _inputs(arrays, "train") or ["x"]
    _check_names(arrays, part, names, spec)
    inputs = {name: arrays[f"{name}_{part}"] for name in names}
    return conform_part(
        inputs["x"] if names == ["x"] else inputs,
        arrays[f"y_{part}"],
        called=lambda name: f"{spec}: {name or 'x'}_{part}",
        labels_called=f"{spec}: y_{part}",
        input_shape=input_shape,
    )


def _check_names(arrays: Mapping[str, np.ndarray], part: str, names: Sequence[str], spec: str) -> None:
    missing = [f"{name}_{part}" for name in (*names, "y") if f"{name}_{part}" not in arrays]
    if missing:
        there = ", ".join(arrays) or "nothing"
        raise DataError(f"{spec} has no {' and no '.join(missing)}; it holds {there}. Rename the arrays")
    extra = [name for name in _inputs(arrays, part) if name not in names]
    if extra:
        raise DataError(f"{spec} has {extra[0]}_{part} but no {extra[0]}_train; give all parts the same inputs")


def _check_alike(spec: str, arrays: Mapping[str, np.ndarray], parts: Mapping[str, ArrayPart]) -> None:
    """Rows of one part must mean what rows of another mean: one shape, and one scale."""
    for key, conformed in members(parts["train"].inputs).items():
        name = key or "x"
        for part, rows in parts.items():
            one, other = arrays[f"{name}_train"], arrays[f"{name}_{part}"]
            if one.shape[1:] != other.shape[1:]:
                raise DataError(
                    f"{spec}: {name}_train has rows of shape {list(one.shape[1:])} but {name}_{part}"
                    f" {list(other.shape[1:])}; give all parts one shape"
                )
            scaled = (one.dtype == np.uint8) != (other.dtype == np.uint8)
            if scaled or members(rows.inputs)[key].dtype != conformed.dtype:
                raise DataError(
                    f"{spec}: {name}_train holds {one.dtype} but {name}_{part} {other.dtype}, which are scaled"
                    " differently; give all parts one type"
                )


def _ignored(spec: str, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    known = {f"{name}_{part}" for part in _PARTS for name in ("y", *_inputs(arrays, part))}
    strange = [name for name in arrays if name not in known]
    return (f"{spec}: {', '.join(strange)} not read; names end in _train, _val or _test",) if strange else ()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error), 200)}"
