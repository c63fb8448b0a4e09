"""Plans as JSON: what is written is read, and anything else is refused in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftkit.core.errors import PlanError
from graftkit.plan import Graft, GraftPlan

names = st.text(min_size=1, max_size=12)
values = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))
grafts = st.builds(
    Graft,
    site=names,
    kind=names,
    options=st.dictionaries(names, values, max_size=3).map(lambda options: tuple(sorted(options.items()))),
    join=st.sampled_from(("activation", "call")),
    detach=st.booleans(),
    neurons=st.none() | st.lists(st.integers(0, 50), unique=True).map(tuple),
    mask=st.none() | names,
)
plans = st.builds(GraftPlan, st.lists(grafts, max_size=5).map(tuple))


@given(plans)
def test_json_round_trip(plan: GraftPlan) -> None:
    text = json.dumps(plan.to_json())
    again = GraftPlan.from_json(json.loads(text))
    assert again == plan and hash(again) == hash(plan) and json.dumps(again.to_json()) == text


@given(plans, st.lists(grafts, max_size=3))
def test_grafts_are_added_at_the_end(plan: GraftPlan, more: list[Graft]) -> None:
    longer = plan.with_grafts(more)
    assert longer.grafts == (*plan.grafts, *more)
    assert [graft for site in longer.sites() for graft in longer.at(site)] == sorted(
        longer.grafts, key=lambda graft: longer.sites().index(graft.site)
    )
    assert len(longer.sites()) == len({graft.site for graft in longer.grafts})


GOOD: dict[str, Any] = Graft("a", "full", (("activation", "tanh"),)).to_json()
MISSING: list[Any] = [
    {"version": 1, "grafts": [{name: value for name, value in GOOD.items() if name != missing}]} for missing in GOOD
]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "plan",
        {},
        {"version": 1},
        {"version": 1, "grafts": {}},
        {"version": 2, "grafts": []},
        {"grafts": []},
        {"version": 1, "grafts": [None]},
        {"version": 1, "grafts": ["full"]},
        {"version": 1, "grafts": [GOOD | {"options": ["a"]}]},
        {"version": 1, "grafts": [GOOD | {"neurons": 3}]},
        {"version": 1, "grafts": [GOOD | {"neurons": ["x"]}]},
        {"version": 1, "grafts": [GOOD | {"join": "later"}]},
        {"version": 1, "grafts": [GOOD | {"join": ["call"]}]},
        *MISSING,
    ],
)
def test_anything_else_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(PlanError) as caught:
        GraftPlan.from_json(value)
    assert "\n" not in str(caught.value)


def test_the_version_is_named() -> None:
    with pytest.raises(PlanError, match=r"version 7 is not the version this graftkit reads \(1\)"):
        GraftPlan.from_json({"version": 7, "grafts": []})
