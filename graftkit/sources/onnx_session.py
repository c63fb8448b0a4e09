"""Runs an ONNX model in onnxruntime as it is read here: as outside of training, and without what nothing reads.

Sources know nothing of the family of runtimes, so this opens its own session: for a model that was changed in memory,
without optimisations, which would cost more than the one small run that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from graftkit.sources.onnx_normalise.graph import read_by
from graftkit.sources.pickle_safety import first_line


class SessionError(Exception):
    """onnxruntime does not take the model, or fails on it; says why."""


class Session:
    """A model in onnxruntime.

    Attributes:
        outputs: the names of what it gives, in order.
    """

    def __init__(self, model: ModelProto, folder: Path, also: Sequence[str] = ()):
        import onnxruntime  # here: it takes a while, and most files are no ONNX files

        own = [value.name for value in model.graph.output]
        model.graph.output.extend(ValueInfoProto(name=name) for name in also if name in _made(model.graph) - {*own})
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it says is raised, too
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
        try:
            content = model.SerializeToString()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class
            raise SessionError(f"onnxruntime does not load it: {first_line(error)}") from error
        finally:
            del model.graph.output[len(own) :]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs. Raises SessionError."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        try:
            return [np.asarray(value) for value in self._session.run(None, dict(inputs), options)]
        except Exception as error:
            raise SessionError(f"onnxruntime fails on it: {first_line(error)}") from error


def as_evaluated(model: ModelProto) -> bool:
    """Change a model, in place, to what is read of it here; returns whether it was exported in training mode.

    Dropout is idle and batch norm goes by its statistics outside of training, whatever mode the file was exported in.
    What nothing reads goes: it is not looked at here, so it shall not run either.
    """
    for field in ("value_info", "quantization_annotation"):
        model.graph.ClearField(field)
    model.ClearField("training_info")
    return _evaluate(model.graph)


def _evaluate(graph: GraphProto) -> bool:
    wanted, kept, changed = {value.name for value in graph.output}, list[NodeProto](), False
    for node in reversed(graph.node):
        if not any(name in wanted for name in node.output):
            continue
        kept += _statistics(node, wanted)
        changed |= _outside_of_training(node)
        for inner in _within(node):
            changed |= _evaluate(inner)
        wanted.update(read_by(node))
        kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _statistics(node: NodeProto, wanted: set[str]) -> list[NodeProto]:
    """What gives a batch norm's further outputs instead of it: they are the statistics that it was given."""
    if node.op_type != "BatchNormalization":
        return []
    pairs = [*zip(node.output[1:], (*node.input[3:5], *node.input[3:5]), strict=False)]
    del node.output[1:]
    return [helper.make_node("Identity", [kept], [name]) for name, kept in pairs if name in wanted]


def _outside_of_training(node: NodeProto) -> bool:
    """Take the training mode from a node; whether it had one."""
    modes = [a for a in node.attribute if node.op_type == "BatchNormalization" and a.name == "training_mode" and a.i]
    for attribute in modes:
        attribute.i = 0
    trained = bool(modes) or (node.op_type == "Dropout" and any(node.input[2:]))
    if node.op_type == "Dropout":
        del node.input[2:]
    return trained


def _within(node: NodeProto) -> Iterator[GraphProto]:
    return (attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH)


def _made(graph: GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output}
