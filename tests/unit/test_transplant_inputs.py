"""Transplants into files of models with several inputs, tied weights, gates and quantised layers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from test_transplant import refused, simplified, slimmed, untouched
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transplant_tools import Run, run_of, saved, trained_on

from graftkit import folding, shipping
from graftkit.contracts import Data
from graftkit.core.errors import ExportError, MismatchError
from graftkit.folding import gated, graphs_of
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.shipping.verifying import silenced
from graftkit.transplanting import Transplanted, transplant

Feeds = Mapping[str, np.ndarray]


class Block(nn.Module):
    """Attention with a mask that is added, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 8**0.5 + bias
        x = self.first(x + self.out(scores.softmax(-1) @ self.value(x)))
        return self.second(x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """Tokens and a mask; what is masked counts neither in the attention nor in the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(11, 8), nn.Embedding(16, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        bias = (1 - attention_mask[:, None, :].to(x.dtype)) * -1e4
        for block in self.blocks:
            x = block(x, bias)
        counted = attention_mask.unsqueeze(-1).to(x.dtype)
        return self.head((x * counted).sum(1) / counted.sum(1))


class Turned(nn.Module):
    """The encoder as a product calls it: the mask first."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, valid: Tensor, tokens: Tensor) -> Tensor:
        return self.encoder(tokens, valid)


class Tied(nn.Module):
    """An embedding that is the decoder's weight, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.decode = nn.Linear(8, 11, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.body(self.embed(input_ids)))).mean(1)


def sentences() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    mask = (np.arange(6) < random.integers(2, 7, 60)[:, None]).astype(np.int64)
    return {"input_ids": random.integers(0, 11, (60, 6)), "attention_mask": mask}


MASKED = (
    Graft("blocks.0.up", "context", (("mode", "gate"),), mask="attention_mask"),
    Graft("blocks.1.down", "lowrank"),
    Graft("blocks.1.query", "full"),
    Graft("head", "full", neurons=(0, 2)),
)


class Reader:
    """A run on tokens, and what its file is asked."""

    def __init__(self, module: nn.Module, names: Sequence[str], grafts: Sequence[Graft], folder: Path) -> None:
        self.given = {name: sentences()[name] for name in names}
        self.module, self.folder = module.eval(), folder
        self.model: GraftedModel = trained_on(self.module, self.given, grafts, folder)

    def first(self, dtype: torch.dtype = torch.int64) -> list[Tensor]:
        return [torch.from_numpy(values[:2]).to(dtype) for values in self.given.values()]

    def expected(self) -> np.ndarray:
        with torch.no_grad():
            return self.model.eval()(*map(torch.from_numpy, self.given.values())).numpy()

    def moved(self, made: onnx.ModelProto, folder: Path) -> Transplanted:
        return transplant(saved(made, folder / "deployed.onnx"), self.folder, folder / "new.onnx", trust=True)

    def check(self, made: onnx.ModelProto, folder: Path, names: Sequence[str]) -> Transplanted:
        """The new file says what the trained model says; `names` are the file's inputs in the model's order."""
        done = self.moved(made, folder)
        (now,) = asked(done.path, dict(zip(names, self.given.values(), strict=True)))
        np.testing.assert_allclose(now, self.expected(), rtol=1e-4, atol=1e-5)
        assert done.proved == "outputs" and done.parity < 1e-5
        untouched(made, onnx.load(done.path), done)
        return done


def asked(path: Path, feeds: Feeds) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    types = {value.name: np.int32 if value.type == "tensor(int32)" else np.int64 for value in session.get_inputs()}
    return session.run(None, {name: values.astype(types[name]) for name, values in feeds.items()})


def older(
    module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], *, folding: bool = True
) -> onnx.ModelProto:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(inputs), content, dynamo=False, opset_version=17, do_constant_folding=folding,
                          input_names=list(names), output_names=["scores"],
                          dynamic_axes={name: {0: "n", 1: "length"} for name in names})  # fmt: skip
    return onnx.load_model_from_string(content.getvalue())


def newer(module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> onnx.ModelProto:
    free = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(module, tuple(inputs), dynamo=True, verbose=False, input_names=list(names),
                                 dynamic_shapes=tuple({0: free, 1: free} for _ in inputs))  # fmt: skip
    assert made is not None
    return made.model_proto


# ── several inputs ───────────────────────────────────────────────────────────────────────────────

BOTH = ("tokens", "valid")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    torch.manual_seed(0)
    names = ("input_ids", "attention_mask")
    return Reader(Encoder(), names, MASKED, tmp_path_factory.mktemp("encoder") / "run")


@pytest.mark.parametrize("export", [older, newer])
def test_inputs_may_be_called_otherwise(encoder: Reader, export, tmp_path: Path) -> None:
    done = encoder.check(export(encoder.module, encoder.first(), BOTH), tmp_path, BOTH)
    assert done.sites == encoder.model.plan.sites() and done.matched == 13


def test_inputs_may_lie_in_another_order(encoder: Reader, tmp_path: Path) -> None:
    made = older(Turned(encoder.module), encoder.first()[::-1], BOTH[::-1])
    assert [value.name for value in made.graph.input] == ["valid", "tokens"]
    encoder.check(made, tmp_path, BOTH)


def test_inputs_may_be_other_whole_numbers(encoder: Reader, tmp_path: Path) -> None:
    made = older(encoder.module, encoder.first(torch.int32), BOTH)
    assert {value.type.tensor_type.elem_type for value in made.graph.input} == {onnx.TensorProto.INT32}
    encoder.check(made, tmp_path, BOTH)


def with_classes(made: onnx.ModelProto) -> onnx.ModelProto:
    """The same behind which a product takes the class."""
    made.graph.node.append(helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["n"]))
    return made


def test_what_stands_behind_a_model_with_a_mask_stays(encoder: Reader, tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask")
    done = encoder.moved(with_classes(older(encoder.module, encoder.first(), names)), tmp_path)
    (classes,) = asked(done.path, encoder.given)
    assert done.proved == "sites" and (classes == encoder.expected().argmax(1)).all()


def test_a_mask_that_nothing_tells_is_refused(encoder: Reader, tmp_path: Path) -> None:
    made = with_classes(older(encoder.module, encoder.first(), BOTH))
    with pytest.raises(ExportError, match=r"has no input 'attention_mask', the mask at the site 'blocks\.0\.up'; call"):
        encoder.moved(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["deployed.onnx"]


def test_a_mask_that_means_something_else_is_refused(encoder: Reader, tmp_path: Path) -> None:
    """It is called like the model's, and says what does not count."""
    made = with_classes(older(encoder.module, encoder.first(), ("input_ids", "attention_mask")))
    for node in made.graph.node:
        node.input[:] = ["counted" if name == "attention_mask" else name for name in node.input]
    made.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "one"))
    made.graph.node.insert(0, helper.make_node("Sub", ["one", "attention_mask"], ["counted"], name="pre/Sub"))
    with pytest.raises(MismatchError, match="compared with the given model, differs by"):
        encoder.moved(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["deployed.onnx"]


# ── tied weights ─────────────────────────────────────────────────────────────────────────────────

TIED = {"decode": (Graft("decode", "full"), Graft("body", "lowrank")), "body": (Graft("body", "context"),)}
EXPORTS = {
    "older": older,
    "older, nothing folded": lambda *how: older(*how, folding=False),
    "newer": newer,
    "onnxsim": lambda *how: simplified(older(*how)),
    "onnxslim": lambda *how: slimmed(newer(*how)),
}


@pytest.fixture(scope="module", params=TIED)
def tied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    torch.manual_seed(0)
    return Reader(Tied(), ("input_ids",), TIED[request.param], tmp_path_factory.mktemp("tied") / "run")


@pytest.mark.parametrize("export", EXPORTS)
def test_a_weight_that_serves_twice_is_changed_at_both_places(tied: Reader, export: str, tmp_path: Path) -> None:
    made = EXPORTS[export](tied.module, tied.first(), ["tokens"])
    done = tied.check(made, tmp_path, ["tokens"])
    stored = [t for t in made.graph.initializer if sorted(t.dims) == [8, 11]]
    assert stored and {tensor.name for tensor in stored} <= set(done.updated)


# ── gates and quantised layers ───────────────────────────────────────────────────────────────────


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


@pytest.fixture(scope="module", params=["middle", "last"])
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Its network stood still, so that what a gate has outside is the given model, layer by layer."""
    torch.manual_seed(0)
    grafts = (Graft(request.param, "full"),)
    return run_of(Small().eval(), (6,), grafts, tmp_path_factory.mktemp("frozen") / "run", moved=False)


def with_gate(run: Run) -> onnx.ModelProto:
    base, full = (shipping.build(run.model, dendrites=which).whole() for which in (False, True))
    made = gated(base, full, 0.5)
    folding.tell(made, gate={"threshold": 0.5}, tolerance=0.005)
    return made


def test_a_file_with_a_gate_is_refused(frozen: Run, tmp_path: Path) -> None:
    told = refused(frozen, with_gate(frozen), tmp_path)
    assert told.startswith("deployed.onnx was exported with --gate") and told.endswith("into the file without a gate")


def test_a_gate_that_says_nothing_of_itself_is_found_by_its_marks(frozen: Run, tmp_path: Path) -> None:
    made = with_gate(frozen)
    del made.metadata_props[:]
    assert f"has the layer {frozen.model.plan.sites()[0]!r} or its dendrites inside an If" in refused(
        frozen, made, tmp_path
    )


@pytest.mark.parametrize("frozen", ["middle"], indirect=True)  # behind "last" its branch has no layer of the model
def test_a_gate_without_marks_is_found_by_its_layers(frozen: Run, tmp_path: Path) -> None:
    made = with_gate(frozen)
    del made.metadata_props[:]
    for graph in graphs_of(made.graph):
        for node in graph.node:
            del node.metadata_props[:]
    assert "has the layer 'last' or its dendrites inside an If" in refused(frozen, made, tmp_path)


def test_a_file_in_int8_is_refused(frozen: Run, tmp_path: Path) -> None:
    """A real one, of the given model."""
    inputs = torch.from_numpy(frozen.rows)
    part = TensorDataset(inputs, frozen.module(inputs).argmax(1))
    rows = Data(part, part, part, "classes", 3, "made")
    frozen.model.eval()
    with silenced(frozen.model):
        shipping.export(frozen.model, tmp_path / "made.onnx", rows=rows, precision="int8", tolerance=1.0)
    made = onnx.load(tmp_path / "made.onnx")
    (tmp_path / "made.onnx").unlink()
    assert any(node.op_type == "DequantizeLinear" for node in made.graph.node)
    told = refused(frozen, made, tmp_path)
    assert "has no layer with the weights of" in told and "no layer quantised" in told


def test_a_file_in_which_other_layers_are_quantised_is_refused(tmp_path: Path) -> None:
    """The layer with dendrites is as it was, and what it reads is not."""
    torch.manual_seed(0)
    run = run_of(Small().eval(), (6,), (Graft("last", "full"),), tmp_path / "made/run", moved=False)
    made = onnx.ModelProto()
    made.CopyFrom(shipping.build(run.model, dendrites=False).whole())
    held = {tensor.name: tensor for tensor in made.graph.initializer}
    middle = next(node for node in made.graph.node if node.name.startswith("middle/"))
    value = numpy_helper.to_array(held[middle.input[1]])
    scale = np.float32(np.abs(value).max() / 127)
    made.graph.initializer.append(numpy_helper.from_array(np.round(value / scale).astype(np.int8), "q"))
    made.graph.initializer.append(numpy_helper.from_array(np.array(scale), "scale"))
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale"], ["dequantised"], name="dq"))
    middle.input[1] = "dequantised"
    (tmp_path / "to").mkdir()
    told = refused(run, made, tmp_path / "to", MismatchError)
    assert "'last'" in told
