"""A live module in the image of a ScriptModule: the same submodules, the same tensors, its `forward` replayed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftkit.core.errors import TraceError
from graftkit.tracing.replay.code import Code, Frozen, is_baked, read_block, weights_frozen_in
from graftkit.tracing.replay.interpreter import Interpreter


class Mirror(nn.Module):
    """One submodule: its parameters, buffers and submodules, and the attributes that its code reads and writes."""

    def __init__(self, script: torch.jit.ScriptModule, tensors: _Tensors):
        super().__init__()
        self._graftkit_script = Code(script._c)
        self._graftkit_tensors = Code(tensors)
        self._graftkit_written: dict[str, Any] = {}
        for name, parameter in script.named_parameters(recurse=False):
            tensors.hold(self, name, parameter, learns=True)
        for name, buffer in script.named_buffers(recurse=False):
            tensors.hold(self, name, buffer, learns=False)
        for name, child in script.named_children():
            self.add_module(name, Mirror(child, tensors))  # type: ignore[arg-type]
        self.training = bool(getattr(script, "training", False))

    def read(self, name: str) -> Any:
        """What the code finds under a name of `self`."""
        for held in (self._parameters, self._buffers, self._modules, self._graftkit_written):
            if name in held:
                return held[name]
        if name == "training":
            return self.training
        return self._graftkit_tensors.value.shared(self._graftkit_script.value.getattr(name))

    def write(self, name: str, value: Any) -> None:
        """What the code puts under a name of `self`."""
        if name in self._buffers:
            self._buffers[name] = value
        else:
            self._graftkit_written[name] = value


class Replay(Mirror):
    """The whole module.

    Attributes:
        baked: whether one mode is baked into the code, as tracing and freezing do; operators with a flag for
            training (`tracing/flags.py`) then follow `train()` and `eval()` all the same, and nothing else does.
        frozen: whether its weights were constants of the code.
    """

    def __new__(cls, script: torch.jit.ScriptModule) -> Replay:
        """An instance of a class of its own, which has the name and the arguments of what was scripted."""
        plain = re.sub(r"\W", "_", str(getattr(script, "original_name", ""))) or cls.__name__
        return super().__new__(type(plain, (cls,), {"forward": _forward(script)}))

    def __init__(self, script: torch.jit.ScriptModule):
        tensors = _Tensors()
        super().__init__(script, tensors)
        graph = script.forward.inlined_graph.copy()  # type: ignore[attr-defined]
        torch._C._jit_pass_inline_fork_wait(graph)
        self.baked = is_baked(graph)
        self._graftkit_code = Code((read_block(graph), graph))  # nodes live as long as their graph
        self._graftkit_frozen: dict[str, tuple[str, str]] = {}
        for frozen in weights_frozen_in(graph):
            self._hold(frozen, tensors)
        self.frozen = bool(self._graftkit_frozen)

    def replay(self, arguments: list[Any]) -> Any:
        """Run the code on the arguments of `forward`."""
        held = self._graftkit_frozen.items()
        constants = {name: self._modules[owner]._parameters[leaf] for name, (owner, leaf) in held}  # type: ignore[union-attr]
        return Interpreter(self._graftkit_code.value[0], self, constants, baked=self.baked).run(arguments)

    def _hold(self, frozen: Frozen, tensors: _Tensors) -> None:
        """Make a frozen weight a parameter of a submodule named after the operator that takes it."""
        if frozen.constant not in self._graftkit_frozen:
            if frozen.owner not in self._modules:
                self.add_module(frozen.owner, nn.Module())
            tensors.hold(self.get_submodule(frozen.owner), frozen.leaf, frozen.tensor, learns=True)
            self._graftkit_frozen[frozen.constant] = frozen.owner, frozen.leaf


def _forward(script: torch.jit.ScriptModule) -> Any:
    """A `forward` whose signature is that of the script's."""
    if "forward" not in script._c._method_names():
        raise TraceError("the TorchScript module has no forward method")
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.Signature([own, *map(_argument, script.forward.schema.arguments[1:])])  # type: ignore[attr-defined]

    def forward(self: Replay, *args: Any, **keywords: Any) -> Any:
        bound = signature.bind(self, *args, **keywords)
        bound.apply_defaults()
        return self.replay(list(bound.arguments.values())[1:])

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward


def _argument(argument: Any) -> inspect.Parameter:
    name = re.sub(r"\W", "_", argument.name)
    name = f"input_{name}" if not name or name[0].isdigit() else name
    default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


class _Tensors:
    """Where each tensor of the script is held: one parameter for a tensor, under however many names."""

    def __init__(self) -> None:
        self._made: dict[Any, nn.Parameter] = {}
        self._places: dict[Any, tuple[Mapping[str, Tensor | None], str]] = {}

    def hold(self, module: nn.Module, name: str, tensor: Tensor | None, *, learns: bool) -> None:
        """Register the tensor, or the parameter that shares its memory, in the module."""
        if tensor is None or not learns:
            module.register_buffer(name, tensor)
        else:
            module.register_parameter(name, self._parameter(tensor))
        if tensor is not None:
            held: Any = module._parameters if learns else module._buffers
            self._places.setdefault(_memory(tensor), (held, name))

    def shared(self, value: Any) -> Any:
        """A value of the script, with what the modules hold in the place of the tensors that it names."""
        if isinstance(value, Tensor):
            held, name = self._places.get(_memory(value), ({"": value}, ""))
            return held[name]
        if isinstance(value, list | tuple):
            return type(value)(self.shared(member) for member in value)
        if isinstance(value, dict):
            return {key: self.shared(member) for key, member in value.items()}
        if isinstance(value, torch._C.ScriptObject | torch._C.ScriptModule):
            raise TraceError(f"its code keeps an object of type {type(value).__name__}, which no graph can hold")
        return value

    def _parameter(self, tensor: Tensor) -> nn.Parameter:
        key = _memory(tensor)
        if isinstance(tensor, nn.Parameter):
            self._made.setdefault(key, tensor)
        elif key not in self._made:
            self._made[key] = nn.Parameter(tensor.detach(), requires_grad=tensor.is_floating_point())
        return self._made[key]


def _memory(tensor: Tensor) -> Any:
    """What two Python objects for one tensor have in common."""
    place = tensor.data_ptr() if tensor.numel() else id(tensor)
    return place, tensor.dtype, tuple(tensor.shape), tensor.stride()
