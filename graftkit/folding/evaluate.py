"""Computes what one ONNX node makes of given numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

_IR_VERSION = 8  # the oldest that all opsets here may have; runtimes are strict about newer ones
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def evaluate(node: onnx.NodeProto, opset: int, inputs: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...] | None:
    """The node's outputs, None where it cannot be computed.

    What only moves numbers gives views of them where numpy can, so that no weight is copied.

    Args:
        node: of the standard domain, without inner graphs.
        opset: whose operator is meant.
        inputs: in the node's order, None for one that is left out.
    """
    feed = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    model = _model(node, opset, feed)
    try:
        found = _moved(model, feed) if node.op_type in _VIEWS else _computed(model, feed)
    except Exception:  # whatever the operator's implementation raises: then the node stays as it is
        return None
    return tuple(found) if all(isinstance(value, np.ndarray) for value in found) else None


def _model(node: onnx.NodeProto, opset: int, feed: dict[str, np.ndarray]) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION)


def _moved(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feed)]


def _computed(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))
