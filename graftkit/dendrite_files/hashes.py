"""Which base dendrites belong to, and whether they are whole: hashes of tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graftkit.model import GraftedModel, TracedModel


def base_sha256(model: GraftedModel) -> str:
    """Of the base's parameters and buffers as they stand now, as `tensors_sha256` has it.

    Batch norms' statistics are among them. Buffers that the module itself does not save are not: they are caches, which
    a call may have filled.
    """
    caches = _caches(model.traced)
    return tensors_sha256({name: t for name, t in model.base.state_dict().items() if name not in caches})


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over names, types, shapes and bytes, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        head = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        digest.update(head.encode() + b"\n")
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _caches(traced: TracedModel) -> set[str]:
    if traced.source is None:
        return set()
    return {name for name, _ in traced.source.named_buffers(remove_duplicate=False)} - set(traced.source.state_dict())


def _bytes(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().reshape(-1).contiguous()
    return flat.view(torch.uint8).numpy() if flat.numel() else b""
