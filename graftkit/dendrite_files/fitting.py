"""Whether dendrites in a file fit a base, told before any of them is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from graftkit import surgery
from graftkit.core.errors import GraftkitError, PlanError, SourceError, shown
from graftkit.core.signature import Port
from graftkit.core.sites import Site
from graftkit.dendrite_files.reading import DendriteFile
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel, slot
from graftkit.plan import Graft

_TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}
_LARGEST = 2**29  # numbers in a dendrite before it is narrowed to the neurons that it serves
_Outline = tuple[str, tuple[int, ...]]  # type and shape of a tensor


def check_fits(model: GraftedModel, file: DendriteFile) -> None:
    """Raise PlanError or SourceError where the file's plan does not fit the bare model, or its tensors the plan.

    Each dendrite is made without weights, and what it would have has to be in the file before the next one is made: so
    a file costs no more than its own size, whatever it asks for.
    """
    _check_ports(model, file)
    left = dict(file.outline)
    try:
        for name, wanted in _wanted(model, file):
            _check_tensor(file, name, left.pop(name, None), wanted)
    except PlanError as error:
        raise PlanError(f"{file.path} does not fit {model.traced.name}: {shown(str(error))}") from error
    except GraftkitError:
        raise
    except Exception as error:  # whatever options and numbers of a foreign file provoke
        raise SourceError(f"{file.path} is broken: {shown(f'{type(error).__name__}: {error}', 200)}") from error
    if left:
        raise SourceError(f"{file.path} is broken: its plan has no dendrite for the tensor {shown(min(left), 80)}")


def _wanted(model: GraftedModel, file: DendriteFile) -> Iterator[tuple[str, _Outline]]:
    """What each tensor has to be, by name, of all that the plan's dendrites have."""
    like = next((p for p in model.base.parameters() if p.is_floating_point()), None)
    kind = _TYPES["float32" if like is None else str(like.dtype).removeprefix("torch.")]
    sites = surgery.check(model, file.facts.plan.grafts)
    before: Counter[str] = Counter()
    for graft in file.facts.plan.grafts:
        index = before[graft.site]
        before[graft.site] += 1
        _check_size(graft, sites[graft.site], index)
        dendrite = surgery.without_weights(graft, sites[graft.site], index, build_dendrite)
        for name, tensor in dendrite.state_dict().items():
            yield f"{slot(graft.site)}.cascade.{index}.{name}", (kind, tuple(tensor.shape))


def _check_size(graft: Graft, site: Site, index: int) -> None:
    """Raise PlanError for a dendrite that would take far more memory to make than its tensors have."""
    if graft.neurons is None:
        return
    whole = surgery.without_weights(replace(graft, neurons=None), site, index, build_dendrite)
    if sum(p.numel() for p in whole.parameters()) > _LARGEST:
        raise PlanError(f"the {graft.kind} dendrite at {graft.site} is too large to be made")


def _check_tensor(file: DendriteFile, name: str, found: _Outline | None, wanted: _Outline) -> None:
    if found is None:
        raise SourceError(f"{file.path} is broken: its plan needs a tensor {shown(name, 80)}, which it does not have")
    if found != wanted:
        have, need = (f"{kind} {list(shape)}" for kind, shape in (found, wanted))
        raise PlanError(f"the tensor {name} is {have}, and has to be {need}")


def _check_ports(model: GraftedModel, file: DendriteFile) -> None:
    """Raise PlanError where the base takes or gives other tensors; whether sizes fit is seen at the dendrites."""
    ours, theirs = model.traced.signature, file.facts.signature
    for verb, here, there in (("takes", ours.inputs, theirs.inputs), ("gives", ours.outputs, theirs.outputs)):
        if _kinds(here) != _kinds(there):
            told, found = ("; ".join(port.text() for port in ports) for ports in (there, here))
            name = model.traced.name
            raise PlanError(f"{file.path} is for a base that {verb} {shown(told)}, and {name} {verb} {found}")


def _kinds(ports: tuple[Port, ...]) -> list[tuple[str, int]]:
    return [(port.dtype, len(port.shape)) for port in ports]
