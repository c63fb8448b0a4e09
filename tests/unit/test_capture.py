"""What tracing does so that a model can be traced, and that it leaves no trace on the model itself."""

from __future__ import annotations

import contextlib
import copy
import functools
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from graftkit import api as gk
from graftkit import tracing
from graftkit.contracts import Data
from graftkit.core.errors import GraftkitError, TraceError
from graftkit.model import TracedModel
from graftkit.plan import Graft, GraftPlan


def trace(module: nn.Module, *inputs: Tensor, free: Any = "auto") -> TracedModel:
    return tracing.trace_module(module, inputs, name="net", free=free)


def rows(count: int = 2) -> Tensor:
    return torch.randn(count, 4)


def everything_on(module: nn.Module) -> list[tuple[str, Any]]:
    """Every attribute of every part, tensors by value."""
    found = []
    for path, part in module.named_modules():
        for name, value in sorted(vars(part).items()):
            if name not in ("_parameters", "_buffers", "_modules"):
                found.append((f"{path}.{name}", copy.deepcopy(value)))
    found += [(name, value.detach().clone()) for name, value in module.state_dict().items()]
    return found


def assert_untouched(before: list[tuple[str, Any]], module: nn.Module) -> None:
    after = everything_on(module)
    assert [name for name, _ in after] == [name for name, _ in before]
    for (name, old), (_, new) in zip(before, after, strict=True):
        same = torch.allclose(old, new, 0, 0, True) if isinstance(old, Tensor) else repr(old) == repr(new)
        assert same, f"{name} was {old}, and is {new}"


