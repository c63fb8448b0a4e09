"""Data specifications: what the word after --data can be, and how it becomes training, validation and test rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from graftkit.contracts import Data, DataSource
from graftkit.core.errors import DataError, did_you_mean
from graftkit.core.table import Table
from graftkit.datasets.digits import Digits
from graftkit.datasets.folder import Folder
from graftkit.datasets.npz import Npz
from graftkit.datasets.python import PythonFunction

# In the order in which they are asked whether a specification is theirs.
DATASETS: Table[DataSource] = Table(
    "data source",
    {
        Digits.name: Digits(),
        Npz.name: Npz(),
        Folder.name: Folder(),
        PythonFunction.name: PythonFunction(),
    },
    DataError,
)


def load_data(spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
    """Read the rows that a specification names.

    Args:
        spec: `digits`, a `.npz` file, a folder of images, or `file.py:function` (`package.module:function`).
        seed: decides a split that has to be made.
        input_shape: what a model's single input takes, batch included, -1 where it is dynamic; None where that is
            unknown, or where there are several.

    Raises DataError, or RuntimeMissingError where an optional package is missing.
    """
    for source in DATASETS.values():
        if source.recognises(spec):
            return source.load(spec, seed=seed, input_shape=input_shape)
    if Path(spec).suffix == ".py" and Path(spec).is_file():
        raise DataError(f"--data {spec!r}: name the function in it that makes the data, as {spec}:make")
    state = "cannot be read as data" if Path(spec).exists() else "is not there"
    raise DataError(
        f"--data {spec!r} {state}; give digits, file.npz, folder/ (a subfolder of images for each class) or"
        f" file.py:function.{did_you_mean(spec, _near(Path(spec)), most=1)}"
    )


def _near(path: Path) -> Iterable[str]:
    """What the user may have meant: the words that are known, and what lies beside the path."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return [Digits.name, *(str(found) for found in beside if not found.name.startswith("."))]
