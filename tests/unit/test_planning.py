"""What one cycle grafts: defaults, the sites that are left out, and what the user names."""

from __future__ import annotations

from collections.abc import Callable

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
        torch.manual_seed(0)
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
    assert [line for line in left_out if line.startswith("tokens: no context: ") and "padding" in line]
    _, left_out = plan_cycle(traced, dendrites=("own+around",), rule=Gradient())
    assert [line for line in left_out if line.startswith("head: no own: it gives the model's output")]
    assert [line for line in left_out if "; no around: a Linear's positions" in line]
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


def test_context_over_a_sequence_of_any_length_when_named_or_masked(traced: TracedModel) -> None:
    kinds, left_out = planned(traced, dendrites=("context",))
    assert set(kinds) == {"conv", "hidden"}
    assert any(line.startswith("tokens: ") and "a mask can say" in line for line in left_out)
    assert planned(traced, dendrites=("context",), sites=("tokens",))[0] == {"tokens": "context"}
    assert planned(traced, sites=("tokens",))[0] == {"tokens": DEFAULT_KINDS["linear"][1].name}


class Tokens(nn.Module):
    """[N, 6, 4] through a layer a position, a causal mean or none, and what a test makes of the six."""

    def __init__(self, causal: bool, says: Callable[[Tensor], Tensor], classes: int = 5):
        super().__init__()
        torch.manual_seed(0)
        self.causal, self.says = causal, says
        self.tokens, self.head = nn.Linear(4, 8), nn.Linear(8, classes)
        self.place = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.relu(self.tokens(x + self.place))
        weights = torch.ones(6, 6).tril() if self.causal else torch.ones(6, 6)
        return self.says(self.head((weights / weights.sum(1, keepdim=True)) @ seen))


@pytest.mark.parametrize(
    ("causal", "says", "classes", "fits"),
    [
        (False, lambda x: x.mean(1), 5, True),
        (False, lambda x: x.mean(1), 12, True),
        (False, lambda x: x, 5, True),  # a number for each position, of which each depends on all
        (True, lambda x: x.mean(1), 5, True),
        (True, lambda x: x[:, -1], 5, True),
        (True, lambda x: x, 5, False),
        (True, lambda x: x.flatten(1), 5, False),
        (True, lambda x: x[..., 0], 5, False),
        (True, lambda x: x[:, 1:, 0], 5, False),
        (True, lambda x: x[:, :-1].flatten(1), 5, False),
        (True, lambda x: x[:, 1::2, 0], 5, False),
    ],
)
def test_context_over_a_sequence_where_a_model_is_not_causal(
    causal: bool, says: Callable[[Tensor], Tensor], classes: int, fits: bool
) -> None:
    traced = tracing.trace_module(Tokens(causal, says, classes), (torch.randn(2, 6, 4),), name="tokens")
    plan, left_out = plan_cycle(traced, dendrites=("full+context+own",), rule=Gradient())
    kinds = [graft.kind for graft in plan.grafts if graft.site == "tokens"]
    assert kinds == (["full", "context", "own"] if fits else ["full"])
    assert fits != any("tokens: no own: over a sequence own would show" in line for line in left_out)
    tried, _ = plan_cycle(traced, rule=Gradient(), every=True)
    assert fits == ("context" in {graft.kind for graft in tried.grafts if graft.site == "tokens"})
    assert planned(traced)[0]["tokens"] == DEFAULT_KINDS["linear"][1].name  # not by itself
    if not fits:
        plan, _ = plan_cycle(traced, dendrites=("context",), sites=("tokens",), rule=Gradient())
        assert [graft.kind for graft in plan.grafts] == ["context"]


class Moments(nn.Module):
    """[N, 3, 9] to a number for each moment, from those before it alone or from those around it."""

    def __init__(self, causal: bool, pooled: bool):
        super().__init__()
        torch.manual_seed(0)
        self.causal, self.pooled = causal, pooled
        self.first, self.last = nn.Conv1d(3, 5, 3), nn.Conv1d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(nn.functional.pad(x, (2, 0) if self.causal else (1, 1))))
        x = self.last(x)
        return x.mean(2) if self.pooled else x


