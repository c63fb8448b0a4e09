"""Core ML, which has had no ONNX importer since coremltools 6.0.

Source: coremltools' maintainers (github.com/apple/coremltools, issues 988 and 1864): ONNX went with 6.0, and 5.2 was
the last that had it; its guide converts from PyTorch: a traced module or a torch.export program.
"""

from __future__ import annotations

from graftkit.targets.target import Target

COREML = Target(
    name="coreml",
    title="Core ML, through coremltools 6.0 or newer",
    refuses="coremltools reads no ONNX file; its importer went with 6.0",
    instead="convert the trained PyTorch model: torch.export.export(graftkit.api.fresh_graph(model), inputs), and"
    " coremltools.convert of that",
)
