"""What pruning left of a module as JSON: shapes of its tensors and numbers of its layers, put onto a fresh one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from graftkit.core.errors import PruningError, RunError
from graftkit.pruning.graph import evaluated

Number = int | list[int]


@dataclass(frozen=True)
class Shapes:
    """How a module differs from the one it was pruned from.

    Attributes:
        tensors: shapes of parameters and buffers that have another one, by name.
        numbers: whole numbers and tuples of them that layers keep and that are others, by path and attribute.
    """

    tensors: Mapping[str, list[int]]
    numbers: Mapping[str, Mapping[str, Number]]

    def to_json(self) -> dict[str, Any]:
        return {"tensors": dict(self.tensors), "numbers": {path: dict(own) for path, own in self.numbers.items()}}

    @staticmethod
    def from_json(value: Any) -> Shapes:
        """What `to_json` gave. Raises RunError where it is something else."""
        try:
            tensors = {str(name): [int(size) for size in shape] for name, shape in value["tensors"].items()}
            numbers = {
                str(path): {str(name): _number(number) for name, number in own.items()}
                for path, own in value["numbers"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"the shapes of a pruned model are broken: {error!r}") from None
        return Shapes(tensors, numbers)


def shapes_of(before: nn.Module, after: nn.Module) -> Shapes:
    """How `after` differs from `before`, whose copy it was."""
    old, new = _tensors(before), _tensors(after)
    tensors = {name: list(tensor.shape) for name, tensor in new.items() if tensor.shape != old[name].shape}
    numbers: dict[str, Mapping[str, Number]] = {}
    layers = dict(before.named_modules())
    for path, layer in after.named_modules():
        was = _numbers(layers[path])
        others = {name: value for name, value in _numbers(layer).items() if was.get(name) != value}
        if others:
            numbers[path] = others
    return Shapes(tensors, numbers)


def proved(before: nn.Module, after: nn.Module, example: Any) -> Shapes:
    """`shapes_of`, once a fresh copy that is given these shapes and the weights says what `after` says.

    Raises PruningError where it does not: then something changed that is neither a shape nor a whole number.
    """
    shapes, fresh = shapes_of(before, after), copy.deepcopy(before)
    try:
        apply(fresh, Shapes.from_json(shapes.to_json()))
        fresh.load_state_dict(after.state_dict())
        same = all(torch.equal(a, b) for a, b in zip(evaluated(fresh, example), evaluated(after, example), strict=True))
    except (RunError, RuntimeError, ValueError) as error:
        same, why = False, f": {str(error).strip().splitlines()[0][:160]}"
    else:
        why = ""
    if not same:
        raise PruningError(f"{type(before).__name__} cannot be put back from shapes and whole numbers alone{why}")
    return shapes


def apply(module: nn.Module, shapes: Shapes) -> None:
    """Give a module that was not pruned these shapes, in place; its tensors have any values until they are loaded.

    Only numbers that the module's layers already keep are set, and no tensor grows.

    Raises RunError where they do not fit the module.
    """
    there = _tensors(module)
    for name, shape in shapes.tensors.items():
        old = there.get(name)
        if old is None or len(shape) != old.ndim or any(not 0 < n <= m for n, m in zip(shape, old.shape, strict=True)):
            raise RunError(f"the pruned model's {name} does not fit the model it was pruned from")
    layers = dict(module.named_modules())
    for path, own in shapes.numbers.items():
        known = _numbers(layers[path]) if path in layers else {}
        for name, value in own.items():
            if name not in known or type(known[name]) is not type(value):
                raise RunError(f"the pruned model's {path}.{name} does not fit the model it was pruned from")
    ties = _ties(module)
    for name, shape in shapes.tensors.items():
        _replace(module, name, there[name], shape)
    for first, others in ties.items():
        for other in others:
            parent, _, own_name = other.rpartition(".")
            setattr(module.get_submodule(parent), own_name, module.get_parameter(first))
    for path, own in shapes.numbers.items():
        layer = layers[path]
        for name, value in own.items():
            setattr(layer, name, tuple(value) if isinstance(value, list) else value)


def _replace(module: nn.Module, name: str, old: Tensor, shape: list[int]) -> None:
    parent, _, own = name.rpartition(".")
    layer = module.get_submodule(parent)
    fresh = old.detach()[tuple(slice(size) for size in shape)].clone()
    if isinstance(old, nn.Parameter):
        setattr(layer, own, nn.Parameter(fresh, requires_grad=old.requires_grad))
    else:
        setattr(layer, own, fresh)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _ties(module: nn.Module) -> dict[str, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {own[0]: own[1:] for own in names.values() if len(own) > 1}


def _numbers(layer: nn.Module) -> dict[str, Number]:
    """Whole numbers, numpy's as well, and tuples of them, that a layer keeps."""
    found: dict[str, Number] = {}
    for name, value in vars(layer).items():
        if isinstance(value, bool) or name.startswith("_"):
            continue
        if isinstance(value, Integral):
            found[name] = int(value)
        elif isinstance(value, tuple) and value and all(isinstance(each, Integral) for each in value):
            found[name] = [int(each) for each in value]
    return found


def _number(value: Any) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise TypeError(f"{value!r} is no number")
    return [int(each) for each in value] if isinstance(value, list) else value
