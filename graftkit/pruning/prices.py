"""What channels cost, counted on a live module: numbers in parameters, or multiply-adds for one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from graftkit.pruning.graph import Channels, Part, evaluated

Unit = Literal["parameters", "macs"]
_MULTIPLIES = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)


@dataclass(frozen=True)
class Prices:
    """Counts a module and its channels.

    Attributes:
        unit: "parameters", or "macs" for multiply-adds of Conv, Linear and attention's own projections.
        positions: how often a row applies each layer's weights, by path.
    """

    unit: Unit
    positions: Mapping[str, int]

    def of(self, module: nn.Module) -> float:
        """Of the whole module, as it stands."""
        if self.unit == "parameters":
            return float(sum(parameter.numel() for parameter in module.parameters()))
        layers = ((path, layer) for path, layer in module.named_modules() if path in self.positions)
        return float(sum(self.positions[path] * sum(w.numel() for w in _weights(layer)) for path, layer in layers))

    def channel(self, channels: Channels, group: Any, count: int) -> float:
        """Of one of the `count` channels that a whole group has."""
        return sum(self._part(channels, part) for part in channels.parts(group)) / count

    def _part(self, channels: Channels, part: Part) -> float:
        numbers = part.tensor.numel() / part.tensor.shape[part.dimension] * len(part.numbers)
        if self.unit == "parameters":
            return numbers
        path = channels.paths.get(part.layer, "")
        return numbers * self.positions.get(path, 0) * (part.tensor.ndim > 1)


def prices(module: nn.Module, example: Any, unit: Unit) -> Prices:
    """For this module, which is run once where positions count."""
    return Prices(unit, {} if unit == "parameters" else _positions(module, example))


def _positions(module: nn.Module, example: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    hooks = []
    for path, layer in module.named_modules():
        if isinstance(layer, _MULTIPLIES):
            hooks.append(layer.register_forward_hook(_counting(found, path)))
    try:
        evaluated(module, example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _counting(found: dict[str, int], path: str) -> Any:
    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        given = output[0] if isinstance(output, tuple) else output
        if not isinstance(given, Tensor):
            return
        channels = getattr(layer, "out_channels", getattr(layer, "out_features", given.shape[-1]))
        found[path] = found.get(path, 0) + given.numel() // (max(1, len(given)) * channels)

    return count


def _weights(layer: nn.Module) -> Sequence[Tensor]:
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.ndim > 1]
