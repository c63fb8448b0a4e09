"""A site's dendrites as a small ONNX graph of their own: from what the site reads and says to its joined neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
import torch
from torch import Tensor, nn

from graftkit import folding
from graftkit.core.errors import ExportError
from graftkit.core.signature import Port, Signature
from graftkit.core.sites import Site
from graftkit.model import GraftedModel, SiteDendrites

INPUT, NEURON, MASK, JOINED = "input", "neuron", "mask", "joined"


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm that has to stand behind dendrites: its numbers, each [neurons], and epsilon."""

    values: tuple[np.ndarray, ...]  # scale, shift, mean, variance
    epsilon: float


class _Joined(nn.Module):
    """A site's dendrites, and the batch norm behind them where the file has that in the layer."""

    def __init__(self, dendrites: SiteDendrites, norm: Norm | None, site: Site):
        super().__init__()
        self.dendrites = dendrites
        self.norm = _Affine(norm, site) if norm else nn.Identity()

    def forward(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        joined: Tensor = self.norm(self.dendrites(input, neuron, mask))
        return joined


class _Affine(nn.Module):
    """A batch norm in evaluation as a factor and an offset, which every opset has."""

    def __init__(self, norm: Norm, site: Site):
        super().__init__()
        scale, shift, mean, variance = (value.astype(np.float64) for value in norm.values)
        factor = scale / np.sqrt(variance + norm.epsilon)
        shape = (-1,) + (1,) * site.spatial_dims
        self.factor, self.offset = (
            nn.Parameter(torch.from_numpy(value.astype(norm.values[0].dtype).reshape(shape)))
            for value in (factor, shift - mean * factor)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def branch_of(
    model: GraftedModel, site: Site, read: tuple[Tensor, ...], *, opset: int, norm: Norm | None = None
) -> onnx.GraphProto:
    """A site's trained dendrites with inputs `input`, `neuron` and `mask`, and the output `joined`.

    Args:
        read: what they read of an example, a batch of two at least.
        opset: of the file that they go into.

    Raises ExportError.
    """
    training = model.training
    module = _Joined(model.at(site.key), norm, site).eval()
    names = (INPUT, NEURON, MASK)[: len(read)]
    shapes = (site.input_shape, site.output_shape, tuple(-1 for _ in read[-1].shape))
    ports = tuple(
        Port(name, str(x.dtype).removeprefix("torch."), _sizes(shape, x, name))
        for name, shape, x in zip(names, shapes, read, strict=False)
    )
    signature = Signature(ports, (Port(JOINED, ports[1].dtype, ports[1].shape),), JOINED)
    asked = min(max(opset, folding.OPSETS.start), folding.OPSETS.stop - 1)
    try:
        draft = folding.to_onnx(module, read, opset=asked, signature=signature)  # type: ignore[arg-type]
        found = folding.fold(draft, (), ()).whole()
        return (found if opset == asked else _older(found, opset)).graph
    except ExportError as error:
        raise ExportError(f"the dendrites at {site.key!r} have no form at the file's opset {opset}: {error}") from error
    finally:
        model.train(training)


def reads_of(model: GraftedModel, inputs: tuple[Tensor, ...]) -> Mapping[str, tuple[Tensor, ...]]:
    """What each site's dendrites read of a batch: what the site reads, what its neurons say, and the mask, if any."""
    found: dict[str, tuple[Tensor, ...]] = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, SiteDendrites)
        found[module.site] = tuple(tensor.detach().clone() for tensor in given)

    hooks = [model.at(site).register_forward_pre_hook(keep) for site in model.plan.sites()]
    try:
        with torch.no_grad():
            model.eval().outputs(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def planted(
    graph: onnx.GraphProto, site: str, bound: Mapping[str, str], taken: set[str], *, marked: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The branch with names that a reader understands and that are not `taken`, which grows by them.

    Args:
        bound: what its inputs and its output are called in the file.
        marked: whether nodes may have metadata, which say whose dendrites they are.
    """
    names = {"": "", **bound}
    for tensor in graph.initializer:
        names[tensor.name] = fresh(f"{site}.dendrites.{_told(tensor.name)}", taken)
    for node in graph.node:
        names.update((name, fresh(f"{site}.dendrites/{name}", taken)) for name in node.output if name not in names)
    nodes, tensors = [], []
    for node in graph.node:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        new.input[:] = [names[name] for name in node.input]
        new.output[:] = [names[name] for name in node.output]
        new.name = fresh(f"{site.replace('.', '/')}/dendrites/{_told(node.name, '/')}", taken)
        del new.metadata_props[:]
        for key, value in (("graftkit.site", site), ("graftkit.dendrite", "true")) if marked else ():
            new.metadata_props.add(key=key, value=value)
        nodes.append(new)
    for tensor in graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name]
        tensors.append(copy)
    return nodes, tensors


def says_nothing(graph: onnx.GraphProto) -> bool:
    """Whether what is joined is the neurons as they are."""
    return all(node.op_type == "Identity" for node in graph.node)


def fresh(name: str, taken: set[str]) -> str:
    """The name, or it with a number where it is taken already; it is taken from now on."""
    number, found = 0, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found


def _told(name: str, sign: str = ".") -> str:
    """A name within the branch, without the modules that every one of them is in."""
    for module in ("dendrites", "cascade"):
        name = name.removeprefix(f"{module}{sign}")
    return name


def _sizes(shape: tuple[int, ...], example: Tensor, name: str) -> tuple[int | str, ...]:
    shape = shape if len(shape) == example.ndim else tuple(-1 for _ in example.shape)
    return tuple(f"{name}_{dim}" if size < 0 else int(example.shape[dim]) for dim, size in enumerate(shape))


def _older(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise ExportError(str(error).splitlines()[0][:160]) from error
