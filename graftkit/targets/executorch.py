"""ExecuTorch, which takes programs of torch.export.

Source: its documentation, "Exporting to ExecuTorch": to_edge_transform_and_lower takes what torch.export gives.
"""

from __future__ import annotations

from graftkit.targets.target import Target

EXECUTORCH = Target(
    name="executorch",
    title="ExecuTorch",
    refuses="ExecuTorch reads no ONNX file, but programs of torch.export",
    instead="lower the trained PyTorch model: torch.export.export(graftkit.api.fresh_graph(model), inputs), and"
    " executorch.exir.to_edge_transform_and_lower of that",
)
