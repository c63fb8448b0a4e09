"""A folder of images with a subfolder for each class, in train/, val/ and test/ where there are such parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from graftkit.contracts import Data
from graftkit.core.errors import DataError
from graftkit.datasets.arrays import check_rows
from graftkit.datasets.images import Form, ImageRows, Probe, probe_image
from graftkit.datasets.labels import describe_targets
from graftkit.datasets.splitting import SPLIT_WARNING, split_validation

_PART_OF = {"train": "train", "val": "val", "validation": "val", "test": "test"}
_SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])


@dataclass(frozen=True)
class _Part:
    """The files of one part and their classes."""

    files: Sequence[Path]
    labels: np.ndarray

    def pick(self, indices: np.ndarray) -> _Part:
        return _Part([self.files[index] for index in indices], self.labels[indices])


@dataclass(frozen=True)
class Folder:
    """An existing folder."""

    name: ClassVar[str] = "folder"

    def recognises(self, spec: str) -> bool:
        return spec != "" and Path(spec).is_dir()

    def load(self, spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
        """The images below the folder. Raises DataError, or RuntimeMissingError without Pillow."""
        folders, warnings = _find_parts(Path(spec))
        classes = _class_names(folders)
        parts = {part: _read_part(folder, classes) for part, folder in folders.items()}
        labels = describe_targets({str(folders[part]): parts[part].labels for part in parts}, classes)
        form, resized = _choose_form(Path(spec), parts, input_shape)
        warnings += labels.warnings + resized
        if "val" not in parts:
            kept, taken = split_validation(parts["train"].labels, classes=True, seed=seed, where=str(folders["train"]))
            parts["val"], parts["train"] = parts["train"].pick(taken), parts["train"].pick(kept)
            warnings += (SPLIT_WARNING,)
        rows = {part: ImageRows(found.files, found.labels, form) for part, found in parts.items()}
        return Data(rows["train"], rows["val"], rows.get("test"), labels.kind, labels.classes, spec, warnings)


def _find_parts(root: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of each part, training first, and what was found beside them.

    A subfolder called "train" is a part only if it holds folders itself: there are classes called so.
    """
    inside = _subfolders(root)
    named = [folder for folder in inside if folder.name in _PART_OF and _subfolders(folder)]
    if not named:
        return {"train": root}, ()
    found: dict[str, Path] = {}
    for folder in sorted(named, key=lambda folder: list(_PART_OF).index(folder.name)):
        if _PART_OF[folder.name] in found:
            raise DataError(f"{root} has both val/ and validation/; keep one of them")
        found[_PART_OF[folder.name]] = folder
    if "train" not in found:
        raise DataError(f"{root} has {named[0].name}/ but no train/ with a subfolder for each class")
    strange = [folder.name + "/" for folder in inside if folder not in named]
    return found, (f"{root}: {', '.join(strange)} not read, beside train/",) if strange else ()


def _class_names(folders: Mapping[str, Path]) -> tuple[str, ...]:
    """Sorted names of the training classes; classes only other parts have come after, so they move none."""
    names: dict[str, None] = {}
    for folder in folders.values():
        names.update(dict.fromkeys(sub.name for sub in _subfolders(folder)))
    if not names:
        root = folders["train"]
        raise DataError(f"{root} has no subfolders; sort the images into a subfolder for each class")
    return tuple(names)


def _read_part(folder: Path, classes: Sequence[str]) -> _Part:
    pairs = [(file, classes.index(sub.name)) for sub in _subfolders(folder) for file in _images(sub)]
    check_rows(len(pairs), str(folder))
    return _Part([file for file, _ in pairs], np.array([label for _, label in pairs], dtype=np.int64))


def _images(folder: Path) -> Iterator[Path]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("."))
    return (file for file in files if file.suffix.lower() in _SUFFIXES)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith((".", "__")))


def _choose_form(
    root: Path, parts: Mapping[str, _Part], input_shape: tuple[int, ...] | None
) -> tuple[Form, tuple[str, ...]]:
    """What every image is brought to: what the model takes, and the first image where that leaves it open."""
    if input_shape is not None and (len(input_shape) != 4 or input_shape[1] not in (-1, 1, 3)):
        raise DataError(
            f"{root} gives images, [rows, 1 or 3, height, width], but the model takes {list(input_shape)};"
            " give data of that shape as an .npz file"
        )
    probes = [probe_image(file) for part in parts.values() for file in part.files]
    form = _form(probes[0], input_shape or (-1, -1, -1, -1))
    odd = sum((probe.height, probe.width) != (form.height, form.width) for probe in probes)
    warning = f"{root}: {odd} of {len(probes)} images were resized to {form.height}x{form.width} (height x width)"
    return form, (warning,) if odd else ()


def _form(first: Probe, input_shape: tuple[int, ...]) -> Form:
    known = (1 if first.grey else 3, first.height, first.width)
    channels, height, width = (k if w == -1 else w for k, w in zip(known, input_shape[1:], strict=True))
    return Form(channels, height, width)
