"""What `inspect` shows of a file of dendrites."""

from __future__ import annotations

from collections import Counter
from math import prod

from graftkit.core.dendrite_files import CarriedRecord, DendriteFileRecord
from graftkit.core.errors import SourceError, shown
from graftkit.dendrite_files.reading import DendriteFile
from graftkit.model import slot
from graftkit.plan import Graft


def record_of(file: DendriteFile) -> DendriteFileRecord:
    """The file's dendrites with what each has, from its plan and its tensors' shapes. Raises SourceError."""
    sizes: Counter[str] = Counter()
    for name, (_, shape) in file.outline.items():
        sizes[".".join(name.split(".")[:3])] += prod(shape)  # SLOT.cascade.INDEX
    before: Counter[str] = Counter()
    dendrites = []
    for graft in file.facts.plan.grafts:
        place = f"{slot(graft.site)}.cascade.{before[graft.site]}"
        if place not in sizes:
            raise SourceError(f"{file.path} is broken: it has no tensors for the dendrite at {shown(graft.site, 80)}")
        before[graft.site] += 1
        dendrites.append(_carried(graft, sizes[place]))
    facts = file.facts
    return DendriteFileRecord(
        name=file.path.name,
        bytes=file.bytes,
        graftkit=facts.graftkit,
        base=facts.base,
        base_sha256=facts.base_sha256,
        signature=facts.signature,
        dendrites=tuple(dendrites),
        parameters=sum(sizes.values()),
        scores=facts.scores,
    )


def _carried(graft: Graft, parameters: int) -> CarriedRecord:
    served = None if graft.neurons is None else len(graft.neurons)
    return CarriedRecord(graft.site, graft.kind, graft.options, served, parameters)
