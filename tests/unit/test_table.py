"""A table of kinds: ordered, immutable, and its misses say what is known."""

from __future__ import annotations

import pytest

from graftkit.core.errors import PlanError, did_you_mean
from graftkit.core.table import Table

TABLE = Table("colour", {"red": 1, "green": 2, "blue": 3}, PlanError)


def test_it_is_a_mapping_in_the_order_given() -> None:
    assert list(TABLE) == ["red", "green", "blue"] and len(TABLE) == 3 and dict(TABLE)["blue"] == 3
    assert "green" in TABLE and "grey" not in TABLE and TABLE.find("red") == 1 == TABLE["red"]


def test_it_keeps_its_members_to_itself() -> None:
    members = {"red": 1}
    table = Table("colour", members, PlanError)
    members["blue"] = 2
    assert list(table) == ["red"] and not hasattr(table, "__setitem__")


def test_a_miss_says_what_there_is() -> None:
    with pytest.raises(PlanError) as caught:
        TABLE.find("gren")
    assert str(caught.value) == "unknown colour 'gren'; there are red, green, blue. Did you mean green or red?"
    with pytest.raises(PlanError) as caught:
        TABLE.find("xyz")
    assert str(caught.value) == "unknown colour 'xyz'; there are red, green, blue."


def test_did_you_mean() -> None:
    assert did_you_mean("qqq", ["a", "b"]) == ""
    assert did_you_mean("layer1", ["layer2", "layer3", "head"]) == " Did you mean layer3 or layer2?"
