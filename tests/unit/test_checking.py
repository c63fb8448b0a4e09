"""What counts as equal, on what inputs it is asked, and which model a file is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from graftkit import api, checking, shipping, surgery, tracing
from graftkit.contracts import Data
from graftkit.core.errors import DataError, MismatchError
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.runtimes import RUNTIMES
from graftkit.shipping.verifying import SizeMismatch

ONE = torch.ones(2, 3)


def compared(given: Sequence[object], expected: Sequence[object], batches: int = 1) -> float:
    """The difference between outputs that do not depend on the input."""
    ours, theirs = ([torch.as_tensor(value) for value in side] for side in (given, expected))
    return checking.compare(lambda feed: [v.numpy() for v in ours], lambda batch: theirs, ("x",), [(ONE,)] * batches)


# ── what counts as equal ─────────────────────────────────────────────────────────────────────────


def test_every_output_counts() -> None:
    assert compared([ONE, 2 * ONE], [ONE, 2 * ONE]) == 0
    assert compared([ONE, 2.2 * ONE], [ONE, 2 * ONE]) == pytest.approx(0.1)
    assert compared([1.1 * ONE, 2 * ONE], [ONE, 2 * ONE]) == pytest.approx(0.1)
    assert compared([ONE], [ONE, ONE]) == math.inf == compared([ONE, ONE], [ONE])


def test_a_column_is_measured_by_its_own_scale_but_not_by_a_tiny_one() -> None:
    expected = torch.tensor([[100.0, 10.0, 1e-9]])
    assert compared([expected + torch.tensor([0, 1.0, 0])], [expected]) == pytest.approx(0.1)
    assert compared([expected + torch.tensor([0, 0, 1e-3])], [expected]) == pytest.approx(1e-3)


def test_other_sizes_in_one_comparison_are_measured_each() -> None:
    differences = checking.Differences()
    for columns in (3, 5, 2):
        values = np.ones((2, columns))
        differences.add([values + 0.01 * (columns == 5)], [values])
    assert differences.worst() == pytest.approx(0.01)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_never_agrees(value: float) -> None:
    wrong = torch.tensor([[1.0, value]])
    assert compared([wrong], [torch.ones(1, 2)]) == math.inf == compared([torch.ones(1, 2)], [wrong])
    assert compared([torch.full((1, 2), math.nan)], [torch.full((1, 2), math.nan)]) == math.inf


def test_infinities_that_mask_have_to_agree() -> None:
    masked = torch.tensor([[1.0, -math.inf, 3.0]])
    assert compared([masked], [masked]) == 0
    assert compared([masked + torch.tensor([[0.3, 0, 0]])], [masked]) == pytest.approx(0.3)
    assert compared([masked], [-masked]) == math.inf


def test_shapes_have_to_agree() -> None:
    assert compared([torch.ones(2, 1)], [torch.ones(2, 2)]) == math.inf
    assert compared([torch.ones(2)], [torch.ones(2, 1)]) == math.inf


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_whole_numbers_are_equal_but_for_a_tie(dtype: torch.dtype) -> None:
    expected = torch.ones(2, 1000, dtype=dtype)
    one, many = expected.clone(), expected.clone()
    one[0, 0], many[0, :7] = 0, 0
    assert compared([expected], [expected]) == compared([one], [expected]) == 0
    assert compared([many], [expected]) == pytest.approx(7 / 2000)
    assert compared([one[:, :10]], [expected[:, :10]]) == pytest.approx(1 / 20)


def test_inputs_go_by_name_and_in_order() -> None:
    first, second = torch.randn(2, 3), torch.randint(5, (2, 3))
    seen = {}

    def run(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        seen.update(feed)
        return [feed["a"] * feed["b"]]

    assert checking.compare(run, lambda batch: (batch[0] * batch[1],), ("a", "b"), [(first, second)]) < 1e-6
    assert seen["a"].dtype == np.float32 and seen["b"].dtype == np.int64


# ── on what inputs ───────────────────────────────────────────────────────────────────────────────


def test_random_inputs_keep_masks_tokens_and_their_company() -> None:
    torch.manual_seed(0)
    mask = torch.ones(7, 4, dtype=torch.int64)
    mask[1::2, 2:] = 0
    ids = torch.randint(1, 50, (7, 4)) * mask
    hidden = torch.where(mask.bool(), 0.0, -math.inf)
    measured = torch.randn(7, 3) * 2 + 5
    drawn = checking.random_like((measured, ids, mask, mask.bool(), mask.float(), hidden, torch.tensor(3)))
    values, *masked, single = drawn
    assert single == 3
    assert values.shape == measured.shape and values.dtype == measured.dtype
    assert measured.min() <= values.min() and values.max() <= measured.max()
    assert not torch.equal(values, measured) and len(values.unique()) == 21
    places = [int((ids == row).all(1).nonzero()[0, 0]) for row in masked[0]]
    assert places != list(range(7))
    for before, after in zip((ids, mask, mask.bool(), mask.float(), hidden), masked, strict=True):
        assert torch.equal(before[places], after)
    assert all((tensor != 0).any(1).all() for tensor in masked[:-1])


def test_random_inputs_are_the_same_every_time_and_others_for_another_seed() -> None:
    values = (torch.randn(7, 3),)
    assert torch.equal(checking.random_like(values)[0], checking.random_like(values)[0])
    assert not torch.equal(checking.random_like(values)[0], checking.random_like(values, seed=1)[0])


class Tokens(nn.Module):
    """Two inputs of one length, up to eight; and its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(20, 6), nn.Embedding(8, 6)
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(ids.shape[1], device=ids.device)
        heard = torch.tanh(self.layer(self.embedding(ids) + self.places(places))) * mask.unsqueeze(-1)
        return heard, self.head(heard.sum(1))


