"""Every layer before and after: its outputs, and how many of its neurons have dendrites."""

from __future__ import annotations

from torch import nn

from graftkit.core.compressions import LayerRecord
from graftkit.model import GraftedModel


def layer_records(before: nn.Module, after: nn.Module, model: GraftedModel) -> tuple[LayerRecord, ...]:
    """Of every Conv, Linear and embedding, in the order of the module; `model` is what `after` was traced into."""
    served: dict[str, int] = {}
    for graft in model.plan.grafts:
        outputs = model.traced.site(graft.site).out_channels
        path = graft.site.partition(":")[0]
        served[path] = max(served.get(path, 0), outputs if graft.neurons is None else len(graft.neurons))
    pairs = ((path, layer, before.get_submodule(path)) for path, layer in after.named_modules())
    return tuple(
        LayerRecord(path, _outputs(old), _outputs(new), served.get(path, 0))
        for path, new, old in pairs
        if isinstance(new, nn.modules.conv._ConvNd | nn.Linear | nn.Embedding)
    )


def _outputs(layer: nn.Module) -> int:
    for name in ("out_channels", "out_features", "embedding_dim"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    return 0
