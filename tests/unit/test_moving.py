"""A grafted model on another device or in other numbers: graphs, module and dendrites move together and stay one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graftkit as gk
from graftkit.api import to_onnx
from graftkit.core.errors import TraceError
from graftkit.model import GraftedModel, copied
from graftkit.moving import Move


class Normed(nn.Module):
    """Batch norms, whose buffers are what is left behind; a constant; a layer that serves twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("scale", torch.rand(3))
        self.offset = torch.rand(3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.head(self.twice(torch.tanh(self.twice(x)))) * self.scale + self.offset


class Placed(nn.Module):
    """Makes positions anew where its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.arange(4, device=x.device)


class Cast(Placed):
    """Says a type itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(torch.float32))


def grafted(module: nn.Module, example: Tensor) -> GraftedModel:
    traced = gk.trace(module, example)
    model = gk.graft(traced, gk.make_plan(traced, dendrites="full", sites="*"))
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model


@pytest.fixture
def normed() -> tuple[Normed, GraftedModel, Tensor]:
    torch.manual_seed(0)
    module, x = Normed(), torch.randn(6, 1, 5, 5)
    return module, grafted(module, x[:2]), x


def one(model: GraftedModel, module: nn.Module) -> bool:
    """Whether all of them hold the very same tensors."""
    own = dict(module.named_parameters()) | dict(module.named_buffers()) | {"offset": module.offset}
    graphs = (*model.graphs, model.traced.train_graph, model.traced.eval_graph)
    held = [dict(graph.named_parameters()) | dict(graph.named_buffers()) for graph in graphs]
    base = dict(model.base.named_parameters()) | dict(model.base.named_buffers())
    return all(each.get(name, tensor) is tensor for each in (*held, base) for name, tensor in own.items())


def test_all_move_together_and_stay_one(normed) -> None:
    module, model, x = normed
    before = [model.train(mode)(x) for mode in (True, False)]
    stats = module.norm.running_mean.clone()
    module.norm.reset_running_stats()
    model.double()
    assert one(model, module)
    tensors = [*model.parameters(), *model.buffers(), *module.parameters(), *module.buffers(), *model.traced.inputs]
    assert {tensor.dtype for tensor in tensors} == {torch.float64, torch.int64}
    assert {port.dtype for port in (*model.traced.signature.inputs, *model.traced.signature.outputs)} == {"float64"}
    after = [model.train(mode)(x.double()) for mode in (True, False)]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.norm.running_mean, stats.double())  # what the training graph saw is the module's
    model.float()
    assert one(model, module) and model.eval()(x).dtype == torch.float32
    assert {port.dtype for port in model.traced.signature.inputs} == {"float32"}


def test_training_goes_on_where_it_went(normed) -> None:
    """With the optimizer that was there before, and the gradients."""
    module, model, x = normed
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(x).square().sum().backward()
    nn.Sequential(model).double()  # as part of another module
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float64}
    weight, strength = module.conv.weight.clone(), [p.clone() for p in model.dendrites.parameters()]
    optimizer.step()
    assert not torch.equal(module.conv.weight, weight) and one(model, module)
    assert not all(torch.equal(a, b) for a, b in zip(model.dendrites.parameters(), strength, strict=True))


def test_it_ships_what_it_is(normed, tmp_path: Path) -> None:
    """onnxruntime has no convolution of doubles; onnx's own evaluator has."""
    _, model, _ = normed
    assert gk.verify(to_onnx(model.double()), model, runtimes=("reference",))["reference"] < 1e-9
    assert gk.verify(gk.export(model.float(), tmp_path / "model.onnx"), model)["onnxruntime"] < 1e-5


def test_dendrites_that_come_later_are_of_its_kind(normed) -> None:
    _, model, x = normed
    from graftkit import surgery
    from graftkit.dendrites import build_dendrite
    from graftkit.plan import Graft

    model.double()
    surgery.graft(model, [Graft("head", "lowrank")], build_dendrite, seed=0)
    assert model.eval()(x.double()).dtype == torch.float64


def test_a_graph_that_says_a_type_itself_is_refused() -> None:
    model = grafted(Cast(), torch.randn(2, 4))
    with pytest.raises(
        TraceError, match=r"computes in torch\.float32, whatever .* to torch\.float64 and trace"
    ) as caught:
        model.double()
    assert "\n" not in str(caught.value)
    assert {p.dtype for p in model.parameters()} == {torch.float32} and model(torch.randn(3, 4)).shape == (3, 4)
    model.float()


def test_a_place_where_nothing_can_be_shared_is_refused(normed) -> None:
    module, model, x = normed
    with pytest.raises(TraceError, match=r'cannot be moved to meta, .*; trace it there: gk.trace\(.*device="meta"\)'):
        model.to("meta")
    assert one(model, module) and model(x).device.type == "cpu"


def test_what_graphs_make_anew_is_made_where_they_go() -> None:
    model = grafted(Placed(), torch.randn(2, 4))
    graph = copied(model.graphs[1])
    assert "device(type='cpu')" in graph.code
    Move({torch.device("cpu"): torch.device("meta")}, {}).redirect(graph)
    assert "device(type='meta')" in graph.code and "device(type='cpu')" not in graph.code


def test_memory_is_shared_between_processes_as_before(normed) -> None:
    module, model, _ = normed
    model.share_memory()
    assert module.norm.running_mean.is_shared() and one(model, module)


def test_sets_that_stand_aside_move_along(normed, tmp_path: Path) -> None:
    _, model, x = normed
    file = gk.save_dendrites(model, tmp_path / "anna.safetensors")
    both = gk.load_dendrites(gk.trace(normed[0], x[:2]), file)
    gk.load_dendrites(both, file, name="ben")
    both.double().eval()
    with torch.no_grad():
        anna = both(x.double())
        both.set_dendrites("ben")
        assert anna.dtype == torch.float64 and torch.equal(both(x.double()), anna)
        with both.without_dendrites():
            assert not torch.equal(both(x.double()), anna)
