"""Fills a module with weights: every name and shape has to fit, less what a wrapper or a tied weight explains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftkit.core.errors import SourceError
from graftkit.sources.pickle_safety import first_line, one_line
from graftkit.sources.weights.held import Weights

_SHOWN = 3
_COUNTER = "num_batches_tracked"  # which files from before torch 0.4.1 do not have
# What wrappers put into names: at the front those of DistributedDataParallel and Fabric, anywhere the others.
_FRONT = ("module", "_forward_module")
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def fill(module: nn.Module, weights: Weights, spec: str) -> tuple[str, ...]:
    """Load the weights into the module, every key exactly.

    Returns what a user has to know of how the names were made to fit, one line each. Raises SourceError.
    """
    own = module.state_dict(keep_vars=True)
    state, said = _renamed(weights, own)
    problems = [
        _counted("lacks", sorted(_lacking(own, state))),
        _counted("has unexpected", sorted(state.keys() - own.keys())),
        _counted("has other shapes for", sorted(_misshaped(own, state))),
        _counted("has numbers of another kind for", sorted(_other_kind(own, state))),
        _counted("has different numbers for what the architecture ties:", sorted(_untied(own, state))),
    ]
    if any(problems):
        raise SourceError(f"{weights.path} does not fit {spec}: it {'; it '.join(filter(None, problems))}")
    try:
        module.load_state_dict(state, strict=False)
    except Exception as error:  # a module may add demands of its own
        raise SourceError(f"{weights.path} does not fit {spec}: {first_line(error)}") from error
    return said


def _renamed(weights: Weights, own: Mapping[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state under the module's own names, as far as taking off what wrappers add brings it there."""
    state, said = dict(weights.state), []
    for wrapper in _ANYWHERE:
        if _has_part(state, wrapper) and not _has_part(own, wrapper):
            state = {_without(wrapper, key): value for key, value in state.items()}
            said.append(f"the names in {weights.path} were taken without {wrapper}., which a wrapper had put there")
    while (prefix := _common_prefix(state, own)) is not None:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        said.append(f"the names in {weights.path} were taken without the {prefix} that all of them begin with")
    if weights.loose and (prefix := _fitting_prefix(state, own)) is not None:
        rest = [key for key in state if not key.startswith(prefix)]
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        said.append(f"of {weights.path}, what begins with {prefix} was taken, without{_counted('', rest)}")
    return state, tuple(said)


def _common_prefix(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> str | None:
    """The first part of all names, where the module does without it: a known wrapper's, or one that then fits."""
    first = {key.split(".", 1)[0] for key in state}
    if len(first) != 1 or not all("." in key for key in state):
        return None
    part = next(iter(first))
    prefix = f"{part}."
    if any(key.startswith(prefix) for key in own):
        return None
    fits = not _lacking(own, {key.removeprefix(prefix): value for key, value in state.items()})
    return prefix if fits or part in _FRONT else None


def _fitting_prefix(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> str | None:
    """The first part of some names under which the whole module lies."""
    if not _lacking(own, state):
        return None
    prefixes = dict.fromkeys(f"{key.split('.', 1)[0]}." for key in state if "." in key)
    for prefix in prefixes:
        under = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not _lacking(own, under) and under.keys() <= own.keys():
            return prefix
    return None


def _has_part(names: Iterable[str], part: str) -> bool:
    return any(part in name.split(".") for name in names)


def _without(part: str, name: str) -> str:
    return ".".join(word for word in name.split(".") if word != part)


def _lacking(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> set[str]:
    """The module's names that get no value, neither of their own nor through one that they share a tensor with."""
    given = {id(own[key]) for key in own.keys() & state.keys()}
    return {
        key
        for key, value in own.items()
        if key not in state and id(value) not in given and not key.endswith((_COUNTER, "_extra_state"))
    }


def _misshaped(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterable[str]:
    for key, wants, has in _pairs(own, state):
        if not nn.parameter.is_lazy(wants) and wants.shape != has.shape:
            yield f"{key} ({list(has.shape)} instead of {list(wants.shape)})"


def _other_kind(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterable[str]:
    """What torch would convert without a word: a complex number loses a part, an integer has lost its scale."""
    for key, wants, has in _pairs(own, state):
        kinds: tuple[Callable[[torch.dtype], bool], ...] = (lambda d: d.is_complex, lambda d: d.is_floating_point)
        if any(kind(wants.dtype) is not kind(has.dtype) for kind in kinds):
            yield f"{key} ({_word(has)} instead of {_word(wants)})"


def _untied(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterable[str]:
    first: dict[int, str] = {}
    for key, wants, has in _pairs(own, state):
        other = first.setdefault(id(wants), key)
        if other != key and not torch.equal(state[other], has):
            yield f"{other} and {key}"


def _pairs(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor, Tensor]]:
    return ((key, own[key], state[key]) for key in own if key in state and isinstance(own[key], Tensor))


def _word(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _counted(verb: str, keys: Collection[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{verb} {one_line(', '.join(list(keys)[:_SHOWN]))}{more}" if keys else ""
