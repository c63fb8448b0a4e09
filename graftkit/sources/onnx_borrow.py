"""Lets onnx2fx's operator functions build into a graph of ours: it offers what they ask a builder for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from onnx import NodeProto
from torch import fx, nn

from graftkit.core.errors import RuntimeMissingError
from graftkit.sources.onnx_names import path_of, put
from graftkit.sources.onnx_normalise import Graph
from graftkit.sources.onnx_operators import ROLES, UnsupportedError
from graftkit.sources.onnx_operators.numbers import as_tensor
from graftkit.sources.onnx_weights import learns, register


class Borrowing:
    """The part of a builder that onnx2fx sees.

    Attributes:
        onnx: the graph that is built from.
        graph, root: the fx graph that is built, and the module that holds what it calls.
        env: what made each value.
        read: how often each value is read.
    """

    def __init__(self, graph: Graph, where: str):
        self.onnx = graph
        self.where = where
        self.read = graph.uses()
        self.tensors = graph.tensors
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.env: dict[str, Any] = {}
        self._opset_versions = {"": graph.opset}
        self._as_tensors: dict[str, fx.Node] = {}
        self._lent_to = NodeProto()
        self._lent_at = ""  # where the tensors that it reads are kept
        self._taken: Counter[str] = Counter()  # paths, and how many asked for them

    def borrow(self, node: NodeProto) -> Any:
        """What onnx2fx makes of the node. Raises UnsupportedError, and RuntimeMissingError where it is not there."""
        try:
            from onnx2fx.op_registry import get_handler
        except ImportError as error:
            raise RuntimeMissingError(
                f"{self.where} needs onnx2fx for its operator {node.op_type}: pip install 'graftkit[onnx]'"
            ) from error
        handler = get_handler(node.op_type, "", self.onnx.opset)
        if handler is None:
            raise UnsupportedError(f"opset {self.onnx.opset} does not have it")
        self._lent_to, self._lent_at = node, ""
        return handler(self, node)  # type: ignore[arg-type]

    def get_value(self, name: str) -> Any:
        """A value as a tensor."""
        if name not in self._as_tensors:
            found = self._held(name) if name in self.tensors else self.env[name]
            if found.op == "call_module":
                found = self.graph.call_function(as_tensor, (found,))
            self._as_tensors[name] = found
        return self._as_tensors[name]

    def has_value(self, name: str) -> bool:
        """Whether there is such a value."""
        return name in self.env or name in self.tensors

    def call_function(self, function: Any, args: Any = (), kwargs: Any = None) -> fx.Node:
        """Add a call of a function."""
        return self.graph.call_function(function, tuple(args), kwargs or {})

    def get_opset_version(self, domain: str = "") -> int:
        """Which version of the operators the file uses."""
        return self.onnx.opset

    @property
    def opset_version(self) -> int:
        """The same for the standard operators."""
        return self.onnx.opset

    def _held(self, name: str) -> fx.Node:
        """A tensor of the file: a parameter where the operator that reads it holds weights there."""
        node, value = self._lent_to, self.tensors[name]
        place = list(node.input).index(name)
        roles = ROLES.get(node.op_type, ())
        role = roles[place] if place < len(roles) else ""
        own = role or f"constant_{place}"
        if not self._lent_at:
            self._lent_at = self.free(path_of(node, self.tensors))
            put(self.root, self._lent_at, nn.Module())
        holder = self.root.get_submodule(self._lent_at)
        held, turned = self.tensors.held(value, learns=learns(role, value))
        register(holder, own, held)
        found = self.graph.get_attr(f"{self._lent_at}.{own}")
        return found if turned is None else self.graph.call_function(torch.permute, (found, turned))

    def free(self, path: str) -> str:
        """The path, or another if that is taken."""
        found = path
        while self._taken[found]:
            found = f"{path}_{self._taken[path]}"
            self._taken[path] += 1
        self._taken[found] += 1
        return found
