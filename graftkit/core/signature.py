"""What a model takes and gives: names, types and sizes, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BATCH = "batch"  # the free size that counts rows


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output tensor.

    Attributes:
        name: as the ONNX file calls it.
        dtype: torch's word without the prefix: "float32", "int64", "bool".
        shape: a number is fixed, a name is free ("batch", "length"); empty for a single number.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def text(self) -> str:
        """For people: `input_ids: int64 [batch, length]`."""
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs in order, the outputs of its evaluation graph, and which of them feeds the loss."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    output: str

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs' names, in order."""
        return tuple(port.name for port in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs' names, in order."""
        return tuple(port.name for port in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; the inverse of `from_json`."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Signature:
        """Read what `to_json` wrote. Raises KeyError or TypeError for anything else."""
        inputs, outputs = (
            tuple(Port(port["name"], port["dtype"], tuple(port["shape"])) for port in value[side])
            for side in ("inputs", "outputs")
        )
        return Signature(inputs, outputs, value["output"])
