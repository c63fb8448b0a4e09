"""ONNX files to measure converters on: what exporters of several ages write, and graphs made by hand."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

ROOT = Path(__file__).parents[1]
DYNAMO = (18, 20)
TRACED = (9, 11, 13, 17)


@dataclass(frozen=True)
class Network:
    """What is exported: how it is built, and the inputs that it takes, batch first."""

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]


def files(folder: Path) -> dict[str, Path]:
    """Path of every file by name, written where it is not there yet; what an exporter refuses is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in _by_hand():
        onnx.save(model, folder / f"{name}.onnx")
    for name, network in networks().items():
        _export_all(name, network, folder)
    return {path.stem: path for path in sorted(folder.glob("*.onnx")) if path.stat().st_size}


def networks() -> dict[str, Network]:
    """The networks by name; those whose package is not installed are left out."""
    image = (torch.randn(2, 3, 64, 64),)
    found = {
        "digits_cnn": Network(lambda: _sample("cnn"), (torch.randn(2, 1, 8, 8),)),
        "digits_mlp": Network(lambda: _sample("mlp"), (torch.randn(2, 1, 8, 8),)),
        "digits_gru": Network(lambda: _sample("gru"), (torch.randn(2, 1, 8, 8),)),
        "digits_vit": Network(lambda: _sample("vit"), (torch.randn(2, 1, 8, 8),)),
        "lstm": Network(lambda: Recurrent(nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True), 16), (_rows(9, 6),)),
        "gru": Network(lambda: Recurrent(nn.GRU(6, 8, batch_first=True), 8), (_rows(9, 6),)),
        "unet": Network(UNet, (torch.randn(2, 3, 32, 32),)),
        "encoder": Network(Encoder, (_rows(7, 16),)),
    }
    with contextlib.suppress(ImportError):
        found |= {name: Network(_vision(name), image) for name in _VISION}
    with contextlib.suppress(ImportError):
        found |= {name: Network(_timm(name, size), (torch.randn(2, 3, size, size),)) for name, size in _TIMM.items()}
    with contextlib.suppress(ImportError):
        found["bert"] = Network(_bert, (torch.randint(0, 50, (2, 9)), torch.ones(2, 9, dtype=torch.int64)))
    return found


