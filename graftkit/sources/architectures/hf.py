"""`hf:FOLDER`: a folder as transformers' `save_pretrained` writes it, read from disk alone."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from graftkit.core.errors import GraftkitError, RuntimeMissingError, SourceError, did_you_mean
from graftkit.sources.architectures.hf_config import check_arguments, read_config
from graftkit.sources.architectures.made import Made, Order
from graftkit.sources.pickle_safety import first_line, listed, one_line
from graftkit.sources.weights import Weights, read_weights

_PREFIX = "hf:"
_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SLACK = 2**26  # numbers that an architecture may have beyond twice those in its weights


@dataclass(frozen=True)
class HuggingFace:
    """Class and sizes from config.json, numbers from the weights beside it; code in the folder only if trusted."""

    name: ClassVar[str] = "hf"

    def recognises(self, spec: str) -> bool:
        return spec.startswith(_PREFIX)

    def make(self, order: Order) -> Made:
        folder = Path(order.place)
        values = read_config(folder)
        own = None if order.weights else _own_weights(folder)
        weights = order.weights or own
        with _alone() as transformers:
            try:
                kind, config = _class_and_config(transformers, folder, values, order)
                _refuse_giant(kind, config, weights, folder)
                model, said = _filled(kind, config, weights, order.spec)
            except GraftkitError:
                raise
            except Exception as error:  # transformers' word for a configuration that does not work, of whatever type
                raise SourceError(f"{order.spec} cannot be made: {first_line(error)}") from error
        return Made(model, folder.resolve().name, weights, (*(own.warnings if own else ()), *said))


def _own_weights(folder: Path) -> Weights | None:
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    return read_weights(found[0]) if found else None


@contextmanager
def _alone() -> Iterator[Any]:
    """The transformers package, which inside reaches no network and writes nothing to the terminal."""
    transformers, hub = _package("transformers"), _package("huggingface_hub.constants")
    told = transformers.utils.logging
    level, bars, online = told.get_verbosity(), told.is_progress_bar_enabled(), hub.HF_HUB_OFFLINE
    with ExitStack() as undo:
        undo.callback(told.set_verbosity, level)
        undo.callback(told.enable_progress_bar if bars else told.disable_progress_bar)
        undo.callback(setattr, hub, "HF_HUB_OFFLINE", online)
        told.set_verbosity(told.CRITICAL)
        told.disable_progress_bar()
        hub.HF_HUB_OFFLINE = True
        yield transformers


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            f"hf:FOLDER needs {error.name}, which is not installed; run: pip install 'graftkit[hf]'"
        ) from error
    except Exception as error:  # torchvision, which it imports, may not fit this torch
        raise SourceError(f"{name} cannot be imported here: {first_line(error)}") from error


def _class_and_config(transformers: Any, folder: Path, values: dict[str, Any], order: Order) -> tuple[Any, Any]:
    """The model's class and its configuration, from transformers itself or, if trusted, from the folder's code."""
    kind = values.get("model_type")
    if kind in transformers.CONFIG_MAPPING:
        config = _config(transformers.CONFIG_MAPPING[kind], values, order)
        found = _named_class(transformers, values) or transformers.MODEL_MAPPING.get(type(config), None)
        if found is not None:
            return (found[0] if isinstance(found, tuple) else found), config
    if not order.trust:
        raise SourceError(_unknown(transformers, folder, values))
    return _brought_along(transformers, folder, order)


def _config(kind: Any, values: dict[str, Any], order: Order) -> Any:
    config = kind.from_dict(dict(values))
    if order.arguments:
        check_arguments(config, order.arguments, order.spec)
        labels = ("id2label", "label2id") if "num_labels" in order.arguments else ()
        kept = {name: value for name, value in values.items() if name not in labels}
        config = kind.from_dict({**kept, **order.arguments})
    config.use_cache = False
    return config


def _named_class(transformers: Any, values: Mapping[str, Any]) -> Any:
    """What `architectures` names, where that is a model of transformers and not just anything in there."""
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    found = getattr(transformers, name, None) if name.isidentifier() else None
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def _unknown(transformers: Any, folder: Path, values: Mapping[str, Any]) -> str:
    kind, names = values.get("model_type"), values.get("architectures")
    what = one_line(f"model_type {kind!r}, architectures {names!r}")
    close = did_you_mean(str(kind), transformers.CONFIG_MAPPING.keys())
    return (
        f"{folder}: transformers {transformers.__version__} does not know {what}; if the folder brings its own code and"
        f" you trust whoever made it, pass --trust.{close}"
    )


def _brought_along(transformers: Any, folder: Path, order: Order) -> tuple[Any, Any]:
    """Class and configuration out of the folder's own Python files: this runs them."""
    config = transformers.AutoConfig.from_pretrained(
        os.fspath(folder), trust_remote_code=True, local_files_only=True, **order.arguments
    )
    config.use_cache = False
    code = getattr(config, "auto_map", None) or {}
    wanted = (config.architectures or [""])[0]
    models = {name: place for name, place in code.items() if name.startswith("AutoModel")}
    place = next((place for place in models.values() if place.endswith(f".{wanted}")), models.get("AutoModel"))
    if place is None:
        raise SourceError(f"{folder}: config.json names no code for {one_line(str(wanted)) or 'its model'} in auto_map")
    load = transformers.dynamic_module_utils.get_class_from_dynamic_module
    return load(place, os.fspath(folder), local_files_only=True), config


def _refuse_giant(kind: Any, config: Any, weights: Weights | None, folder: Path) -> None:
    """Raise SourceError where the configuration describes far more numbers than the weights or the machine hold."""
    try:
        with torch.device("meta"):
            described = sum(p.numel() for p in kind(config).parameters())
    except (RuntimeError, NotImplementedError):  # a model that computes with numbers while it is made
        return
    if weights is None:
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
        if described > room:
            raise SourceError(f"{folder}: the configuration describes {described:,} numbers, more than fit in memory")
    elif described > 2 * (held := sum(tensor.numel() for tensor in weights.state.values())) + _SLACK:
        raise SourceError(f"{folder}: the configuration describes {described:,} numbers, and the weights hold {held:,}")


def _filled(kind: Any, config: Any, weights: Weights | None, spec: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with its weights, which transformers renames where an older version wrote them."""
    if weights is None:
        return kind(config), (f"there are no weights in {spec} and no --weights were given: the model has random ones",)
    model, told = kind.from_pretrained(
        None, config=config, state_dict=dict(weights.state), output_loading_info=True, ignore_mismatched_sizes=True
    )
    missing, extra = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if other := sorted(_shape(key) for key in told["mismatched_keys"]):
        raise SourceError(f"{weights.path} does not fit {spec}: it has other shapes for {listed(other)}")
    if 2 * len(missing) > len(model.state_dict()):
        raise SourceError(f"{weights.path} does not fit {spec}: it lacks {listed(missing)}, and has {listed(extra)}")
    said = []
    if missing:
        said.append(f"{weights.path} lacks {listed(missing)}, which {spec} made anew: they are random")
    if extra:
        said.append(f"{weights.path} has {listed(extra)}, for which {spec} has no place: they were left out")
    return model, tuple(said)


def _shape(mismatched: tuple[str, Sequence[int], Sequence[int]]) -> str:
    """One of transformers' (name, shape in the file, shape in the model)."""
    name, has, wants = mismatched
    return f"{name} ({list(has)} instead of {list(wants)})"