def fakes(value: Any) -> list[FakeTensor]:
    if isinstance(value, FakeTensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [f for member in value for f in fakes(member)] if isinstance(value, list | tuple | deque | set) else []


# ── what a module makes and keeps while it runs ──────────────────────────────────────────────────


class Keeping(nn.Module):
    """Keeps what it computes, each in its way."""

    def __init__(self, keep: Callable[[Keeping, Tensor], object]):
        super().__init__()
        self.layer, self.keep = nn.Linear(4, 4), keep
        self.last: Tensor | None = None
        self.seen: list[Tensor] = []
        self.recent: deque[Tensor] = deque(maxlen=2)
        self.by_name: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        self.keep(self, h)
        return h


KEEPS: dict[str, Callable[[Keeping, Tensor], object]] = {
    "attribute": lambda m, h: setattr(m, "last", h),
    "new attribute": lambda m, h: setattr(m, "hidden", h.mean()),
    "list": lambda m, h: m.seen.append(h),
    "deque": lambda m, h: m.recent.append(h),
    "dict": lambda m, h: m.by_name.update(h=h),
}


@pytest.mark.parametrize("name", KEEPS)
def test_nothing_fake_stays_behind(name: str) -> None:
    module = Keeping(KEEPS[name])
    traced = trace(module, rows())
    assert not fakes(vars(module))
    x = rows(5)
    assert torch.equal(module.eval()(x), traced.eval_graph(x))
    kept = [value for value in vars(module).values() if isinstance(value, Tensor)]
    assert not any(isinstance(value, FakeTensor) for value in kept)


class Sealed(OrderedDict[str, int]):
    """A configuration that nobody may change, as diffusers keeps it."""

    sealed = False

    def __setitem__(self, key: str, value: int) -> None:
        if self.sealed:
            raise TypeError("this is sealed")
        super().__setitem__(key, value)

    def update(self, *others: Any, **more: Any) -> None:
        raise TypeError("this is sealed")


def test_containers_that_may_not_be_changed_are_let_alone() -> None:
    module = nn.Linear(4, 4)
    module.options = Sealed(width=4)
    module.options.sealed = True
    trace(module, rows())
    assert dict(module.options) == {"width": 4} and module.options.sealed


class Lazy(nn.Module):
    """Makes what it needs when it first runs."""

    def __init__(self, parameters: bool):
        super().__init__()
        self.layer = nn.LazyLinear(4) if parameters else nn.Linear(4, 4)
        self.register_buffer("table", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0, 1, x.shape[1])
        return self.layer(x + self.table)


@pytest.mark.parametrize("parameters", [False, True])
def test_what_is_made_in_the_first_run_is_there_afterwards(parameters: bool) -> None:
    module = Lazy(parameters)
    traced = trace(module, rows())
    assert type(module.table) is Tensor and torch.equal(module.table, torch.linspace(0, 1, 4))
    assert [site.key for site in traced.sites] == ["layer"]
    assert traced.train_graph.get_parameter("layer.weight") is module.layer.weight
    x = rows(5)
    assert torch.equal(module.eval()(x), traced.eval_graph(x))
    module.layer.weight.data.fill_(1.0)
    assert torch.equal(module(x), tracing.retrace(traced)(x))


class Mixed(nn.Module):
    """Everything that running it changes: running statistics, counters, power iterations, an average under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.frozen = nn.BatchNorm1d(4)
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("spread", torch.ones(1, 4).expand(3, 4))  # one row of memory
        self.register_buffer("gaps", torch.tensor([1.0, torch.nan]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.norm(self.spectral(self.layer(x))))
        self.calls += 1  # in evaluation as well
        if self.training:
            with torch.no_grad():
                self.average.mul_(0.9).add_(h.mean(0), alpha=0.1)
        return self.frozen(h) * self.spread.sum(0) + self.average


@pytest.mark.parametrize("training", [True, False])
def test_modes_buffers_weights_and_attributes_stay_what_they_were(training: bool) -> None:
    torch.manual_seed(0)
    module = Mixed().train(training)
    module.frozen.eval()  # as one that is not to be trained any more
    module.layer.weight.grad = torch.ones(4, 4)
    before, held = everything_on(module), [id(b) for b in module.buffers()]
    trace(module, rows(4))
    assert [id(b) for b in module.buffers()] == held
    assert_untouched(before, module)
    assert torch.equal(module.layer.weight.grad, torch.ones(4, 4))
    assert module.frozen.training is False and module.norm.training is training


def test_generators_go_on_where_they_were() -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                random.random(), np.random.rand(2)
                x = x + torch.rand_like(x)
            return functional.dropout(self.layer(x), 0.5, self.training)

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    module, x = Random(), rows()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    model = gk.graft(trace(module, x), GraftPlan((Graft("layer", "full"),)))
    tracing.retrace(model.traced)
    assert draw() == expected


def test_a_trace_that_fails_leaves_the_module_as_it_was_too() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(4, 4), None

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.layer(x)
            if self.training:
                raise ValueError("not in training")
            return self.last

    module = Breaks()
    with pytest.raises(TraceError, match=r"not in training.*line \d+: raise ValueError"):
        trace(module, rows())
    assert "forward" not in vars(module) and module.training
    assert not isinstance(module.last, FakeTensor)
    assert module.eval()(rows(3)).shape == (3, 4)


def test_settings_of_torch_are_as_before() -> None:
    torch.backends.mha.set_fastpath_enabled(True)
    trace(nn.Linear(4, 4), rows())
    assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()
    with torch.no_grad():
        traced = trace(nn.Linear(4, 4), rows())
        assert not torch.is_grad_enabled()
    traced.train_graph(rows()).sum().backward()
    assert traced.train_graph.weight.grad is not None


# ── code that torch.export trips on ──────────────────────────────────────────────────────────────


class Biased(nn.Module):
    """Attention with a learned bias: whether gradients are recorded decides how its result lies in memory, and `view`
    asks for one way of it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.bias, self.frozen = nn.Parameter(torch.zeros(1, 2, 5, 5)), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x + self.frozen(x)
        q, k, v = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias * 2).transpose(1, 2)
        return self.out(y.reshape(x.shape) if self.training else y.view(x.shape))


