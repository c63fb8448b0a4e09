"""Fills a module from a state dict file: torch.save's, read with weights_only, or safetensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from graftkit.core.errors import SourceError
from graftkit.sources.files import ZIP_MAGIC, read_head, refuse_bomb, zip_members
from graftkit.sources.pickle_safety import first_line, load_restricted, one_line

_SHOWN = 3


def fill(module: nn.Module, path: Path, spec: str) -> None:
    """Load the state dict into the module, every key exactly. Raises SourceError."""
    state = _read(path)
    own = module.state_dict()
    problems = [
        _counted("lacks", sorted(own.keys() - state.keys())),
        _counted("has unexpected", sorted(state.keys() - own.keys())),
        _counted("has other shapes for", list(_misshaped(own, state))),
    ]
    if any(problems):
        raise SourceError(f"{path} does not fit {spec}: it {'; it '.join(filter(None, problems))}")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # a module may add demands of its own
        raise SourceError(f"{path} does not fit {spec}: {first_line(error)}") from error


def _read(path: Path) -> Mapping[str, Tensor]:
    head = read_head(path)
    found = _read_torch(path) if head.startswith((ZIP_MAGIC, b"\x80")) else _read_safetensors(path, head)
    if isinstance(found, nn.Module):
        raise SourceError(f"{path} is a whole module, not a state dict; give it alone, without a factory")
    if not _is_state_dict(found):
        keys = f" of {one_line(', '.join(map(str, list(found)[:5])))}" if isinstance(found, Mapping) else ""
        raise SourceError(
            f"{path} holds a {type(found).__name__}{keys}, not a state dict; save model.state_dict() alone"
        )
    state: Mapping[str, Tensor] = found
    return state


def _read_torch(path: Path) -> Any:
    refuse_bomb(path, zip_members(path), where=str(path))
    return load_restricted(path, str(path))


def _read_safetensors(path: Path, head: bytes) -> Any:
    if not head:
        raise SourceError(f"{path} is empty; copy or download it again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"{path} is neither a state dict of torch.save nor a safetensors file") from error


def _is_state_dict(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and all(isinstance(key, str) for key in found)
        and all(isinstance(value, torch.Tensor) for value in found.values())
    )


def _misshaped(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterable[str]:
    for key in own.keys() & state.keys():
        wants, has = own[key], state[key]
        if not nn.parameter.is_lazy(wants) and wants.shape != has.shape:
            yield f"{key} ({list(has.shape)} instead of {list(wants.shape)})"


def _counted(verb: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{verb} {one_line(', '.join(keys[:_SHOWN]))}{more}" if keys else ""
