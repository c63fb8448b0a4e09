"""Runs made without training, files that other tools export of the same models, and what both compute."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from graftkit import api, surgery
from graftkit.contracts import LoadedModel
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.run_folder import PLAN, SOURCE, RunFolder


@dataclass(frozen=True)
class Run:
    """A run's folder, the module that it was given, and the trained model."""

    folder: Path
    module: nn.Module
    model: GraftedModel
    rows: np.ndarray

    def expected(self, x: np.ndarray) -> np.ndarray:
        """What the trained model says."""
        with torch.no_grad():
            return self.model.eval()(torch.from_numpy(x)).numpy()


def woken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms that have seen data, and weights of no particular value."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.3)
    return module.eval()


def run_of(
    module: nn.Module, shape: Sequence[int], grafts: Sequence[Graft], folder: Path, *, moved: bool = True
) -> Run:
    """The folder of a run that grafted, and trained by a random step: all, or the dendrites where `moved` is False."""
    x = np.random.default_rng(0).normal(size=(60, *shape)).astype(np.float32)
    return Run(folder, module, trained_on(module, {"x": x}, grafts, folder, moved=moved), x)


def trained_on(
    module: nn.Module, given: Mapping[str, np.ndarray], grafts: Sequence[Graft], folder: Path, *, moved: bool = True
) -> GraftedModel:
    """The same of a model with any inputs, each [60, ...]; the trained model."""
    folder.mkdir(parents=True)
    torch.save(module, folder.parent / f"{folder.name}.pt")
    data = folder.parent / f"{folder.name}.npz"
    np.savez(data, **{f"{name}_train": values for name, values in given.items()}, y_train=np.arange(60) % 3)
    loaded = api.load(folder.parent / f"{folder.name}.pt", trust=True)
    model = surgery.empty(api.trace(loaded, api.load_data(str(data)).example()))
    surgery.graft(model, grafts, build_dendrite, seed=0)
    _step(model, moved)
    run = RunFolder(folder)
    run.write_json(SOURCE, facts_of(loaded, folder.parent / f"{folder.name}.pt", data))
    run.write_json(PLAN, model.plan.to_json())
    run.write_checkpoint(model)
    return model


def _step(model: GraftedModel, moved: bool) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.uniform_(-0.4, 0.5)
        for name, tensor in model.base.state_dict().items() if moved else ():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.rand_like(tensor) * (1 if name.endswith("var") else tensor.abs().mean() + 0.1)


def facts_of(loaded: LoadedModel, source: Path, data: Path) -> dict[str, object]:
    """What `augment` writes as source.json, as far as it is read again."""
    return {
        "source": str(source), "sha256": loaded.provenance["sha256"], "weights": None, "data": str(data),
        "metric": "accuracy", "seed": 0,
    }  # fmt: skip


def legacy(module: nn.Module, x: Tensor, *, opset: int = 17, folding: bool = True, keep: bool = False,
           fixed: bool = False) -> onnx.ModelProto:  # fmt: skip
    """What torch's older exporter makes of a module.

    Args:
        folding: whether it folds constants.
        keep: whether it leaves batch norms alone.
        fixed: whether the number of rows is that of the example.
    """
    content = io.BytesIO()
    mode = torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), content, dynamo=False, opset_version=opset, do_constant_folding=folding, training=mode,
            input_names=["pixels"], output_names=["scores"],
            dynamic_axes=None if fixed else {"pixels": {0: "n"}, "scores": {0: "n"}},
        )  # fmt: skip
    return onnx.load_model_from_string(content.getvalue())