_VISION = ("resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "efficientnet_b0")
_TIMM = {"vit_tiny_patch16_224": 224, "convnext_atto": 64, "mobilenetv4_conv_small": 64}


class Recurrent(nn.Module):
    """[N, T, 6] to [N, 3] through a recurrent layer."""

    def __init__(self, layer: nn.Module, width: int):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return self.head(self.layer(x)[0][:, -1])


class UNet(nn.Module):
    """Down, up by transposed convolution and by interpolation, with a skip; [N, 3, H, W] to [N, 2, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.SiLU())
        self.lower = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.Mish())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of every pixel."""
        first = self.first(x)
        down = self.down(first)
        low = nn.functional.interpolate(self.lower(down), size=down.shape[2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([first, self.up(down + low)], 1))


class Encoder(nn.Module):
    """torch's own transformer layer, with a learned position and an embedding of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(7, 16))
        self.layers = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu", norm_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return self.head(self.layers(x + self.position).mean(1))


def _rows(*shape: int) -> Tensor:
    return torch.randn(2, *shape)


def _sample(name: str) -> nn.Module:
    sys.path.insert(0, str(ROOT / "sample_models"))
    return torch.load(ROOT / "sample_models" / f"{name}.pt", weights_only=False)  # type: ignore[no-any-return]


def _vision(name: str) -> Callable[[], nn.Module]:
    sys.path.insert(0, str(ROOT))
    from tests.zoo.torchvision_ops import prepare

    kept = prepare()
    import torchvision

    def build() -> nn.Module:
        assert kept is not None
        return getattr(torchvision.models, name)(num_classes=10)  # type: ignore[no-any-return]

    return build


def _timm(name: str, size: int) -> Callable[[], nn.Module]:
    import timm

    return lambda: timm.create_model(name, num_classes=10, **({"img_size": size} if "vit" in name else {}))


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=50, max_position_embeddings=32, num_labels=3, return_dict=False, **small)
    return BertForSequenceClassification(config)  # type: ignore[no-any-return]


def _export_all(name: str, network: Network, folder: Path) -> None:
    for exporter, opsets in (("dynamo", DYNAMO), ("traced", TRACED)):
        for opset in opsets:
            path = folder / f"{name}-{exporter}-{opset}.onnx"
            if path.exists():
                continue
            torch.manual_seed(0)
            model = network.build().eval()
            _stir(model)
            try:
                _export(model, network.inputs, path, exporter, opset)
            except Exception:  # older opsets lack what newer networks need
                path.write_bytes(b"")


def _stir(model: nn.Module) -> None:
    """Statistics as training leaves them: fresh ones hide what a converter mixes up."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)


def _export(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, exporter: str, opset: int) -> None:
    names = ["input"] if len(inputs) == 1 else ["input_ids", "attention_mask"]
    if exporter == "dynamo":
        sizes: dict[str, Any] = {"dynamo": True, "dynamic_shapes": tuple({0: Dim("batch")} for _ in inputs)}
    else:
        sizes = {"dynamo": False, "dynamic_axes": {name: {0: "batch"} for name in (*names, "output")}}
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with out, err, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, inputs, str(path), input_names=names, output_names=["output"], opset_version=opset,
                verbose=False, external_data=False, **sizes,
            )  # fmt: skip
    finally:
        logging.disable(before)
    written = next(o.version for o in onnx.load(path, load_external_data=False).opset_import if not o.domain)
    if written != opset:  # the exporter silently writes another one
        path.write_bytes(b"")


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────

Weights = Mapping[str, np.ndarray]
_RANDOM = np.random.default_rng(0)


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random float32 arrays by name."""
    return {name: _RANDOM.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


def graph_of(
    nodes: list[onnx.NodeProto],
    held: Weights,
    shape: tuple[int | str, ...],
    *,
    opset: int,
    outputs: tuple[str, ...] = ("y",),
    rank: int = 2,
) -> onnx.ModelProto:
    """A model with one float input `x` of a shape, and outputs whose sizes are all free."""
    free = [f"d{index}" for index in range(rank)]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, free) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    ir = 10 if opset > 20 else 8 if opset > 10 else 4
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def _by_hand() -> Iterator[tuple[str, onnx.ModelProto]]:
    node, i64 = helper.make_node, lambda *values: np.array(values, np.int64)
    for opset in (7, 9, 11, 13, 15, 17, 18, 19, 20, 21):
        held = weights(w=(4, 3, 3, 3), b=(4,), v=(5, 4), c=(5,)) | {"at": i64(2, 3)}
        mean = (
            node("ReduceMean", ["r", "at"], ["m"], keepdims=0)
            if opset >= 18
            else node("ReduceMean", ["r"], ["m"], axes=[2, 3], keepdims=0)
        )
        nodes = [
            node("Conv", ["x", "w", "b"], ["k"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["k"], ["r"]),
            mean,
            node("Gemm", ["m", "v", "c"], ["y"], name="head", transB=1),
        ]
        yield f"hand_conv-{opset}", graph_of(nodes, held, ("n", 3, 8, 8), opset=opset)
    held = weights(w=(6, 8), b=(8,), v=(8, 3))
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="first"),
        node("Add", ["m", "b"], ["a"]),
        node("Gelu", ["a"], ["g"]),
        node("MatMul", ["g", "v"], ["y"], name="last"),
    ]
    yield "hand_matmul_3d-20", graph_of(nodes, held, ("n", 4, 6), opset=20, rank=3)
    held = weights(w=(4, 3, 3, 3)) | {"half": i64(2, 2)}
    nodes = [
        node("Conv", ["x", "w"], ["k"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Split", ["k"], ["s", "t"], axis=1, num_outputs=2),
        node("HardSwish", ["s"], ["h"]),
        node("Mish", ["t"], ["i"]),
        node("Add", ["h", "i"], ["y"]),
    ]
    yield "hand_same_split-18", graph_of(nodes, held, ("n", 3, 9, 9), opset=18, rank=4)
    held = weights(w=(64, 5), b=(5,)) | {"to": i64(1, 64)}
    nodes = [node("Reshape", ["x", "to"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"])]
    yield "hand_batch_of_one-13", graph_of(nodes, held, (1, 4, 4, 4), opset=13)
    held = weights(s=(6,), o=(6,), w=(6, 2)) | {"to": i64(0, -1, 6)}
    nodes = [
        node("LayerNormalization", ["x", "s", "o"], ["l"], axis=-1),
        node("Reshape", ["l", "to"], ["f"], allowzero=0),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    yield "hand_layernorm-17", graph_of(nodes, held, ("n", 4, 6), opset=17, rank=3)
    nodes = [
        node("Shape", ["x"], ["sh"]),
        node("Constant", [], ["zero"], value_ints=[0]),
        node("Gather", ["sh", "zero"], ["rows"]),
        node("Constant", [], ["rest"], value_ints=[-1]),
        node("Concat", ["rows", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["f"], allowzero=1),
        node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    yield "hand_shape_arithmetic-14", graph_of(nodes, weights(w=(5, 24), b=(5,)), ("n", 4, 6), opset=14)
    held = weights(w=(1, 24, 6), r=(1, 24, 6), b=(1, 48), v=(6, 3))
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("LSTM", ["t", "w", "r", "b"], ["", "last"], name="memory", hidden_size=6),
        node("Squeeze", ["last", "at"], ["q"]),
        node("MatMul", ["q", "v"], ["y"]),
    ]
    yield "hand_lstm-14", graph_of(nodes, held | {"at": i64(0)}, ("n", 4, 6), opset=14)
    body = [
        helper.make_graph([node("Gemm", ["x", name, "b"], [name + "o"])], name, [], [_free(name + "o")])
        for name in ("w", "v")
    ]
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=body[0], else_branch=body[1]),
    ]
    held = weights(w=(6, 3), v=(6, 3), b=(3,)) | {"zero": np.zeros((), np.float32)}
    yield "hand_if-13", graph_of(nodes, held, ("n", 6), opset=13)


def _free(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"])
