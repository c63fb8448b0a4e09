"""Takes one part out of a model, to be grafted alone, and says what stays outside."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from graftkit.contracts import LoadedModel
from graftkit.core.errors import SourceError, did_you_mean
from graftkit.tracing.core import outside


def part_of(loaded: LoadedModel, path: str) -> LoadedModel:
    """The part at `path`, such as "backbone.body", as a model of its own. Raises SourceError where there is none."""
    whole = loaded.model
    graphs = loaded.signature or loaded.provenance.get("format") == "torchscript"
    if not isinstance(whole, nn.Module) or graphs:
        raise SourceError(f"{loaded.name} is one graph, not a module of modules; --part goes with those")
    known = [name for name, _ in whole.named_modules(remove_duplicate=False) if name]
    if path not in known:
        raise SourceError(f"{loaded.name} has no part {path!r}.{did_you_mean(path, known)}")
    part = whole.get_submodule(path)
    if isinstance(part, nn.ModuleList | nn.ModuleDict):
        inner = ", ".join(f"{path}.{name}" for name, _ in part.named_children())
        raise SourceError(f"{loaded.name}.{path} holds parts, and is never called itself; name one of {inner}")
    share = _size(part) / (_size(whole) or 1)
    note = f"only {path} is taken, {share:.0%} of the weights; outside stay {', '.join(outside(whole, path))}"
    return replace(
        loaded,
        model=part,
        name=f"{loaded.name}.{path}",
        provenance={**loaded.provenance, "part": path},
        warnings=(*loaded.warnings, note),
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
