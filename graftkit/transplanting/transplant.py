"""The main line of a transplant: read, match, edit, prove, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

from graftkit import reopening
from graftkit.contracts import Observer
from graftkit.core.errors import RunError
from graftkit.model import GraftedModel
from graftkit.transplanting import proving
from graftkit.transplanting.deployed import read, staged
from graftkit.transplanting.known import Known, draft_of, numbers_of
from graftkit.transplanting.operation import Operation

_BASE = "base."


@dataclass(frozen=True)
class Transplanted:
    """A file that received a run's dendrites and weights, proved and written.

    Attributes:
        path: the file.
        matched: layers of the file that were found to be the model's.
        sites: the sites whose dendrites went into it.
        updated: tensors of the file that have other numbers now.
        changed: nodes of the file that were changed otherwise: an output has a new name, or an input is another.
        added: nodes that are new.
        parity: the largest relative difference to the trained model.
        proved: what was compared: "outputs", or "sites" where what stands around the model keeps its outputs from it.
    """

    path: Path
    matched: int
    sites: tuple[str, ...]
    updated: tuple[str, ...]
    changed: int
    added: int
    parity: float
    proved: str

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "path": str(self.path)}


def transplant(
    deployed: Path,
    run: Path,
    out: Path,
    *,
    force: bool = False,
    trust: bool = False,
    allow: tuple[str, ...] = (),
    observer: Observer | None = None,
) -> Transplanted:
    """Write the user's own ONNX file with a run's dendrites and trained weights; all else in it stays as it is.

    Args:
        deployed: the file, exported from the model that the run was given.
        run: the run's folder.
        out: where to write.
        force: replace a file that is there.
        trust, allow: as `graftkit.load` takes them.
        observer: told what happens.

    Raises:
        ExportError: the file cannot be read, or something that training changed has no place in it; the site is named.
        MismatchError: what was made of it computes something else than the trained model.
        RunError, SourceError: the run cannot be opened, or the file not be written.
    """
    watch = observer or Observer()
    if out.exists() and not force:
        raise RunError(f"{out} exists already; pass --force to replace it, or another --out")
    file = read(deployed)
    watch.on_stage("reading the run")
    model, rows, _ = reopening.open_given(run, trust=trust, allow=allow)
    draft, given = draft_of(model), _state(model)
    batches = proving.batches_of(model, rows, file.rows)
    before = proving.heard(model, batches)
    numbers = numbers_of(draft, given)
    reopening.put_back(model, run)
    known = Known(draft.proto, numbers, numbers_of(draft, _state(model)))
    watch.on_stage("matching")
    inputs = proving.identified(file.model, before, model.traced.signature.inputs)
    operation = Operation(file, model, known, inputs)
    watch.on_stage("transplanting")
    edited = operation.edit()
    with staged(edited.model, file.apart, out) as path:
        watch.on_stage("verifying")
        parity, proved = operation.prove(onnx.load(str(path)), before, proving.heard(model, batches), rows)
    return Transplanted(
        path=out,
        matched=len(operation.matches),
        sites=tuple(dict.fromkeys(place.site for place in operation.placements)),
        updated=tuple(sorted(edited.tensors)),
        changed=len(edited.nodes),
        added=edited.added,
        parity=parity,
        proved=proved,
    )


def _state(model: GraftedModel) -> Mapping[str, Tensor]:
    return {name.removeprefix(_BASE): value for name, value in model.snapshot().items() if name.startswith(_BASE)}