class Sentences(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Rows by name, in another order than the model's arguments; one name too many."""

    def __init__(self, rows: int):
        torch.manual_seed(1)
        self.ids = torch.randint(1, 20, (rows, 5))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        mask = torch.tensor([1, 1, 1, 1, index % 2])
        return {"mask": mask, "row": torch.tensor(index), "ids": self.ids[index]}, torch.tensor(index % 3)


def tokens(module: nn.Module | None = None, **more: object) -> GraftedModel:
    torch.manual_seed(0)
    example = (torch.randint(1, 20, (2, 5)), torch.ones(2, 5, dtype=torch.int64))
    traced = tracing.trace_module(module or Tokens(), example, name="tokens", output="output_1", **more)
    model = surgery.empty(traced)
    surgery.graft(model, [Graft("layer", "lowrank")], build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.uniform_(0.2, 0.9)
    return model.eval()


def sentences(rows: int = 9) -> Data:
    data = Sentences(rows)
    return Data(data, data, None, "classes", 3, "sentences")


def test_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tokens(), []
    original = checking.differences

    def spy(run: object, forward: object, names: Sequence[str], batches: list[checking.Batch]) -> checking.Differences:
        seen.extend(batches)
        assert names == ("ids", "mask")
        return original(run, forward, names, batches)

    monkeypatch.setattr(checking, "differences", spy)
    shipping.verify(api.to_onnx(model), model, sentences())
    shapes = [tuple(ids.shape) for ids, _ in seen]
    assert all(ids.shape == mask.shape for ids, mask in seen)
    assert shapes[:7] == [(1, 5), (2, 5), (7, 5)] * 2 + [(9, 5)]
    lengths = {length for rows, length in shapes if rows == 2}
    assert lengths >= {4, 6} and max(lengths) <= 8  # it cannot take more than eight


def test_rows_by_name_and_the_chosen_output_give_the_metric() -> None:
    model, rows = tokens(), sentences(12)
    proto = api.to_onnx(model)

    def accuracy(outputs: Tensor, targets: Tensor) -> float:
        assert outputs.shape == (12, 3)
        return float((outputs.argmax(1) == targets).float().mean())

    inputs, targets = next(iter(DataLoader(rows.validation, 12)))
    expected = accuracy(model(inputs["ids"], inputs["mask"]).detach(), targets)
    for runtime in ("onnxruntime", "reference"):
        assert api.runtime_metric(proto, rows, accuracy, runtime=runtime) == pytest.approx(expected)


@pytest.mark.parametrize("fixed", [1, 5, 12, 20])
def test_a_file_of_a_fixed_number_of_rows_gives_the_metric_of_all(fixed: int) -> None:
    """Whatever the validation rows are: fewer than that, or some that are left over."""
    model, rows = tokens(), sentences(12)
    free = api.to_onnx(model)
    proto = onnx.ModelProto.FromString(free.SerializeToString())
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = fixed

    def total(outputs: Tensor, targets: Tensor) -> float:
        assert outputs.shape == (12, 3) and len(targets) == 12
        return float((outputs * (1 + targets[:, None])).sum())

    for runtime in ("onnxruntime", "reference"):
        found = api.runtime_metric(proto, rows, total, runtime=runtime)
        assert found == pytest.approx(api.runtime_metric(free, rows, total, runtime=runtime), rel=1e-5)


def test_rows_that_lack_an_input_are_refused() -> None:
    model = tokens()
    pairs = [({"ids": torch.ones(5, dtype=torch.int64)}, torch.tensor(0))] * 4
    rows = Data(pairs, pairs, None, "classes", 3, "pairs")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the rows have no mask"):
        api.verify(api.to_onnx(model), model, rows)


def test_a_file_with_other_outputs_or_inputs_is_told() -> None:
    model = tokens()
    proto = api.to_onnx(model)
    fewer = type(proto).FromString(proto.SerializeToString())
    del fewer.graph.output[1]
    with pytest.raises(MismatchError, match="the file gives 1 outputs, but the model 2"):
        api.verify(fewer, model)
    renamed = type(proto).FromString(proto.SerializeToString())
    renamed.graph.input[1].name = "attention"
    for node in renamed.graph.node:
        node.input[:] = ["attention" if name == "mask" else name for name in node.input]
    with pytest.raises(MismatchError, match="the file takes ids, attention, and was given no input 'attention'"):
        api.verify(renamed, model)


def test_a_model_with_a_fixed_number_of_rows_is_asked_about_that_alone() -> None:
    model = tokens(free="none")
    assert model.traced.signature.inputs[0].shape == (2, 5)
    assert api.verify(api.to_onnx(model), model, sentences(8))["onnxruntime"] < 1e-5


class Pooled(nn.Module):
    """What the exporter writes for the example's length alone, where graftkit does not write it itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 4, 3), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heard = self.conv(x)
        return self.head(nn.functional.adaptive_avg_pool1d(heard, 3).flatten(1)), heard


def pooled() -> GraftedModel:
    traced = tracing.trace_module(Pooled(), torch.randn(2, 2, 14), name="pooled", output="output_0")
    return surgery.empty(traced).eval()


def free_length(file: Path) -> tuple[object, ...]:
    return tuple(
        value.type.tensor_type.shape.dim[2].dim_param or value.type.tensor_type.shape.dim[2].dim_value
        for value in (onnx.load(file).graph.input[0], onnx.load(file).graph.output[1])
    )


def test_a_file_that_is_right_at_every_size_keeps_it_free(tmp_path: Path) -> None:
    model = pooled()
    shipped = shipping.ship(model, tmp_path / "m.onnx")
    assert shipped.notes == () and free_length(shipped.path) == ("length", "length - 2")
    run = RUNTIMES["onnxruntime"].open(shipped.path)
    for length in (5, 14, 21, 40):
        x = torch.randn(3, 2, length)
        np.testing.assert_allclose(run({"x": x.numpy()})[0], model(x).detach().numpy(), atol=1e-5)


def test_a_size_at_which_the_file_would_be_wrong_is_fixed_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.folding.export.TRANSLATIONS", {})
    model = pooled()
    with pytest.raises(SizeMismatch) as caught:
        shipping.verify(shipping.to_onnx(model), model)
    assert caught.value.size == "length" and "\n" not in str(caught.value)
    stages: list[str] = []
    shipped = shipping.ship(model, tmp_path / "m.onnx", on_stage=stages.append)
    (note,) = shipped.notes
    assert note.startswith("length is fixed in the ONNX file, which would be wrong at another: ")
    assert free_length(shipped.path) == (14, 12) and stages == ["exporting", "verifying"] * 2
    assert [port.shape for port in shipped.signature.inputs] == [("batch", 2, 14)]
    assert [port.shape for port in shipped.signature.outputs] == [("batch", 2), ("batch", 4, 12)]
    assert shipping.verify(shipped.path, model) == shipped.parity
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


# ── with which model ─────────────────────────────────────────────────────────────────────────────


class Remembers(Tokens):
    """Keeps its places, from the weights it had when it was told to, for good."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def keep(self) -> None:
        self.kept = self.places.weight.detach().clone()

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        places = self.places.weight if self.kept is None else self.kept
        heard = torch.tanh(self.layer(self.embedding(ids)) + places[: ids.shape[1]]) * mask.unsqueeze(-1)
        return heard, self.head(heard.sum(1))


def strengths(model: GraftedModel) -> list[Tensor]:
    return [p.detach().clone() for p in model.dendrites.parameters()]


def test_a_model_that_keeps_what_it_computed_before_training_is_told() -> None:
    module = Remembers().eval()
    model = tokens(module)
    proto = api.to_onnx(model)
    assert api.verify(proto, model)["onnxruntime"] < 1e-5
    module.keep()
    assert api.verify(proto, model)["onnxruntime"] < 1e-5
    before = strengths(model)
    with torch.no_grad():
        module.places.weight.add_(0.5)
    with pytest.raises(MismatchError, match=r"tokens itself gives outputs that differ by .* before training") as caught:
        api.verify(proto, model)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, strengths(model), strict=True))


def test_the_live_model_is_asked_with_no_dendrite_speaking_and_they_speak_again() -> None:
    model = tokens()
    before = strengths(model)
    model.train()
    assert api.verify(api.to_onnx(model), model)["onnxruntime"] < 1e-5
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, strengths(model), strict=True))
