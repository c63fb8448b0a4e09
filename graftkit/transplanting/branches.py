"""A site's dendrites as a small ONNX graph of their own: from what the site reads and says to its joined neurons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.checker
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from graftkit import folding
from graftkit.core.errors import ExportError
from graftkit.core.signature import Port, Signature
from graftkit.core.sites import Site
from graftkit.model import GraftedModel, SiteDendrites

# What these do with float numbers is the same in opsets 11 to 17, where the checker lets a node pass.
_LASTING = frozenset(
    {"Add", "Concat", "Conv", "ConvTranspose", "Div", "Erf", "Expand", "Gather", "Gemm", "Identity", "MatMul", "Mul"}
    | {"Pad", "ReduceMean", "Relu", "Reshape", "Shape", "Sigmoid", "Slice", "Squeeze", "Sub", "Tanh", "Transpose"}
    | {"Unsqueeze"}
)

INPUT, NEURON, MASK, JOINED = "input", "neuron", "mask", "joined"


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm that has to stand behind dendrites: its numbers, each [neurons], and epsilon."""

    values: tuple[np.ndarray, ...]  # scale, shift, mean, variance
    epsilon: float


@dataclass(frozen=True, eq=False)
class Wanted:
    """The dendrites of a site, what they read of an example, and what has to stand behind them.

    Attributes:
        read: what the site reads, what its neurons say, and the mask if there is one; a batch of two at least.
    """

    site: Site
    read: tuple[Tensor, ...]
    norm: Norm | None = None


class _Joined(nn.Module):
    """A site's dendrites, and the batch norm behind them where the file has that in the layer."""

    def __init__(self, dendrites: SiteDendrites, wanted: Wanted):
        super().__init__()
        self.dendrites = dendrites
        self.norm = _Affine(wanted.norm, wanted.site) if wanted.norm else nn.Identity()

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


def branches_of(model: GraftedModel, wanted: Sequence[Wanted], *, opset: int) -> list[onnx.GraphProto]:
    """Each site's trained dendrites with inputs `input`, `neuron` and `mask`, and the output `joined`.

    Args:
        opset: of the file that they go into.

    Raises ExportError.
    """
    if not wanted:
        return []
    training = model.training
    graph, ports = _side_by_side(model, wanted), [_ports(index, each) for index, each in enumerate(wanted)]
    joined = [Port(f"{index}/{JOINED}", own[1].dtype, own[1].shape) for index, own in enumerate(ports)]
    signature = Signature(tuple(port for own in ports for port in own), tuple(joined), joined[0].name)
    asked = min(max(opset, folding.OPSETS.start), folding.OPSETS.stop - 1)
    try:
        # One site at two places reads one example; two inputs that are the same tensor the exporter takes for one.
        inputs = tuple(tensor.clone() for each in wanted for tensor in each.read)
        found = folding.fold(folding.to_onnx(graph, inputs, opset=asked, signature=signature), (), ()).whole()
        whole = (found if opset == asked else _older(found, opset)).graph
    except ExportError as error:
        sites = ", ".join(dict.fromkeys(repr(each.site.key) for each in wanted))
        raise ExportError(f"the dendrites at {sites} have no form at the file's opset {opset}: {error}") from error
    finally:
        model.train(training)
    return [_alone(whole, index) for index in range(len(wanted))]


def _side_by_side(model: GraftedModel, wanted: Sequence[Wanted]) -> fx.GraphModule:
    """All of them in one graph, that shares nothing: the exporter takes its time for each."""
    root, graph, outputs = nn.Module(), fx.Graph(), []
    for index, each in enumerate(wanted):
        root.add_module(f"branch{index}", _Joined(model.at(each.site.key), each))
        given = tuple(graph.placeholder(f"given{index}_{place}") for place in range(len(each.read)))
        outputs.append(graph.call_module(f"branch{index}", given))
    graph.output(tuple(outputs))
    return fx.GraphModule(root.eval(), graph)


def _ports(index: int, wanted: Wanted) -> tuple[Port, ...]:
    shapes = (wanted.site.input_shape, wanted.site.output_shape, ())
    return tuple(
        Port(f"{index}/{name}", str(x.dtype).removeprefix("torch."), _sizes(shape, x, f"{name}{index}"))
        for name, shape, x in zip((INPUT, NEURON, MASK), shapes, wanted.read, strict=False)
    )


def _alone(whole: onnx.GraphProto, index: int) -> onnx.GraphProto:
    """One of the branches, its inputs and its output with their plain names."""
    made = {name: node for node in whole.node for name in node.output}
    needed: set[str] = set()
    waiting = [f"{index}/{JOINED}"]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += made[name].input if name in made else ()
    plain = {f"{index}/{name}": name for name in (INPUT, NEURON, MASK, JOINED)}
    part = onnx.GraphProto()
    part.initializer.extend(tensor for tensor in whole.initializer if tensor.name in needed)
    part.node.extend(node for node in whole.node if needed.intersection(node.output))
    for node in part.node:
        node.input[:] = [plain.get(name, name) for name in node.input]
        node.output[:] = [plain.get(name, name) for name in node.output]
    return part


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
    return re.sub(rf"^(branch\d+{re.escape(sign)})?(dendrites{re.escape(sign)})?(cascade{re.escape(sign)})?", "", name)


def _sizes(shape: tuple[int, ...], example: Tensor, name: str) -> tuple[int | str, ...]:
    shape = shape if len(shape) == example.ndim else tuple(-1 for _ in example.shape)
    return tuple(f"{name}_{dim}" if size < 0 else int(example.shape[dim]) for dim, size in enumerate(shape))


def _older(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same at an older opset, whose operators of these names differ in the types that they take, at most.

    (onnx's own converter has no way down for Relu and others that only learned further types.)
    """
    older = onnx.ModelProto()
    older.CopyFrom(model)
    del older.graph.value_info[:]
    other = {node.op_type for node in older.graph.node} - _LASTING
    if other:
        raise ExportError(f"{', '.join(sorted(other))} may mean something else there; export the file at opset 17")
    for entry in older.opset_import:
        entry.version = opset
    for node in older.graph.node if opset < 13 else ():
        _with_axes_inside(node, {tensor.name: tensor for tensor in older.graph.initializer})
    try:
        onnx.checker.check_model(older, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        told = str(error).splitlines()[0][:160]
        raise ExportError(f"{told}; export the file at opset 17 or newer") from error
    return older


def _with_axes_inside(node: onnx.NodeProto, held: Mapping[str, onnx.TensorProto]) -> None:
    """Up to opset 12 these had their axes as an attribute."""
    if node.op_type in ("Squeeze", "Unsqueeze") and len(node.input) > 1 and node.input[1] in held:
        axes = numpy_helper.to_array(held[node.input.pop(1)]).reshape(-1)
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))
