"""State as plain JSON and tensors by name, and back: what optimizers, schedules and growth have to say."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TENSOR, _TUPLE, _ITEMS, _ARRAY = "$tensor", "$tuple", "$items", "$array"
_COUNTER = "$counter"


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """(JSON-able, tensors by name) of nested dicts, lists, tuples, tensors, arrays, numbers and text.

    A tensor that is there twice is stored once. Tensors come out on the CPU, contiguous, each with memory of its own.

    Raises:
        TypeError: anything else is in it.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[Any, str] = {}
    storages: set[int] = set()

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return {_TENSOR: stored(value.detach())}
        if isinstance(value, np.ndarray):
            return {_ARRAY: stored(torch.from_numpy(value.copy()))}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [plain(member) for member in value]
        if isinstance(value, tuple):
            return {_TUPLE: [plain(member) for member in value]}
        if isinstance(value, Counter):
            return {_COUNTER: [[plain(key), count] for key, count in value.items()]}
        if type(value) in (dict, OrderedDict, defaultdict):
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: plain(member) for key, member in value.items()}
            return {_ITEMS: [[plain(key), plain(member)] for key, member in value.items()]}
        raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")

    def stored(tensor: Tensor) -> str:
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else object()
        if same not in names:
            names[same] = str(len(names))
            place = tensor.untyped_storage().data_ptr() if tensor.numel() else 0
            own = tensor.cpu().contiguous()
            if place in storages and own.data_ptr() == tensor.data_ptr():
                own = own.clone()
            if tensor.numel():
                storages.add(place)
            tensors[names[same]] = own
        return names[same]

    return plain(state), tensors


def unpack(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given. Raises KeyError where a tensor is missing."""
    if isinstance(state, list):
        return [unpack(member, tensors) for member in state]
    if not isinstance(state, dict):
        return state
    if set(state) == {_TENSOR}:
        return tensors[state[_TENSOR]]
    if set(state) == {_ARRAY}:
        return tensors[state[_ARRAY]].numpy()
    if set(state) == {_TUPLE}:
        return tuple(unpack(member, tensors) for member in state[_TUPLE])
    if set(state) == {_COUNTER}:
        return Counter({unpack(key, tensors): count for key, count in state[_COUNTER]})
    if set(state) == {_ITEMS}:
        return {unpack(key, tensors): unpack(member, tensors) for key, member in state[_ITEMS]}
    return {key: unpack(member, tensors) for key, member in state.items()}
