"""torch-pruning's dependency graph of a module: which channels go together, and how they are taken out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from graftkit.core.errors import PruningError
from graftkit.pruning.widths import Change, Width

_ROOTS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True, eq=False)
class Part:
    """What leaves of one tensor.

    Attributes:
        tensor: a parameter.
        dimension: in which it leaves.
        numbers: which of it.
        roots: for each of the numbers the channel of the group's root that it belongs to.
        layer: the module, or the parameter that belongs to none of torch.nn.
    """

    tensor: Tensor
    dimension: int
    numbers: list[int]
    roots: list[int]
    layer: Any


class Channels:
    """A module's channels, as they stand; built anew for each module, and true while only it prunes the module.

    Args:
        module: whose channels they are; pruned in place.
        example: inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments.

    Raises:
        RuntimeMissingError: torch-pruning is not installed.
        PruningError: the module cannot be followed.
    """

    def __init__(self, module: nn.Module, example: Any):
        pruning = library()
        self.module, self.example = module, placed(example, module)
        self.paths = {layer: path for path, layer in module.named_modules()}
        training = {layer: layer.training for layer in module.modules()}
        learning = {p: p.requires_grad for p in module.parameters()}
        for parameter in learning:
            parameter.requires_grad_(parameter.is_floating_point())
        try:
            with torch.enable_grad():
                self._graph = pruning.DependencyGraph().build_dependency(
                    module, example_inputs=self.example, output_transform=_differentiable, verbose=False
                )
        except Exception as error:  # whatever the module, or what follows it, raises
            raise PruningError(f"{type(module).__name__} cannot be followed: {_line(error)}") from error
        finally:
            for parameter, on in learning.items():
                parameter.requires_grad_(on)
            for layer, on in training.items():
                layer.training = on
        self._ties = _ties(module)

    def roots(self) -> Iterator[tuple[str, int]]:
        """Layers that make channels, each with how many, in the order of the module."""
        for path, layer in self.module.named_modules():
            if isinstance(layer, _ROOTS) and layer in self._graph.module2node:
                yield path, int(self._graph.get_out_channels(layer))

    def group(self, root: str, channels: Sequence[int]) -> Any:
        """Every tensor's part that leaves with so many channels of a layer. Raises PruningError."""
        layer = self.module.get_submodule(root)
        take = self._graph.get_pruner_of_module(layer).prune_out_channels
        try:
            return self._graph.get_pruning_group(layer, take, list(channels))
        except Exception as error:  # torch-pruning's own limits come as any error
            # faults of its own say nothing of the module
            own = isinstance(error, LookupError | TypeError | AttributeError)
            reason = (own and self._unknown()) or _line(error)
            raise PruningError(f"torch-pruning does not follow its channels: {reason}") from error

    def _unknown(self) -> str:
        """Which layers with weights it does not know, "" where it knows all."""
        known = self._graph.module2node
        others = [
            f"{path} ({type(layer).__name__})"
            for path, layer in self.module.named_modules()
            if layer not in known and any(True for _ in layer.parameters(recurse=False))
        ]
        return f"it does not know {', '.join(others[:3])}" if others else ""

    def makers(self, group: Any) -> list[str]:
        """Layers whose outputs are in a group."""
        made = [dep.target.module for dep, _ in group if self._graph.is_out_channel_pruning_fn(dep.handler)]
        return list(dict.fromkeys(self.paths[layer] for layer in made if layer in self.paths))

    def layers(self, group: Any) -> list[str]:
        """Layers that a group touches."""
        return list(dict.fromkeys(self.paths[dep.target.module] for dep, _ in group if dep.target.module in self.paths))

    def parts(self, group: Any) -> Iterator[Part]:
        """Of each tensor of a group what leaves."""
        for item in group:
            layer, numbers = item.dep.target.module, list(item.idxs)
            made = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            for tensor, dimension, start in _tensors(layer, item.dep.target, made=made):
                if numbers and start + max(numbers) < tensor.shape[dimension]:
                    shifted = [start + number for number in numbers]
                    yield Part(tensor, dimension, shifted, list(item.root_idxs), layer)

    def take(self, width: Width, channels: Sequence[int], times: int) -> None:
        """Take channels of a width's root out, in place, and what follows; `times` units. Raises PruningError."""
        group = self.group(width.name, channels)
        if not self._graph.check_pruning_group(group):
            raise PruningError(f"{width.name}: nothing would be left of a layer")
        group.prune()
        follow(self.module, width.changes, times)
        self._tie(width.name)

    def _tie(self, name: str) -> None:
        """Make tensors that were one tensor one again; raises PruningError where they no longer are alike."""
        for first, *others in self._ties:
            kept = self.module.get_parameter(first)
            for path in others:
                other = self.module.get_parameter(path)
                if other is kept:
                    continue
                if other.shape != kept.shape or not torch.equal(other, kept):
                    raise PruningError(f"{first} and {path} are tied, and only one of them would shrink with {name}")
                parent, _, own = path.rpartition(".")
                setattr(self.module.get_submodule(parent), own, kept)


