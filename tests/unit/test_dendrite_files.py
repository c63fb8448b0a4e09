"""Dendrites without their base: what is saved, what is loaded, and what is refused before anything is changed."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import graftkit as gk
from graftkit import surgery
from graftkit.contracts import Data
from graftkit.core.errors import GraftkitError, PlanError, RunError, SourceError, TraceError
from graftkit.dendrite_files import base_sha256, is_dendrite_file, opened, record_of
from graftkit.dendrite_files.facts import KEY
from graftkit.dendrites import build_dendrite, options_of, parse_kind
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.reporting import dendrite_file_table

SAMPLES = Path(__file__).parents[2] / "sample_models"
IMAGES = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(5))
EVERY_KIND = ("conv=adapter+context+full+lowrank+pointwise+depthwise", "linear=adapter+context+full+lowrank")


def awake(traced: TracedModel, plan: GraftPlan, *, seed: int) -> GraftedModel:
    """Grafted, every number of the dendrites being one of its own."""
    model = surgery.empty(traced)
    surgery.graft(model, plan.grafts, build_dendrite, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def answers(model: nn.Module, inputs: Tensor = IMAGES) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(inputs)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and text.isprintable() and len(text) < 1500
    return text


class Net(nn.Module):
    """With batch norm statistics, and a site called like a method of ModuleDict."""

    def __init__(self, *, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU())
        self.keys = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.keys(self.stem(x))


def net(*, seed: int = 0, width: int = 6) -> Net:
    torch.manual_seed(seed)
    module = Net(width=width)
    with torch.no_grad():
        module.stem[1].running_mean.normal_()
        module.stem[1].running_var.uniform_(0.5, 2)
    return module


ROWS = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
PLAN = GraftPlan(
    (
        Graft("stem.0", "full", options_of(parse_kind("full")), neurons=(1, 4)),
        Graft("keys", "adapter", options_of(parse_kind("adapter:rank=1"))),
        Graft("stem.0", "lowrank", options_of(parse_kind("lowrank:rank=1"))),
    )
)


@pytest.fixture(scope="module")
def anna(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraftedModel, Path]:
    """A small grafted model, and the file of its dendrites."""
    model = awake(gk.trace(net(), ROWS), PLAN, seed=1)
    return model, gk.save_dendrites(model, tmp_path_factory.mktemp("files") / "anna.safetensors")


# ── round trips ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["cnn", "mlp", "gru", "vit"])
def sample(request: pytest.FixtureRequest) -> tuple[str, TracedModel]:
    loaded = gk.load(SAMPLES / f"{request.param}.pt", trust=True)
    return request.param, gk.trace(loaded, IMAGES[:2])


def test_all_kinds_on_a_sample_model_come_back_to_the_bit(sample: tuple[str, TracedModel], tmp_path: Path) -> None:
    name, traced = sample
    pooled = ("linear=pooled",) if name == "vit" else ()
    plan = gk.make_plan(traced, dendrites=[*EVERY_KIND, *pooled] if name != "mlp" else EVERY_KIND[1:])
    assert {graft.kind for graft in plan.grafts} >= {"adapter", "context"}
    first, second = (awake(traced, plan, seed=seed) for seed in (1, 2))
    files = [gk.save_dendrites(model, tmp_path / f"{n}.safetensors") for n, model in (("anna", first), ("ben", second))]
    both = gk.load_dendrites(gk.load_dendrites(traced, files[0]), files[1])
    assert (both.dendrite_sets, both.active_dendrites) == (("anna", "ben"), "anna")
    bare = answers(surgery.empty(traced))
    for _ in range(2):
        for who, alone in (("ben", first), ("anna", second)):
            both.set_dendrites({"anna": "ben", "ben": "anna"}[who])
            assert torch.equal(answers(both), answers(alone)) and not torch.equal(answers(both), bare)
            with both.without_dendrites():
                assert torch.equal(answers(both), bare) and both.active_dendrites is None
    assert both.plan == second.plan == plan and both.active_dendrites == "ben"


def test_a_model_file_needs_no_example(sample: tuple[str, TracedModel], tmp_path: Path) -> None:
    name, traced = sample
    model = awake(traced, gk.make_plan(traced), seed=3)
    file = gk.save_dendrites(model, tmp_path / "anna.safetensors")
    again = gk.load_dendrites(gk.load(SAMPLES / f"{name}.pt", trust=True), file, name="of anna")
    assert torch.equal(answers(again), answers(model)) and again.active_dendrites == "of anna"
    assert file.stat().st_size < 4 * sum(p.numel() for p in model.dendrites.parameters()) + 20_000


def inverted() -> Data:
    """Digits that the sample models do not know: dark on light, so that dendrites ship."""
    rows = gk.load_data("digits")
    parts = (TensorDataset(1 - part.tensors[0], part.tensors[1]) for part in (rows.train, rows.validation))  # type: ignore[union-attr]
    train, validation = parts
    return replace(rows, train=train, validation=validation, test=None)


@pytest.mark.parametrize("rule", ["gradient:freeze=true", "correlation:freeze=true,pool=2"])
def test_a_frozen_base_stays_as_it_was_batch_norms_included(tmp_path: Path, rule: str) -> None:
    """`freeze` trains in evaluation, so batch norms keep their statistics; the control leaves no trace."""
    traced = gk.trace(gk.load(SAMPLES / "cnn.pt"), IMAGES[:2])
    before = base_sha256(surgery.empty(traced))
    plan = gk.make_plan(traced, dendrites="full", sites=["*conv"], rule=rule)
    control = rule.startswith("gradient")
    how: dict[str, Any] = {
        "epochs": 2 if control else 8,
        "cycles": 1,
        "control": control,
        "margin": 0,
        "learning_rate": 0.01,
    }
    trained = gk.fit(traced, inverted(), plan=plan, rule=rule, **how).model
    assert trained.plan.grafts and base_sha256(trained) == before
    again = gk.load_dendrites(gk.load(SAMPLES / "cnn.pt"), gk.save_dendrites(trained, tmp_path / "anna.safetensors"))
    assert torch.equal(answers(again), answers(trained))


def test_a_base_that_was_trained_along_is_another_one(tmp_path: Path) -> None:
    traced = gk.trace(gk.load(SAMPLES / "cnn.pt"), IMAGES[:2])
    plan = gk.make_plan(traced, dendrites="full", sites=["head"])
    trained = gk.fit(traced, inverted(), plan=plan, epochs=1, cycles=1, control=False, margin=0).model
    file = gk.save_dendrites(trained, tmp_path / "anna.safetensors")
    with pytest.raises(PlanError, match="is for another base"):
        gk.load_dendrites(gk.load(SAMPLES / "cnn.pt"), file)
    assert torch.equal(answers(gk.load_dendrites(traced, file)), answers(trained))


def test_loading_on_a_module_an_exported_program_and_torchscript(anna: tuple[GraftedModel, Path]) -> None:
    model, file = anna
    expected = answers(model, ROWS)
    assert torch.equal(answers(gk.load_dendrites(net(), file), ROWS), expected)
    assert torch.equal(answers(gk.load_dendrites(net(), file, ROWS[:3]), ROWS), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(net())
    torch.testing.assert_close(answers(gk.load_dendrites(script, file), ROWS), expected)
    program = torch.export.export(net().eval(), (ROWS,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(answers(gk.load_dendrites(program, file), ROWS), expected)


def test_several_inputs_by_name(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
            whole = (self.table(ids) * mask.unsqueeze(-1)).sum(1)
            return {"features": whole, "logits": self.head(whole)}

    torch.manual_seed(0)
    module = Two()
    inputs = (torch.randint(0, 7, (3, 5)), torch.ones(3, 5, dtype=torch.bool))
    traced = gk.trace(module, inputs, output="logits")
    plan = GraftPlan((Graft("head", "context", options_of(parse_kind("context"))),))
    model = awake(traced, plan, seed=1)
    again = gk.load_dendrites(module, gk.save_dendrites(model, tmp_path / "two.safetensors"))
    model.eval()
    again.eval()
    assert torch.equal(again(*inputs), model(*inputs)) and again.traced.signature == traced.signature


def test_the_file_is_the_same_each_time_and_says_what_it_is_for(
    anna: tuple[GraftedModel, Path], tmp_path: Path
) -> None:
    model, file = anna
    assert gk.save_dendrites(model, tmp_path / "again").read_bytes() == file.read_bytes()
    assert is_dendrite_file(file) and not is_dendrite_file(SAMPLES / "cnn.pt") and not is_dendrite_file(tmp_path)
    with opened(file) as held:
        found = record_of(held)
    assert [(d.site, d.kind, d.neurons, d.parameters) for d in found.dendrites] == [
        ("stem.0", "full", 2, 2 * 5 + 2 + 2),
        ("keys", "adapter", None, 6 + 1 + 4 + 4 + 4),
        ("stem.0", "lowrank", None, 5 + 6 + 6 + 6 + 6),
    ] or found.parameters == sum(p.numel() for p in model.dendrites.parameters())
    assert found.parameters == sum(p.numel() for p in model.dendrites.parameters())
    assert (found.base, found.base_sha256, found.scores) == ("Net", base_sha256(model), None)
    assert json.loads(json.dumps(found.to_json()))["dendrites"][0]["site"] == "stem.0"
    with pytest.raises(SourceError, match="file of dendrites without a base"):
        gk.inspect(file)


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_active_set_is_trained_and_exported_and_the_base_is_there_once(
    anna: tuple[GraftedModel, Path], tmp_path: Path
) -> None:
    module = net()
    model = gk.load_dendrites(module, anna[1])
    gk.load_dendrites(model, anna[1], name="ben")
    model.set_dendrites("ben")
    ours = {id(p) for p in model.base.parameters()}
    assert ours == {id(p) for p in module.parameters()}
    assert {id(t) for g in model.graphs for n, t in g.named_parameters() if "graftkit_dendrites" not in n} <= ours
    before = answers(model, ROWS)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.mul_(0.5)
    assert not torch.equal(answers(model, ROWS), before)
    count = model.parameter_count()
    path = gk.export(model, tmp_path / "ben.onnx")
    assert gk.verify(path, model)["onnxruntime"] < 1e-5
    model.set_dendrites("anna")
    assert torch.equal(answers(model, ROWS), before) and model.parameter_count() == count
    with pytest.raises(GraftkitError, match="differ by"):
        gk.verify(path, model)
    with model.without_dendrites():
        assert gk.verify(gk.export(model, tmp_path / "none.onnx"), model)["onnxruntime"] < 1e-5
        assert model.parameter_count() == sum(p.numel() for p in module.parameters())


def test_an_optimizer_reaches_the_active_set_alone(anna: tuple[GraftedModel, Path]) -> None:
    model = gk.load_dendrites(net(), anna[1])
    gk.load_dendrites(model, anna[1], name="ben")
    aside = [p.detach().clone() for p in model.dendrites.parameters()]
    model.set_dendrites("ben")
    model.train()
    optimizer = torch.optim.SGD(model.dendrites.parameters(), lr=0.1)
    model(ROWS).square().sum().backward()
    optimizer.step()
    assert not torch.equal(next(iter(model.dendrites.parameters())), aside[0])
    assert len(list(model.parameters())) == len(list(model.base.parameters())) + len(aside)
    model.set_dendrites("anna")
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.dendrites.parameters(), aside, strict=True))


def test_what_a_call_keeps_in_a_cache_makes_no_other_base(tmp_path: Path) -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.register_buffer("scale", torch.ones(4), persistent=False)
            self.register_buffer("shift", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x * self.scale + self.shift)

    torch.manual_seed(0)
    module = Caching()
    model = awake(gk.trace(module, ROWS[:, :4]), GraftPlan((Graft("head", "full"),)), seed=1)
    file = gk.save_dendrites(model, tmp_path / "anna")
    module.scale = 2 * module.scale
    assert gk.load_dendrites(module, file).dendrite_sets == ("anna",)
    module.shift = module.shift + 1
    with pytest.raises(PlanError, match="another base"):
        gk.load_dendrites(module, file)


def test_sets_with_other_sites_come_and_go(anna: tuple[GraftedModel, Path], tmp_path: Path) -> None:
    other = awake(anna[0].traced, GraftPlan((Graft("keys", "lowrank"),)), seed=7)
    model = gk.load_dendrites(deepcopy(anna[0].traced), anna[1])
    gk.load_dendrites(model, gk.save_dendrites(other, tmp_path / "ben"))
    model.train()
    model.set_dendrites("ben")
    assert model.plan == other.plan and all(m.training for m in model.dendrites.modules())
    for who, alone in (("ben", other), ("anna", anna[0])):
        model.set_dendrites(who)
        assert torch.equal(answers(model, ROWS), answers(alone, ROWS))


def test_a_grafted_model_has_a_default_set(anna: tuple[GraftedModel, Path]) -> None:
    model = awake(gk.trace(net(), ROWS), GraftPlan((Graft("keys", "full"),)), seed=1)
    assert (model.dendrite_sets, model.active_dendrites) == (("default",), "default")
    own = answers(model, ROWS)
    gk.load_dendrites(model, anna[1])
    assert (model.dendrite_sets, model.active_dendrites) == (("default", "anna"), "default")
    assert torch.equal(answers(model, ROWS), own)
    with model.without_dendrites(), pytest.raises(RuntimeError, match="inside"):
        model.set_dendrites("anna")
        raise RuntimeError("inside")
    assert model.active_dendrites == "default" and torch.equal(answers(model, ROWS), own)
    with pytest.raises(PlanError, match=r"no dendrites called 'ana'; there are default, anna\. Did you mean anna"):
        model.set_dendrites("ana")
    with pytest.raises(PlanError, match="called 'anna' already"):
        gk.load_dendrites(model, anna[1])
    with pytest.raises(PlanError, match="another name"):
        gk.load_dendrites(model, anna[1], name="")
    empty = surgery.empty(model.traced)
    assert (empty.dendrite_sets, empty.active_dendrites) == ((), None)
    with empty.without_dendrites():
        assert torch.equal(answers(empty, ROWS), answers(surgery.empty(model.traced), ROWS))


def test_what_is_grafted_without_dendrites_is_gone_afterwards(anna: tuple[GraftedModel, Path]) -> None:
    model = gk.load_dendrites(net(), anna[1])
    with model.without_dendrites():
        bare = answers(model, ROWS)
        surgery.graft(model, [Graft("keys", "full")], build_dendrite, seed=0)
    assert (model.dendrite_sets, model.plan) == (("anna",), PLAN)
    with model.without_dendrites():
        assert not model.plan.grafts and torch.equal(answers(model, ROWS), bare)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_another_base_is_refused_and_nothing_is_changed(anna: tuple[GraftedModel, Path]) -> None:
    statistics = net()
    with torch.no_grad():
        statistics.stem[1].running_mean[0] += 1e-6
    for other in (net(seed=1), statistics):
        model = surgery.empty(gk.trace(other, ROWS))
        with pytest.raises(PlanError, match="is for another base: Net") as caught:
            gk.load_dendrites(model, anna[1])
        one_line(caught.value)
        assert model.dendrite_sets == () and model.plan == GraftPlan()
    assert gk.load_dendrites(statistics, anna[1], check_base=False).dendrite_sets == ("anna",)
    with pytest.raises(PlanError, match=r"does not fit Net: the tensor .* is F32 \[.*\], and has to be"):
        gk.load_dendrites(net(width=8), anna[1], check_base=False)
    with pytest.raises(PlanError, match=r"no site 'stem\.0'"):
        gk.load_dendrites(nn.Sequential(nn.Linear(5, 4)), anna[1], check_base=False)
    with pytest.raises(PlanError, match="is for a base that takes x: float32"):
        gk.load_dendrites(nn.Conv1d(5, 4, 1), anna[1], torch.rand(2, 5, 3), check_base=False)


def test_what_cannot_be_saved(anna: tuple[GraftedModel, Path], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="has no dendrites to save"):
        gk.save_dendrites(surgery.empty(anna[0].traced), tmp_path / "none")
    broken = awake(anna[0].traced, PLAN, seed=1)
    with torch.no_grad():
        next(broken.dendrites.parameters()).view(-1)[0] = math.nan
    with pytest.raises(PlanError, match="numbers that are none"):
        gk.save_dendrites(broken, tmp_path / "none")
    with pytest.raises(RunError, match="cannot be written: No such file"):
        gk.save_dendrites(anna[0], tmp_path / "no" / "where")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none(anna: tuple[GraftedModel, Path], tmp_path: Path) -> None:
    weights, empty = tmp_path / "weights.safetensors", tmp_path / "empty"
    safetensors.torch.save_file({"a": torch.ones(2)}, weights)
    empty.touch()
    for path, says in (
        (tmp_path, "there is no file"),
        (tmp_path / "gone", "there is no file"),
        (empty, "no safetensors file"),
        (SAMPLES / "cnn.pt", "no safetensors file"),
        (weights, "holds tensors, but no dendrites"),
    ):
        with pytest.raises(SourceError, match=says) as caught:
            gk.load_dendrites(anna[0], path, name="new")
        one_line(caught.value)


def test_an_input_that_cannot_be_made_up(anna: tuple[GraftedModel, Path], tmp_path: Path) -> None:
    large = rewritten(anna[1], tmp_path, lambda told, _: told.update(example=[[2**20, 2**20]]))
    with pytest.raises(SourceError, match="too large to be made up"):
        gk.load_dendrites(net(), large)
    strange = rewritten(anna[1], tmp_path, lambda told, _: told["signature"]["inputs"][0].update(dtype="nn"))
    with pytest.raises(SourceError, match="nn is no type"):
        gk.load_dendrites(net(), strange)
    wrong = rewritten(anna[1], tmp_path, lambda told, _: told.update(example=[[2, 77]]))
    with pytest.raises(TraceError, match="give an example of your own"):
        gk.load_dendrites(net(), wrong)


def rewritten(
    file: Path, folder: Path, change: Callable[[Any, dict[str, Tensor]], object], *, hashed: bool = True
) -> Path:
    """The file with other facts or tensors, its own hash being right again."""
    from graftkit.dendrite_files.hashes import tensors_sha256

    with opened(file) as held:
        told, tensors = json.loads(held.facts.to_text()), held.tensors()
    change(told, tensors)
    if hashed and isinstance(told.get("tensors"), dict):
        told["tensors"]["sha256"] = tensors_sha256(tensors)
    path = folder / "changed.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, metadata={KEY: json.dumps(told)}))
    return path


def first(tensors: dict[str, Tensor]) -> str:
    return min(tensors)


def poisoned(value: float) -> Callable[[Any, dict[str, Tensor]], None]:
    def change(_: Any, tensors: dict[str, Tensor]) -> None:
        tensors[first(tensors)].view(-1)[0] = value

    return change


def option(**options: Any) -> Callable[[Any, dict[str, Tensor]], object]:
    return lambda told, _: told["plan"]["grafts"][2].update(**options)


HOSTILE: dict[str, tuple[Callable[[Any, dict[str, Tensor]], object], str]] = {
    "version": (lambda told, _: told.update(version=2), "format version is 2, and this graftkit reads 1"),
    "no version": (lambda told, _: told.pop("version"), "version"),
    "no plan": (lambda told, _: told.pop("plan"), "plan"),
    "empty plan": (lambda told, _: told["plan"].update(grafts=[]), "it has no dendrites"),
    "kind": (option(kind="lowrnk"), "unknown dendrite kind 'lowrnk'"),
    "site": (option(site="stem.1"), "no site 'stem.1'"),
    "escape": (option(site="\x1b[31mred\nline"), "no site"),
    "rank": (option(options={"rank": 2}), "has to be"),
    "huge rank": (option(options={"rank": 10**9}), "has to be"),
    "overflowing rank": (option(options={"rank": 10**30}), "broken|has to be"),
    "infinite rank": (option(options={"rank": math.inf}), "broken"),
    "huge rank for one": (option(options={"rank": 10**9}, neurons=[0]), "too large to be made"),
    "listed option": (option(options={"rank": [1]}), "options that are none"),
    "no option": (option(options={"rang": 1}), "no option 'rang'"),
    "neurons": (option(neurons=[6]), "has neurons 0 to 5"),
    "negative neuron": (option(neurons=[-1]), "has neurons 0 to 5"),
    "a neuron twice": (option(neurons=[1, 1]), "a neuron twice"),
    "no neuron": (option(neurons=[]), "no neuron"),
    "infinite neuron": (option(neurons=[math.inf]), "OverflowError: cannot convert"),
    "mask": (option(mask="m"), "agree in join, detach and mask"),
    "mask of another type": (option(mask=3), "options that are none"),
    "join": (option(join="anywhere"), "join must be"),
    "nan": (poisoned(math.nan), "numbers that are none"),
    "infinity": (poisoned(math.inf), "numbers that are none"),
    "another tensor": (lambda _, t: t.update(more=torch.ones(1)), "no dendrite for the tensor more"),
    "a tensor less": (lambda _, t: t.pop(first(t)), "needs a tensor .*, which it does not have"),
    "another name": (lambda _, t: t.update({"no/such.cascade.0.x": t.pop(first(t))}), "which it does not have"),
    "another type": (lambda _, t: t.update({first(t): t[first(t)].half()}), "is F16"),
    "whole numbers": (lambda _, t: t.update({first(t): t[first(t)].long()}), "is I64"),
    "another shape": (lambda _, t: t.update({first(t): torch.ones(3, 3)}), r"is F32 \[3, 3\]"),
    "hash of the base": (lambda told, _: told["base"].update(sha256="0" * 64), "is for another base"),
    "no hash": (lambda told, _: told["base"].update(sha256="../x"), "is no SHA-256"),
    "score": (lambda told, _: told.update(scores={"metric": "r2", "given": 1, "grafted": 2}), "can be read: TypeError"),
    "signature": (lambda told, _: told["signature"].update(inputs=[{"name": 1, "dtype": "x", "shape": []}]), "no text"),
    "example": (lambda told, _: told.update(example=[[2, 5], [2, 5]]), "of other inputs than its signature"),
    "negative example": (lambda told, _: told.update(example=[[-2, 5]]), "sizes that are none"),
    "many grafts": (
        lambda told, _: told["plan"].update(grafts=told["plan"]["grafts"] + [told["plan"]["grafts"][1]] * 20_000),
        "which it does not have",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_line_and_leaves_the_model_alone(
    anna: tuple[GraftedModel, Path], tmp_path: Path, case: str
) -> None:
    change, says = HOSTILE[case]
    model = surgery.empty(anna[0].traced)
    with pytest.raises((PlanError, SourceError), match=says) as caught:
        gk.load_dendrites(model, rewritten(anna[1], tmp_path, change))
    one_line(caught.value)
    assert model.dendrite_sets == () and not model._sets


def test_a_tensor_that_was_damaged_is_found(anna: tuple[GraftedModel, Path], tmp_path: Path) -> None:
    changed = rewritten(anna[1], tmp_path, poisoned(0.123), hashed=False)
    with pytest.raises(SourceError, match="another sha256 than it says"):
        gk.load_dendrites(anna[0], changed, name="new")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", "[" * 100_000, '{"version": 1}', '{"version": NaN}', "1" * 9999]
)
def test_metadata_that_are_none(anna: tuple[GraftedModel, Path], tmp_path: Path, text: str) -> None:
    path = tmp_path / "strange.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(1)}, metadata={KEY: text}))
    with pytest.raises(SourceError, match="no file of dendrites that can be read") as caught:
        gk.load_dendrites(anna[0], path, name="new")
    one_line(caught.value)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in JSON."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6),
    st.lists(st.integers(-3, 9), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_value_in_the_facts_is_refused_or_harmless(
    anna: tuple[GraftedModel, Path], tmp_path: Path, data: st.DataObject
) -> None:
    with opened(anna[1]) as held:
        ways = [way for way in places(json.loads(held.facts.to_text())) if way]
    way, value = data.draw(st.sampled_from(ways)), data.draw(STRANGE)

    def change(told: Any, _: dict[str, Tensor]) -> None:
        for key in way[:-1]:
            told = told[key]
        told[way[-1]] = value

    refused_or_the_same(anna[0], rewritten(anna[1], tmp_path, change, hashed=False))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_bytes_are_refused_or_harmless(
    anna: tuple[GraftedModel, Path], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(anna[1].read_bytes())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 20, len(content))))
    content[start:end] = data.draw(st.binary(max_size=20))
    (tmp_path / "bytes.safetensors").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    refused_or_the_same(anna[0], tmp_path / "bytes.safetensors")
    (tmp_path / "bytes.safetensors").write_bytes(content)
    refused_or_the_same(anna[0], tmp_path / "bytes.safetensors")


def refused_or_the_same(model: GraftedModel, file: Path) -> None:
    """What could be loaded is of finite numbers, and could be shown; what could not is told in a line."""
    fresh = surgery.empty(model.traced)
    try:
        gk.load_dendrites(fresh, file)
    except GraftkitError as error:
        one_line(error)
        assert fresh.dendrite_sets == () and not fresh._sets
        return
    assert all(p.isfinite().all() for p in fresh.parameters())
    assert answers(fresh, ROWS).shape == answers(model, ROWS).shape
    with opened(file) as held:
        assert dendrite_file_table(record_of(held)) is not None
