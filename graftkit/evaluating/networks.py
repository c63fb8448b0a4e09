"""The networks of a run that are measured side by side: given, control, and what it grafted or pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graftkit import reopening, surgery
from graftkit.contracts import Data, Observer
from graftkit.core import compressions
from graftkit.core.compressions import GIVEN, PRUNED, SCRATCH
from graftkit.core.errors import RunError
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan
from graftkit.run_folder import METRICS, SHAPES, RunFolder

CONTROL, GRAFTED = "control", "grafted"


@dataclass(frozen=True, eq=False)
class Network:
    """One network of a run: a live model, which others may share, and its state.

    Attributes:
        name: what it is called in tables.
        model: the live one.
        plan, state: what makes that one this network.
    """

    name: str
    model: GraftedModel
    plan: GraftPlan
    state: Mapping[str, Tensor]

    def awake(self) -> GraftedModel:
        """The live model as this network, in evaluation."""
        surgery.put_back(self.model, self.plan, self.state, build_dendrite)
        return self.model.eval()


@dataclass(frozen=True, eq=False)
class Opened:
    """A run that is evaluated.

    Attributes:
        networks: in order, given first; the last is what it is about.
        data: its rows.
        facts: its source.json.
        compressed: whether it is one of `compress`.
        trained: epochs that a compression took; 0 for other runs.
    """

    networks: tuple[Network, ...]
    data: Data
    facts: Mapping[str, Any]
    compressed: bool
    trained: int = 0

    @property
    def given(self) -> Network:
        return self.networks[0]


def opened(path: Path, observer: Observer, *, device: torch.device, trust: bool, allow: tuple[str, ...]) -> Opened:
    """Read a run's networks and data. Raises RunError, SourceError, DataError."""
    folder = RunFolder(path)
    compressed = (path / SHAPES).is_file()
    model, data, facts = reopening.open_given(path, trust=trust, allow=allow, pruned=not compressed)
    model.to(device)
    networks = [Network(GIVEN, model, model.plan, model.snapshot())]
    if compressed:
        small, _, _ = reopening.open_given(path, trust=trust, allow=allow)
        model = small.to(device)
    plan, state = folder.read_plan(), folder.read_checkpoint()
    if (control := folder.read_arm("control")) is not None:
        own_plan, own_state, shapes = control
        alike = model if shapes is None else reopening.open_given(path, trust=trust, allow=allow, shapes=shapes)[0]
        networks.append(Network(SCRATCH if compressed else CONTROL, alike.to(device), own_plan, own_state))
    last = {(True, True): compressions.GRAFTED, (True, False): PRUNED, (False, True): GRAFTED}
    shipped = last.get((compressed, bool(plan.grafts)))
    if shipped is not None:
        networks.append(Network(shipped, model, plan, state))
    elif (grafted := folder.read_arm("grafted")) is not None:
        networks.append(Network(GRAFTED, model, *grafted[:2]))
        observer.on_warning("the network with dendrites is one that did not ship: the model as given did")
    for line in _missing(networks, folder, compressed):
        observer.on_warning(line)
    for network in networks:
        _check(network, path)
    return Opened(tuple(networks), data, facts, compressed, _trained(folder) if compressed else 0)


def _trained(folder: RunFolder) -> int:
    """Epochs that what a compression ships was trained for. Raises RunError."""
    told = folder.read_json(METRICS)
    try:
        return int(told["sizes"][told["shipped"]]["pruned"]["epochs"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise RunError(f"{folder.path / METRICS} is broken: {error!r}") from None


def _missing(networks: list[Network], folder: RunFolder, compressed: bool) -> Iterator[str]:
    """What is not measured, and why."""
    names = {network.name for network in networks}
    told = folder.read_json(METRICS)
    told = told if isinstance(told, dict) else {}
    had = any(size.get("scratch") for size in told.get("sizes", ())) if compressed else told.get("control") is not None
    if not names & {CONTROL, SCRATCH}:
        why = "an earlier version did not keep its weights; run it again" if had else "the run had none"
        yield f"no control is measured: {why}"
    if len(names - {CONTROL, SCRATCH}) == 1:
        yield "no network with dendrites is measured: none was trained, or an earlier version did not keep its weights"


def _check(network: Network, path: Path) -> None:
    try:
        network.awake()
    except RuntimeError as error:  # torch's word for names or shapes that do not fit
        reason = str(error).splitlines()[0]
        raise RunError(f"{path}: the weights of {network.name} do not fit its plan: {reason}") from None
