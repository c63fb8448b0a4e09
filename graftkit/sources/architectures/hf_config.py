"""Reads the config.json of a transformers folder, without what in it would fetch, run or read something else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.core.errors import SourceError, did_you_mean

CONFIG = "config.json"
_SIZE_LIMIT = 16 * 2**20
_DEPTH_LIMIT = 32
_COUNT_LIMIT = 10_000  # of layers, blocks and the like, which are made one by one
_LABELS_LIMIT = 100_000  # each of which transformers makes a name for
_LABELS = re.compile(r"num_labels$")
_COUNT = re.compile(r"(^|_)(n_?)?(layers?|blocks?|depths?|stages?)(_|$)")
# Names of code, of other files and of kernels on the hub; and what says how to run rather than what to compute.
_DROPPED_KEYS = (
    "_attn_implementation _attn_implementation_internal _commit_hash _experts_implementation"
    " _experts_implementation_internal _name_or_path attn_implementation auto_map base_model_tp_plan custom_pipelines"
    " distributed_config experts_implementation fusion_config gguf_file kernel_config name_or_path tp_plan"
    " transformers_weights trust_remote_code"
)
_DROPPED = frozenset(_DROPPED_KEYS.split())
# A cache of keys is no output that a training step needs; a backbone's own weights would be downloaded.
_OFF = ("use_cache", "use_pretrained_backbone")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration as plain values. Raises SourceError."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise SourceError(
            f"there is no folder {folder}; hf:FOLDER takes one with config.json and weights, and downloads nothing"
        )
    if not path.is_file():
        raise SourceError(f"{folder} has no {CONFIG}; give a folder as transformers' save_pretrained writes it")
    if path.stat().st_size > _SIZE_LIMIT:
        raise SourceError(f"{path} is larger than any configuration; do not use it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise SourceError(f"{path} is damaged; copy or download it again") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path} is no configuration, but a {type(found).__name__}; copy or download it again")
    _refuse(found, folder)
    cleaned: dict[str, Any] = _cleaned(found, path, 0)
    return cleaned


def check_arguments(config: Any, arguments: Mapping[str, Any], spec: str) -> None:
    """Raise SourceError for an argument that such a configuration does not have."""
    public = {name for name in (*vars(config), *dir(type(config))) if not name.startswith("_")}
    known = public | set(getattr(config, "attribute_map", ())) | {"attn_implementation"}
    for name in arguments:
        if name not in known:
            raise SourceError(f"{spec}: {type(config).__name__} has no {name!r}.{did_you_mean(name, vars(config))}")


def _refuse(found: Mapping[str, Any], folder: Path) -> None:
    if found.get("quantization_config"):
        raise SourceError(f"{folder} holds quantized weights, which cannot be trained; give it in full precision")
    if (folder / "adapter_config.json").exists():
        raise SourceError(f"{folder} holds an adapter; merge it into its model first (merge_and_unload)")


def _cleaned(value: Any, path: Path, depth: int, key: str = "") -> Any:
    if depth > _DEPTH_LIMIT:
        raise SourceError(f"{path} is nested {_DEPTH_LIMIT} deep, which no configuration is; do not use it")
    if isinstance(value, dict):
        kept = {name: member for name, member in value.items() if name not in _DROPPED}
        cleaned = {name: _cleaned(member, path, depth + 1, name) for name, member in kept.items()}
        return cleaned | {name: False for name in _OFF if name in cleaned}
    if isinstance(value, list):
        return [_cleaned(member, path, depth + 1, key) for member in value]
    limits = ((_COUNT, _COUNT_LIMIT), (_LABELS, _LABELS_LIMIT))
    if isinstance(value, int) and any(abs(value) > most and pattern.search(key) for pattern, most in limits):
        raise SourceError(f"{path}: {key} is {value}, and no model has so many; do not use it")
    if isinstance(value, str) and key == "backbone" and (Path(value).is_absolute() or value.startswith(".")):
        raise SourceError(f"{path}: backbone names {value[:80]!r}, which is outside the folder; do not use it")
    return value
