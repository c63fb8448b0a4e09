"""How far two outputs are apart, and onnxruntime's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

TOLERANCE = 1e-3


class Wrong(AssertionError):
    """Something computes what it should not; the message is the cause."""


def difference(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    """The largest |difference| relative to the largest |value|; infinite where shapes or finiteness differ."""
    expected = ours.detach().cpu()
    given = torch.as_tensor(np.asarray(theirs)) if isinstance(theirs, np.ndarray) else theirs.detach().cpu()
    if expected.shape != given.shape:
        return float("inf")
    if not expected.is_floating_point() and not expected.is_complex():
        return float((expected != given).double().mean()) if expected.numel() else 0.0
    expected, given = expected.double(), given.double()
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(given)):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(expected[finite].abs().max())
    return float((expected[finite] - given[finite]).abs().max()) / max(scale, 1e-6)


def worst(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor | np.ndarray]) -> tuple[float, str]:
    """The largest difference over all outputs, and the output that has it. Raises Wrong where one is missing."""
    missing = [name for name in ours if name not in theirs]
    if missing:
        raise Wrong(f"no output {missing[0]!r}; there are {', '.join(theirs)}")
    found = {name: difference(value, theirs[name]) for name, value in ours.items()}
    if not found:
        return 0.0, ""
    name = max(found, key=lambda n: found[n])
    return found[name], name


def close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor | np.ndarray], what: str) -> float:
    """The largest difference. Raises Wrong where it is more than the tolerance."""
    found, name = worst(ours, theirs)
    if not found <= TOLERANCE:
        raise Wrong(f"{what}: output {name!r} differs by {found:.2g} of its scale")
    return found


class Session:
    """An ONNX file in onnxruntime."""

    def __init__(self, proto: onnx.ModelProto):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.types = {port.name: port.type for port in self.session.get_inputs()}
        self.outputs = [port.name for port in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """All outputs by name; inputs that the file does not have are left out."""
        feed = {name: value.detach().numpy() for name, value in inputs.items() if name in self.types}
        return dict(zip(self.outputs, self.session.run(None, feed), strict=True))


def by_position(values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs under their number."""
    return {str(index): value for index, value in enumerate(values)}