def test_what_traces_without_gradients_alone_trains_with_them() -> None:
    torch.manual_seed(0)
    module = Biased()
    x = torch.randn(2, 5, 4)
    with pytest.raises(Exception, match=r"[vV]iew"):
        torch.export.export(module.eval(), (x,), strict=False)
    traced = trace(module, x)
    x = torch.randn(6, 5, 4)
    with torch.no_grad():
        torch.testing.assert_close(traced.eval_graph(x), module.eval()(x))
    found = gradients(traced.train_graph, module, x)
    torch.testing.assert_close(found, gradients(module, module, x))
    assert not any(name.startswith("frozen") for name in found)


def gradients(run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    module.train().zero_grad()
    run(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


class Regions(nn.Module):
    """A part that is not trained, for which `region` sees; a part that is, called through `call`."""

    def __init__(self, region: Callable[[], Any], call: Callable[..., Tensor]):
        super().__init__()
        self.fixed, self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.region, self.call = region, call

    def forward(self, x: Tensor) -> Tensor:
        with self.region():
            h = self.fixed(x)
        return self.head(self.call(self.layer, h.clone() + x))


def plainly(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")  # of eager, under no_grad
@pytest.mark.parametrize("name", ["no_grad", "inference_mode", "enable_grad", "checkpoint", "reentrant checkpoint"])
def test_gradients_flow_where_they_flow_in_eager(name: str) -> None:
    region: Callable[[], Any] = getattr(torch, name, contextlib.nullcontext)
    reentrant = functools.partial(checkpoint, use_reentrant="reentrant" in name)
    module = Regions(region, reentrant if "checkpoint" in name else plainly)
    traced = trace(module, rows())
    assert {"layer", "head"} <= {site.key for site in traced.sites}
    x = rows(5).requires_grad_()
    expected = gradients(module, module, x)
    assert ("fixed.weight" in expected) == (name not in ("no_grad", "inference_mode"))
    torch.testing.assert_close(gradients(traced.train_graph, module, x), expected)


def test_weights_that_are_written_to_in_forward_are_refused_as_eager_training_refuses_them() -> None:
    class Clamps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.layer.weight.clamp_(-1, 1)
            return self.layer(x)

    with pytest.raises(GraftkitError, match="leaf Variable that requires grad") as told:
        gk.graft(trace(Clamps(), rows()), GraftPlan((Graft("layer", "full"),)))
    assert "\n" not in str(told.value)


# ── half precision ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_single_and_the_original_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    before = everything_on(module)
    traced = gk.trace(module, rows())
    word = str(dtype).removeprefix("torch.")
    assert traced.notes == (f"its {word} weights became float32, in which it is trained and written",)
    assert_untouched(before, module)
    assert {t.dtype for t in traced.tensors().values()} == {torch.float32, torch.int64}
    expected = copy.deepcopy(module).float().eval()(x := rows(5))
    assert torch.equal(traced.eval_graph(x), expected)
    optimizer = torch.optim.SGD(traced.train_graph.parameters(), 0.1)
    traced.train_graph(x).square().sum().backward()
    optimizer.step()
    assert_untouched(before, module)


def test_a_half_precision_example_fits_the_weights_that_became_single() -> None:
    module = nn.Linear(4, 2).bfloat16()
    traced = gk.trace(module, rows().bfloat16())
    assert traced.signature.inputs[0].dtype == "float32" and traced.eval_graph(rows(3)).dtype == torch.float32


def test_single_and_double_precision_are_left_as_they_are() -> None:
    for module in (nn.Linear(4, 2), nn.Linear(4, 2).double()):
        traced = gk.trace(module, rows().to(module.weight.dtype))
        assert traced.notes == () and traced.source is module
        assert traced.train_graph.get_parameter("weight") is module.weight


def test_tied_weights_stay_tied_in_single_precision() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).half()
    module[1].weight = module[0].weight
    traced = gk.trace(module, rows())
    assert traced.source is not module and traced.source[0].weight is traced.source[1].weight
    assert gk.graft(traced).parameter_count() == 16 + 4 + 4


# ── mixed precision ──────────────────────────────────────────────────────────────────────────────


def _full(self: Precise, h: Tensor) -> Tensor:
    with torch.autocast(h.device.type, enabled=False):
        return self.layer(h.float()) * 1.001


def _full_without_weights(self: Precise, h: Tensor) -> Tensor:
    with torch.autocast(h.device.type, enabled=False):
        seen = torch.matmul(h.float(), h.float().transpose(0, 1)).mean(1, keepdim=True)
    return self.layer(h) + seen


def _full_without_gradients(self: Precise, h: Tensor) -> Tensor:
    with torch.autocast(h.device.type, enabled=False), torch.no_grad():
        fixed = self.layer(h.float())
    return self.layer(h) + fixed


def _half_inside(self: Precise, h: Tensor) -> Tensor:
    with torch.autocast(h.device.type, dtype=torch.bfloat16):
        return self.layer(h.float()) + h.to(torch.float32)


class Precise(nn.Module):
    """Says itself where it wants which precision: [N, 4] to [N, 2]."""

    def __init__(self, part: Callable[[Precise, Tensor], Tensor]):
        super().__init__()
        self.first, self.layer, self.head, self.part = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), part

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self, self.first(x)))


