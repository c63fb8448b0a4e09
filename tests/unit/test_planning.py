"""What one cycle grafts: defaults, the sites that are left out, and what the user names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graftkit import surgery, tracing
from graftkit.core.errors import PlanError
from graftkit.dendrites import build_dendrite, make_kind, options_of
from graftkit.model import TracedModel
from graftkit.planning import DEFAULT_KINDS, parameter_limit, plan_cycle
from graftkit.rules import RULES, Gradient


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)
        self.tokens = nn.Linear(6, 5)
        self.hidden = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).transpose(1, 2)
        return self.head(torch.relu(self.hidden(torch.relu(self.tokens(x)).mean(1))))


@pytest.fixture(scope="module")
def traced() -> TracedModel:
    return tracing.trace_module(Mixed(), (torch.randn(2, 4, 6),), name="mixed")


def planned(traced: TracedModel, *, rule: str = "gradient", **asked: object) -> tuple[dict[str, str], tuple[str, ...]]:
    plan, left_out = plan_cycle(traced, rule=RULES[rule](), **asked)  # type: ignore[arg-type]
    return {graft.site: graft.kind for graft in plan.grafts}, left_out


def test_defaults(traced: TracedModel) -> None:
    kinds, left_out = planned(traced)
    first, second = DEFAULT_KINDS["linear"]
    assert kinds == {"conv": DEFAULT_KINDS["conv"][0].name, "tokens": second.name, "hidden": first.name}
    assert left_out == ("head: it gives the model's output (name it with --sites to graft it all the same)",)
    plan, _ = plan_cycle(traced, rule=RULES["gradient"]())
    assert [graft.options for graft in plan.grafts] == [
        options_of(DEFAULT_KINDS["conv"][0]), options_of(second), options_of(first)
    ]  # fmt: skip
    assert not any(graft.detach or graft.mask or graft.neurons for graft in plan.grafts)


def test_kinds_joined_by_a_plus_are_all_grafted_where_they_fit(traced: TracedModel) -> None:
    plan, left_out = plan_cycle(traced, dendrites=("full", "conv=context:units=2+full"), rule=Gradient())
    assert [(graft.site, graft.kind) for graft in plan.grafts] == [
        ("conv", "context"), ("conv", "full"), ("tokens", "full"), ("hidden", "full")
    ]  # fmt: skip
    assert dict(plan.grafts[0].options)["units"] == 2
    _, left_out = plan_cycle(traced, dendrites=("context+full",), rule=Gradient())
    assert [line for line in left_out if line.startswith("tokens: no context: ") and "future" in line]
    plan, _ = plan_cycle(traced, dendrites=("full+full",), sites=("conv",), rule=Gradient())
    model = surgery.empty(traced)
    surgery.graft(model, plan.grafts, build_dendrite, seed=0)
    first, second = (list(dendrite.parameters()) for dendrite in model.at("conv").cascade)
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=False) if a.shape == b.shape)


def test_a_kind_that_does_not_fit_a_named_site_is_refused_beside_others(traced: TracedModel) -> None:
    with pytest.raises(PlanError, match="no pooled can be grafted at conv"):
        plan_cycle(traced, dendrites=("full+pooled",), sites=("conv",), rule=Gradient())


def test_correlation_takes_one_kind_a_site(traced: TracedModel) -> None:
    rule = RULES["correlation"]()
    plan, _ = plan_cycle(traced, dendrites=("context+full",), sites=("conv",), rule=rule)
    with pytest.raises(PlanError, match="one kind for each"):
        rule.grow(surgery.empty(traced), plan.grafts, build_dendrite, torch.nn.functional.mse_loss, seed=0)


@pytest.mark.parametrize("text", ["default+full", "full+", "+", "conv=full+nothing"])
def test_a_plus_needs_kinds_on_both_sides(traced: TracedModel, text: str) -> None:
    with pytest.raises(PlanError):
        plan_cycle(traced, dendrites=(text,), rule=Gradient())


def test_the_correlation_rule_grafts_copies_and_detaches(traced: TracedModel) -> None:
    plan, _ = plan_cycle(traced, rule=RULES["correlation"]())
    assert {graft.kind for graft in plan.grafts} == {"full"} and all(graft.detach for graft in plan.grafts)


def test_a_network_that_stands_still_gets_adapters_at_the_output_layer_too(traced: TracedModel) -> None:
    plan, left_out = plan_cycle(traced, rule=Gradient(freeze=True))
    assert {graft.site: graft.kind for graft in plan.grafts} == dict.fromkeys(
        ("conv", "tokens", "hidden", "head"), "adapter"
    )
    assert left_out == ()
    tried, _ = plan_cycle(traced, rule=Gradient(freeze=True), every=True)
    assert "adapter" in {graft.kind for graft in tried.grafts}


def test_the_output_layer_is_grafted_when_named(traced: TracedModel) -> None:
    assert set(planned(traced, sites=("*",))[0]) == {"conv", "tokens", "hidden", "head"}
    assert set(planned(traced, sites=("head",))[0]) == {"head"}
    assert set(planned(traced, sites=("!conv",))[0]) == {"tokens", "hidden"}  # not excluded is not named


def test_context_over_a_sequence_only_when_named(traced: TracedModel) -> None:
    kinds, left_out = planned(traced, dendrites=("context",))
    assert set(kinds) == {"conv", "hidden"}
    assert any(line.startswith("tokens: ") and "future" in line for line in left_out)
    assert planned(traced, dendrites=("context",), sites=("tokens",))[0] == {"tokens": "context"}
    assert planned(traced, sites=("tokens",))[0] == {"tokens": DEFAULT_KINDS["linear"][1].name}


@pytest.mark.parametrize(
    ("dendrites", "expected"),
    [
        (("full",), {"conv": "full", "tokens": "full", "hidden": "full"}),
        (("conv=pointwise",), {"conv": "pointwise"}),
        (("linear=full",), {"tokens": "full", "hidden": "full"}),
        (("conv=depthwise", "linear=lowrank:rank=1"), {"conv": "depthwise", "tokens": "lowrank", "hidden": "lowrank"}),
        (("full", "conv=depthwise"), {"conv": "depthwise", "tokens": "full", "hidden": "full"}),
        (("linear=full", "conv=default"), {"conv": "context", "tokens": "full", "hidden": "full"}),
        (("pointwise",), {"conv": "pointwise"}),
        (("conv=context:units=2,mode=add",), {"conv": "context"}),
    ],
)
def test_kinds_by_operator(traced: TracedModel, dendrites: tuple[str, ...], expected: dict[str, str]) -> None:
    assert planned(traced, dendrites=dendrites)[0] == expected


def test_options_reach_the_plan(traced: TracedModel) -> None:
    plan, _ = plan_cycle(
        traced, dendrites=("conv=context:units=2,mode=add",), rule=RULES["gradient"](), join="call", mask="m"
    )
    (graft,) = plan.grafts
    assert graft.options == options_of(make_kind("context", {"units": 2, "mode": "add"}))
    assert (graft.join, graft.mask) == ("call", "m")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"dendrites": ("pool=full",)}, "write KIND, conv=KIND or linear=KIND"),
        ({"dendrites": ("ful",)}, "unknown dendrite kind 'ful'"),
        (
            {"dendrites": ("pointwise",), "sites": ("head",)},
            "no dendrite can be grafted at head: a Linear call has no centre tap",
        ),
        ({"sites": ("he*",), "dendrites": ("pointwise",)}, "nothing to graft: head: a Linear call has no centre tap"),
        ({"sites": ("haed",)}, "matches none of the 4 sites"),
        ({"sites": ("conv",), "dendrites": ("linear=full",)}, "no dendrite can be grafted at conv: no kind was given"),
    ],
)
def test_refusals(traced: TracedModel, asked: dict[str, object], words: str) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        planned(traced, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_model_without_sites_is_refused() -> None:
    module = nn.Sequential(nn.Embedding(4, 3), nn.Flatten())
    traced = tracing.trace_module(module, (torch.zeros(2, 2, dtype=torch.long),), name="table")
    with pytest.raises(PlanError, match="table has no Linear or Conv call"):
        plan_cycle(traced, rule=RULES["gradient"]())


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), (1200, 1200), ("+20%", 1200), ("+0%", 1000), ("+12.5%", 1125), ("1,500", 1500), ("1_500", 1500)],
)
def test_parameter_limit(text: str | int | None, expected: int | None) -> None:
    assert parameter_limit(text, 1000) == expected


@pytest.mark.parametrize("text", ["20%", "+x%", "many", "", "999", "+-1%", "-5", "+nan%", "+inf%"])
def test_limits_that_make_no_sense(text: str) -> None:
    with pytest.raises(PlanError, match="--max-parameters"):
        parameter_limit(text, 1000)
