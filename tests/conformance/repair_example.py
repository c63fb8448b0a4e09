"""What an example of a repair of a graph is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Example:
    """A module and its inputs."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
