"""Where the modules of a converted graph go: paths that users will name sites by."""

from __future__ import annotations

import keyword
import re

from onnx import NodeProto
from torch import fx, nn

from graftkit.sources.onnx_tensors import Tensors

_LONGEST = 200  # characters of a name that are looked at
_DEEPEST = 20
_WEIGHT = re.compile(r"(?P<path>[^\W\d]\w*(\.\w+)*)\.weight\w*", re.ASCII)


def identifier(name: str) -> str:
    """A name as a Python identifier: `/layer1/conv1/Conv` gives `layer1_conv1_Conv`."""
    plain = re.sub(r"\W+", "_", name[:_LONGEST], flags=re.ASCII).strip("_") or "value"
    plain = f"n{plain}" if plain[0].isdigit() else plain
    return f"{plain}_" if keyword.iskeyword(plain) else plain


def path_of(node: NodeProto, tensors: Tensors) -> str:
    """A path for the node's module: the one that its weight's name tells, or its own name as an identifier."""
    told = (_WEIGHT.fullmatch(name) for name in node.input if name in tensors and len(name) < _LONGEST)
    path = next((found["path"] for found in told if found and found["path"].count(".") < _DEEPEST), None)
    path = path or identifier(node.name or node.op_type.lower())
    first, *rest = path.split(".")
    return ".".join([_free_of(fx.GraphModule, first), *(_free_of(nn.Module, step) for step in rest)])


def put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Make it a submodule, with empty modules on the way; it takes over what an empty one there holds."""
    *way, last = path.split(".")
    for step in way:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    if last in root._modules:
        for name, child in root.get_submodule(last).named_children():
            module.add_module(name, child)
    root._modules[last] = module


def _free_of(kind: type, name: str) -> str:
    """The name, or another where every module of that kind has something under it."""
    return f"{name}_" if hasattr(kind, name) else name
