"""A user's own function, `file.py:function`, that returns datasets or loaders of (inputs, targets) or dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from graftkit.contracts import Data, Rows
from graftkit.core.errors import DataError, did_you_mean
from graftkit.datasets.arrays import conform_part
from graftkit.datasets.forms import check_parts_alike
from graftkit.datasets.labels import describe_targets
from graftkit.datasets.rows import inputs_called, paired
from graftkit.datasets.splitting import SPLIT_WARNING, split_validation
from graftkit.datasets.survey import ConformedRows, survey
from graftkit.datasets.user_code import call_function, is_function, seeded

_PARTS = ("train", "validation", "test")
_FORMS = "return (train, validation), (train, validation, test) or a dict with those names"


@dataclass(frozen=True)
class PythonFunction:
    """`file.py:function` or `package.module:function`."""

    name: ClassVar[str] = "python"

    def recognises(self, spec: str) -> bool:
        return is_function(spec)

    def load(self, spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
        """What the function returns, read through once to check it. Raises DataError.

        The function is called with all random generators seeded by `seed`, so that its own splits stay.
        """
        parts = _conform(_name_parts(call_function(spec, seed=seed), spec), spec)
        with seeded(seed):
            found = {part: survey(rows, f"{spec}: {part}", spec) for part, rows in parts.items()}
        check_parts_alike({part: read.form for part, read in found.items()}, spec)
        labels = describe_targets({f"{spec}: {part}": read.targets for part, read in found.items()})
        warnings = found["train"].warnings + labels.warnings
        if "validation" not in parts:
            kept, taken = split_validation(
                found["train"].targets, classes=labels.kind == "classes", seed=seed, where=f"{spec}: train"
            )
            whole = parts["train"]
            assert isinstance(whole, Dataset)  # a loader without a validation part was turned away
            parts["train"], parts["validation"] = Subset(whole, kept.tolist()), Subset(whole, taken.tolist())
            warnings += (SPLIT_WARNING,)
        return Data(parts["train"], parts["validation"], parts.get("test"), labels.kind, labels.classes, spec, warnings)


def _name_parts(returned: Any, spec: str) -> dict[str, Any]:
    """The parts by name, without those that are None."""
    match returned:
        case Mapping():
            strange = [str(key) for key in returned if key not in _PARTS]
            if strange:
                hint = did_you_mean(strange[0], _PARTS)
                raise DataError(f"--data {spec} returned a part called {strange[0]!r}; {_FORMS}.{hint}")
            named = dict(returned)
        case tuple() | list() if len(returned) in (2, 3):
            named = dict(zip(_PARTS, returned, strict=False))
        case _ if isinstance(returned, DataLoader) or _is_map_style(returned):
            named = {"train": returned}
        case _:
            raise DataError(f"--data {spec} returned {_describe(returned)}; {_FORMS}")
    return {part: named[part] for part in _PARTS if named.get(part) is not None}


def _conform(named: Mapping[str, Any], spec: str) -> dict[str, Rows]:
    if "train" not in named:
        raise DataError(f"--data {spec} returned no training part; {_FORMS}")
    if "validation" not in named and isinstance(named["train"], DataLoader):
        raise DataError(
            f"--data {spec} returned a training loader without a validation loader, and a loader cannot be"
            " split; return (train, validation)"
        )
    return {part: _conform_rows(rows, f"{spec}: {part}") for part, rows in named.items()}


def _conform_rows(rows: Any, where: str) -> Rows:
    match rows:
        case DataLoader():
            return paired(rows)
        case IterableDataset():
            raise DataError(f"{where} is an IterableDataset; wrap it in a DataLoader")
        case TensorDataset() if type(rows) is TensorDataset and len(rows.tensors) == 2:
            inputs, targets = (tensor.detach().cpu().numpy() for tensor in rows.tensors)
            return conform_part(
                inputs, targets, called=inputs_called(where), labels_called=f"{where} targets", input_shape=None
            ).rows()
        case _ if _is_map_style(rows):
            return ConformedRows(rows, where)
        case _:
            raise DataError(f"{where} is {_describe(rows)}; give a torch Dataset or DataLoader")


def _is_map_style(value: Any) -> bool:
    """Whether it is a dataset: torch's, or one that has its methods, as Hugging Face's have."""
    methods = ("__len__", "__getitem__", "__getitems__")
    return isinstance(value, Dataset) or all(hasattr(value, method) for method in methods)


def _describe(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"a value of type {type(value).__name__}{size}"