def modern(module: nn.Module, x: Tensor) -> onnx.ModelProto:
    """What torch's exporter makes of a module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                                 verbose=False, opset_version=18)  # fmt: skip
    assert made is not None
    return made.model_proto


def said(file: Path | onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """All outputs of a file with one input."""
    content = file if isinstance(file, Path) else file.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """The file."""
    onnx.save(model, path)
    return path


def like_tf(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same as tf2onnx writes it: its names, NHWC around each Conv, kernels as [H, W, I, O], MatMul and BiasAdd."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    given, gives = model.graph.input[0].name, model.graph.output[0].name
    named = {given: "serving_input:0", gives: "Identity:0"}

    def constant(name: str, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value))
        nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def call(kind: str, inputs: Sequence[str], output: str, **more: object) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=output.removesuffix(":0"), **more))

    for index, node in enumerate(model.graph.node):
        path = f"model/{node.op_type.lower()}_{index}"
        named.update({name: named.get(name, f"{path}/{node.op_type}:0") for name in node.output})
        inputs = [constant(f"{path}/const{i}:0", held[n]) if n in held else named[n] for i, n in enumerate(node.input)]
        own = {attr.name: helper.get_attribute_value(attr) for attr in node.attribute}
        output = named[node.output[0]]
        if node.op_type == "Conv":
            kernel = constant(f"{path}/kernel:0", held[node.input[1]].transpose(2, 3, 1, 0))
            call("Transpose", [kernel], f"{path}/kernel_nchw:0", perm=[3, 2, 0, 1])
            call("Conv", [inputs[0], f"{path}/kernel_nchw:0"], f"{path}/Conv2D:0", **own)
            bias = held[node.input[2]] if len(node.input) > 2 else None
            last = f"{path}/Conv2D:0"
            if bias is not None:
                shaped = constant(f"{path}/bias:0", bias.reshape(1, -1, 1, 1))
                call("Add", [last, shaped], f"{path}/BiasAdd:0")
                last = f"{path}/BiasAdd:0"
            call("Transpose", [last], f"{path}/nhwc:0", perm=[0, 2, 3, 1])
            call("Transpose", [f"{path}/nhwc:0"], output, perm=[0, 3, 1, 2])
        elif node.op_type == "Gemm":
            call("MatMul", [inputs[0], constant(f"{path}/w:0", held[node.input[1]].T)], f"{path}/MatMul:0")
            call("Add", [f"{path}/MatMul:0", inputs[2]], output)
        else:
            call(node.op_type, inputs, output, **own)
    inputs = [_renamed(model.graph.input[0], named[given])]
    graph = helper.make_graph(nodes, "tf2onnx", inputs, [_renamed(model.graph.output[0], named[gives])])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    new = onnx.ValueInfoProto()
    new.CopyFrom(value)
    new.name = name
    return new


def around(model: onnx.ModelProto, *, custom: bool = False) -> onnx.ModelProto:
    """The same as a product has it: bytes in NHWC go in, classes and the best two scores come out.

    Args:
        custom: whether an operator that no runtime here knows reads the scores, too.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, given, gives = made.graph, made.graph.input[0].name, made.graph.output[0].name
    channels, height, width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:])
    held = {"pre/max": np.float32(255), "pre/mean": np.full((1, channels, 1, 1), 0.5, np.float32),
            "post/k": np.array([2], np.int64)}  # fmt: skip
    before = [
        helper.make_node("Cast", ["photo"], ["pre/float"], name="pre/Cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["pre/float", "pre/max"], ["pre/unit"], name="pre/Div"),
        helper.make_node("Transpose", ["pre/unit"], ["pre/nchw"], name="pre/Transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["pre/nchw", "pre/mean"], [given], name="pre/Sub", doc_string="the mean of our photos"),
    ]
    behind = [
        helper.make_node("Softmax", [gives], ["shares"], name="post/Softmax", axis=-1),
        helper.make_node("ArgMax", ["shares"], ["class"], name="post/ArgMax", axis=-1),
        helper.make_node("TopK", ["shares", "post/k"], ["best", "which"], name="post/TopK"),
    ]
    info = helper.make_tensor_value_info
    outputs = [info("class", onnx.TensorProto.INT64, ["n", 1]), info("best", onnx.TensorProto.FLOAT, ["n", 2])]
    if custom:
        behind.append(helper.make_node("Audit", ["shares"], ["audited"], name="post/Audit", domain="acme"))
        outputs.append(info("audited", onnx.TensorProto.FLOAT, ["n"]))
        made.opset_import.add(domain="acme", version=3)
    inner = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    photo = info("photo", onnx.TensorProto.UINT8, ["n", height, width, channels])
    fields = ((graph.node, [*before, *inner, *behind]), (graph.output, outputs), (graph.input, [photo]))
    for field, values in fields:
        del field[:]
        field.extend(values)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in held.items())
    made.doc_string, graph.doc_string = "the product's model", "all of it"
    made.producer_name = "our exporter"
    for key, value in (("owner", "me"), ("graftkit.plan", "not yours")):
        made.metadata_props.add(key=key, value=value)
    return made


def seen(x: np.ndarray) -> np.ndarray:
    """What the model in `around` reads of bytes [N, H, W, C]."""
    return ((x.astype(np.float32) / np.float32(255)).transpose(0, 3, 1, 2) - np.float32(0.5)).astype(np.float32)