def library() -> Any:
    """torch-pruning. Raises RuntimeMissingError."""
    from graftkit.core.errors import RuntimeMissingError

    try:
        import torch_pruning
    except ImportError as error:
        raise RuntimeMissingError("torch-pruning is not installed: pip install 'graftkit[compress]'") from error
    return torch_pruning


def call(module: nn.Module, example: Any) -> list[Tensor]:
    """All tensors that the module gives for an example."""
    if isinstance(example, Mapping):
        found = module(**example)
    else:
        found = module(*example) if isinstance(example, tuple | list) else module(example)
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def evaluated(module: nn.Module, example: Any) -> list[Tensor]:
    """What the module gives in evaluation, without gradients; its layers are left in the mode they were in."""
    training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            return call(module, placed(example, module))
    finally:
        for layer, on in training.items():
            layer.training = on


def copied(module: nn.Module) -> nn.Module:
    """A copy to try things on."""
    return copy.deepcopy(module)


def placed(example: Any, module: nn.Module) -> Any:
    """An example whose tensors belong to nothing, where the module is."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return tree_map_only(Tensor, lambda tensor: tensor.detach().clone().to(device), example)


def follow(module: nn.Module, changes: Sequence[Change], times: int) -> None:
    """Let numbers beside the weights follow what was taken."""
    for change in changes:
        owner = module.get_submodule(change.module)
        setattr(owner, change.attribute, getattr(owner, change.attribute) + change.by * times)


def _differentiable(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]


def _ties(module: nn.Module) -> list[list[str]]:
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return [own for own in names.values() if len(own) > 1]


def _tensors(layer: Any, node: Any, *, made: bool) -> Iterator[tuple[Tensor, int, int]]:
    """Tensors of a layer that have the channels, in which dimension, and from where on."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if isinstance(layer, nn.Parameter):
        yield layer, int(node.pruning_dim), 0
    elif isinstance(layer, nn.MultiheadAttention):
        yield from _attention(layer)
    elif isinstance(layer, nn.Embedding):
        yield layer.weight, 1, 0
    elif isinstance(weight, Tensor):
        swapped = bool(getattr(layer, "transposed", False))
        yield weight, 0 if weight.ndim == 1 or made != swapped else 1, 0
        if isinstance(bias, Tensor) and (made or weight.ndim == 1):
            yield bias, 0, 0


def _attention(layer: nn.MultiheadAttention) -> Iterator[tuple[Tensor, int, int]]:
    """Rows for queries, keys and values, what they read, and the projection behind them."""
    if layer.in_proj_weight is not None:
        yield layer.in_proj_weight, 1, 0
        for third in range(3):
            yield layer.in_proj_weight, 0, third * layer.embed_dim
            if layer.in_proj_bias is not None:
                yield layer.in_proj_bias, 0, third * layer.embed_dim
    yield layer.out_proj.weight, 0, 0
    yield layer.out_proj.weight, 1, 0
    if layer.out_proj.bias is not None:
        yield layer.out_proj.bias, 0, 0


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