PARTS = (_full, _full_without_weights, _full_without_gradients, _half_inside)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_regions_keep_their_precision_in_mixed_precision(part: Callable[..., Tensor], half: bool) -> None:
    torch.manual_seed(0)
    module = Precise(part).train()
    traced = trace(module, rows(4))
    x = rows(64)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        expected = module(x)
        assert torch.equal(traced.train_graph(x), expected)
        assert torch.is_autocast_enabled("cpu") == half
    with torch.no_grad():
        assert torch.equal(traced.eval_graph(x), module.eval()(x))


@pytest.mark.parametrize("part", PARTS)
def test_what_has_regions_is_grafted_trained_in_mixed_precision_and_written(part: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    traced = trace(Precise(part), rows(4))
    sites = [site.key for site in traced.sites if site.key != "layer" or part is _full]
    splits = [torch.utils.data.TensorDataset(rows(32), torch.arange(32) % 2) for _ in range(3)]
    data = Data(*splits, "classes", 2, "made up")
    plan = GraftPlan(tuple(Graft(site, "full") for site in sites))
    result = gk.fit(traced, data, plan=plan, epochs=1, cycles=1, precision="bf16-mixed")
    assert {"first", "head"} <= set(sites) and len(result.epochs) > 0
    fresh = gk.fresh_graph(result.model)
    assert not any("full_precision" in str(getattr(node.target, "__module__", "")) for node in fresh.graph.nodes)
    assert gk.to_onnx(gk.graft(traced, plan)) is not None


def test_a_program_is_read_without_changing_the_graphs_within_it() -> None:
    program = torch.export.export(Precise(_half_inside), (rows(4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    before = [part.code for part in program.graph_module.modules() if hasattr(part, "code")]
    traced = tracing.trace_program(program, name="net")
    assert [part.code for part in program.graph_module.modules() if hasattr(part, "code")] == before
    with torch.autocast("cpu", dtype=torch.bfloat16):
        traced.train_graph(rows(5))


# ── a model that has to be read twice ────────────────────────────────────────────────────────────


def test_a_fresh_graph_after_training_has_the_new_weights_and_buffers() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2))
    model = gk.graft(trace(module, rows(4))).train()
    before = tracing.retrace(model.traced)(x := rows(5))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(rows(8)).square().sum().backward()
        optimizer.step()
    fresh = tracing.retrace(model.traced)
    with torch.no_grad():
        assert not torch.allclose(fresh(x), before, atol=1e-3)
        torch.testing.assert_close(fresh(x), module.eval()(x), rtol=0, atol=0)
        torch.testing.assert_close(tracing.call_source(model.traced, (x,))[0], module(x), rtol=0, atol=0)