@pytest.mark.parametrize(("causal", "pooled"), [(True, False), (False, False), (True, True)])
def test_convolutions_over_time_see_no_future_by_default(causal: bool, pooled: bool) -> None:
    """Of a network that sees some moments before and behind nothing says that it may not see all."""
    traced = tracing.trace_module(Moments(causal, pooled), (torch.randn(2, 3, 9),), name="moments")
    plan, left_out = plan_cycle(traced, dendrites=("full+context+own+around",), rule=Gradient())
    assert ({"context", "own", "around"} <= {graft.kind for graft in plan.grafts}) == pooled
    assert pooled != any("first: no around: over a sequence around would show" in line for line in left_out)


def test_maps_are_no_sequences() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    traced = tracing.trace_module(net, (torch.randn(2, 3, 6, 6),), name="pixels")
    plan, _ = plan_cycle(traced, dendrites=("context+own+around",), rule=Gradient())
    assert [graft.kind for graft in plan.grafts] == ["context", "own", "around"] * 2


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
    plan, _ = plan_cycle(traced, dendrites=("conv=context:units=2,mode=add",), rule=RULES["gradient"](), join="call")
    (graft,) = plan.grafts
    assert graft.options == options_of(make_kind("context", {"units": 2, "mode": "add"}))
    assert graft.join == "call"


class Masked(nn.Module):
    """Tokens of any length, and which of them count, to three classes; `pair` reads one row of numbers."""

    def __init__(self, extra: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.extra = nn.Embedding(9, 4), extra
        self.tokens, self.pair, self.head = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        known = self.embedding(ids)
        seen = torch.relu(self.tokens(torch.cat([known, known[:, : self.extra]], 1)))
        heard = (seen[:, : counts.shape[1]] * counts.unsqueeze(-1)).sum(1) / counts.sum(1, keepdim=True)
        return self.head(torch.relu(self.pair(heard)))


def masked(extra: int = 0) -> TracedModel:
    inputs = (torch.randint(9, (3, 6)), torch.ones(3, 6))
    return tracing.trace_module(Masked(extra), inputs, name="masked")


@pytest.mark.parametrize("kind", ["context", "own"])
def test_a_mask_is_for_the_sequences(kind: str) -> None:
    traced = masked()
    plan, _ = plan_cycle(traced, dendrites=(kind,), rule=Gradient(), mask="counts")
    assert {graft.site: graft.mask for graft in plan.grafts} == {"tokens": "counts", "pair": None}
    model = surgery.empty(traced)
    surgery.check_reached(model, plan.grafts, build_dendrite)
    surgery.graft(model, plan.grafts, build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.normal_()
    ids = torch.randint(9, (2, 8))
    counts = (torch.arange(8) < 5).float().repeat(2, 1)
    expected = model.eval()(ids[:, :5], counts[:, :5])
    torch.testing.assert_close(model(ids, counts), expected)  # padding says nothing


@pytest.mark.parametrize(
    ("extra", "mask", "dendrites", "words"),
    [
        (1, "counts", ("context",), r"nothing would read the mask 'counts'.* \[3, 6\] in the example"),
        (0, "counts", ("full",), "nothing would read the mask 'counts': context and own do"),
        (0, "ids", ("context",), "the input 'ids' is not"),
    ],
)
def test_a_mask_that_means_nothing_is_refused(extra: int, mask: str, dendrites: tuple[str, ...], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        plan_cycle(masked(extra), dendrites=dendrites, rule=Gradient(), mask=mask)


def test_a_mask_is_for_the_kinds_that_read_it() -> None:
    plan, _ = plan_cycle(masked(), rule=Gradient(), mask="counts")
    assert {(graft.site, graft.kind, graft.mask) for graft in plan.grafts} == {
        ("tokens", "context", "counts"), ("pair", "context", None)
    }  # fmt: skip
    with pytest.raises(PlanError, match=r"tokens: context would count .*the mask is for other positions"):
        plan_cycle(masked(1), dendrites=("context",), sites=("!pair",), rule=Gradient(), mask="counts")
    plan, _ = plan_cycle(masked(), dendrites=("full", "linear=full+own"), rule=Gradient(), mask="counts")
    assert {(graft.site, graft.mask) for graft in plan.grafts} == {("tokens", "counts"), ("pair", None)}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"dendrites": ("pool=full",)}, "write KIND, conv=KIND or linear=KIND"),
        ({"dendrites": ("ful",)}, "unknown dendrite kind 'ful'"),
        ({"mask": "xx"}, "the model has no input 'xx' to use as a mask. Did you mean x?"),
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
