"""Faults that were found by reading or by use, each with the test that would have caught its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.data import DataLoader, TensorDataset

from graftkit import api, checking, surgery, tracing
from graftkit.contracts import Data
from graftkit.core.errors import RunError, TraceError
from graftkit.dendrites import build_dendrite
from graftkit.plan import Graft, GraftPlan
from graftkit.rules.candidates import CandidatePool, Study
from graftkit.run_folder import SOURCE, RunFolder

cross_entropy = nn.functional.cross_entropy


def mlp(*, inplace: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 3))


@pytest.mark.parametrize("frozen", [False, True])
def test_errors_at_a_neuron_do_not_depend_on_an_in_place_activation(frozen: bool) -> None:
    inputs, targets = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3
    found = []
    for inplace in (False, True):
        module = mlp(inplace=inplace).requires_grad_(not frozen)
        model = surgery.empty(tracing.trace_module(module, (torch.randn(2, 4),), name="net"))
        study = Study(size=1, rows=100, positions=16, batch=16, memory=0, false_positives=0.05)
        pool = CandidatePool(model, [Graft("0", "full", detach=True)], build_dendrite, cross_entropy, study, seed=0)
        seen, errors = pool._watch((inputs,), targets)
        found.append((seen["0"].neuron, errors["0"]))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert float(found[0][0].min()) < 0  # before the rectifier


class NoisyNorm(nn.Module):
    """A batch norm that follows the convolution directly in evaluation mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.training:
            y = y * 1.5
        return self.head(torch.relu(self.norm(y)).mean((2, 3)))


def test_both_graphs_join_at_the_same_place() -> None:
    traced = tracing.trace_module(NoisyNorm(), (torch.randn(2, 1, 6, 6),), name="net")
    assert traced.site("conv").followed_by == ()
    model = api.graft(traced, GraftPlan((Graft("conv", "full"),)))
    for graph in model.graphs:
        call = next(node for node in graph.graph.nodes if node.op == "call_module")
        assert "conv2d" in str(call.args[1])


def test_a_batch_of_one_row_does_not_poison_batch_norm() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    rows = TensorDataset(torch.randn(33, 1, 6, 6), torch.arange(33) % 2)
    loader = DataLoader(rows, batch_size=16)  # the last batch has one row
    data = Data(loader, rows, None, "classes", 2, "loader")
    result = api.fit(api.trace(module, torch.randn(2, 1, 6, 6)), data, epochs=1, cycles=1)
    assert not result.diverged
    assert all(torch.isfinite(tensor).all() for tensor in result.model.state_dict().values())


def test_outputs_that_are_not_numbers_are_no_score() -> None:
    module = nn.Sequential(nn.Linear(4, 2))
    rows = TensorDataset(torch.randn(8, 4), torch.arange(8) % 2)
    model = api.graft(api.trace(module, torch.randn(2, 4)))
    with torch.no_grad():
        module[0].weight.fill_(float("nan"))
    assert np.isnan(api.training.evaluate(model, rows, lambda outputs, targets: 0.5, torch.device("cpu")))


class Counting(nn.Module):
    """Its code asks how many rows there are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * 2 if x.shape[0] > 4 else y


def test_code_that_asks_for_the_batch_size_is_refused() -> None:
    with pytest.raises(TraceError, match=r"other outputs for \d+ rows|fixes its batch size"):
        tracing.trace_module(Counting(), (torch.randn(2, 4),), name="counting")


def test_a_small_output_is_not_hidden_by_a_large_one() -> None:
    expected = torch.tensor([[1e5, 1.0], [-1e5, -1.0]])
    wrong = expected * torch.tensor([1.0, -1.0])
    batches = [(torch.zeros(2, 1),)]

    def forward(batch: Any) -> tuple[Tensor, ...]:
        return (expected,)

    assert checking.compare(lambda x: [wrong.numpy()], forward, ("x",), batches) > checking.TOLERANCE
    assert checking.compare(lambda x: [expected.numpy()], forward, ("x",), batches) == 0


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 6, 2, dropout=0.5, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])


@pytest.mark.filterwarnings("ignore:The tensor attribute")
def test_dropout_inside_a_recurrent_layer_is_flipped() -> None:
    x = torch.randn(4, 5, 4)
    program = torch.export.export(Reader().train(), (x,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    traced = tracing.trace_program(program, name="reader")
    assert torch.equal(traced.eval_graph(x), traced.eval_graph(x))
    assert not torch.equal(traced.train_graph(x), traced.train_graph(x))


def test_a_model_may_have_a_module_called_dendrites() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dendrites, self.keys = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.keys(torch.relu(self.dendrites(x)))

    module, x = Named().eval(), torch.randn(5, 4)
    model = api.graft(api.trace(module, x), GraftPlan((Graft("dendrites", "full"), Graft("keys", "full")))).eval()
    assert torch.equal(model(x), module(x))
    with torch.no_grad():
        model.at("keys").members()[0].strengths()[0].fill_(0.5)
    assert api.verify(api.to_onnx(model), model)["onnxruntime"] < checking.TOLERANCE


def test_a_program_exported_with_one_row_can_be_shipped() -> None:
    program = torch.export.export(mlp(inplace=False).eval(), (torch.randn(2, 4),), dynamic_shapes=({0: Dim.DYNAMIC},))
    program.example_inputs = ((torch.randn(1, 4),), {})
    model = api.graft(tracing.trace_program(program, name="one"))
    assert api.verify(api.to_onnx(model), model)["onnxruntime"] < checking.TOLERANCE


def test_a_loss_function_is_not_held_to_the_default_loss() -> None:
    module = nn.Sequential(nn.Linear(4, 1))
    rows = TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)

    def bce(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets.float())

    data = Data(rows, rows, None, "classes", 2, "rows")
    plan = GraftPlan((Graft("0", "full"),))
    assert api.fit(api.trace(module, torch.randn(2, 4)), data, plan=plan, loss=bce, epochs=1, cycles=1).phases


def test_force_replaces_nothing_but_runs(tmp_path: Path) -> None:
    (tmp_path / SOURCE).write_text(json.dumps({"somebody": "else"}))
    with pytest.raises(RunError, match="no run of graftkit's"):
        RunFolder(tmp_path).begin(force=True)
    (tmp_path / SOURCE).write_text(json.dumps({"graftkit": "0.1.0"}))
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        RunFolder(tmp_path).begin(force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_run_that_was_replaced_when_its_successor_was_killed_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(force=False)
    folder.write_json(SOURCE, {"graftkit": "0.1.0"})
    folder.model.write_bytes(b"good")
    folder.begin(force=True)
    folder.write_json(SOURCE, {"graftkit": "0.1.0"})  # and here it is killed
    with pytest.raises(RunError, match="not empty"):
        RunFolder(folder.path).begin(force=False)
    assert folder.model.read_bytes() == b"good"
