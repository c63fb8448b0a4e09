"""Which sites glob patterns choose, and what geometry says of a kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftkit.core.errors import PlanError
from graftkit.core.sites import Geometry, Site, select_sites

KEYS = ("stem.conv", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "attn:0", "attn:1", "head")


def site(key: str) -> Site:
    path = key.partition(":")[0]
    return Site(key, path, "linear", 4, 4, None, f"{path}.weight", 20, 16, (-1, 4), (-1, 4), 1, 0)


SITES = tuple(site(key) for key in KEYS)


def chosen(*patterns: str) -> list[str]:
    return [found.key for found in select_sites(SITES, patterns)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), KEYS),
        (("*",), KEYS),
        (("head",), ("head",)),
        (("layer?.0.conv1",), ("layer1.0.conv1", "layer2.0.conv1")),
        (("layer*",), KEYS[1:4]),
        (("attn",), ("attn:0", "attn:1")),
        (("attn:1",), ("attn:1",)),
        (("!head",), KEYS[:-1]),
        (("layer*", "!*conv2"), ("layer1.0.conv1", "layer2.0.conv1")),
        (("!layer*", "!attn", "stem*", "head"), ("stem.conv", "head")),
        (("head", "stem.conv"), ("stem.conv", "head")),
        (("head", "!head"), ()),
        (("[sh]*",), ("stem.conv", "head")),
    ],
)
def test_patterns(patterns: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert tuple(chosen(*patterns)) == tuple(expected)


@pytest.mark.parametrize("pattern", ["haed", "!haed"])
def test_a_pattern_that_matches_nothing_names_the_closest(pattern: str) -> None:
    with pytest.raises(PlanError, match=r"matches none of the 7 sites;.*Did you mean head") as caught:
        chosen("layer*", pattern)
    assert repr(pattern) in str(caught.value) and "\n" not in str(caught.value)


def test_patterns_mind_the_case() -> None:
    with pytest.raises(PlanError):
        chosen("Head")


@given(st.sets(st.sampled_from(KEYS)))
def test_excluding_is_the_rest_of_including(keys: set[str]) -> None:
    excluded = chosen(*(f"!{key}" for key in keys))
    assert excluded == [key for key in KEYS if key not in keys]
    if keys:
        assert chosen(*keys) == [key for key in KEYS if key in keys]


def test_margins() -> None:
    geometry = Geometry((3, 4), (1, 1), (2, 1), (1, 2), 1)
    assert geometry.margins() == ((2, 2), (1, 1))
    assert Geometry((3, 4), (1, 1), "valid", (1, 2), 1).margins() == ((0, 0), (0, 0))
    assert Geometry((3, 4), (1, 1), "same", (1, 2), 1).margins() == ((1, 1), (3, 3))
    assert Geometry((4,), (1,), "same", (1,), 1).margins() == ((1, 2),)


def test_channel_dim_and_sequences() -> None:
    flat = site("head")
    assert flat.is_linear and flat.channel_dim == 1 and not flat.is_sequence and flat.spatial_dims == 0
    tokens = Site("t", "t", "linear", 4, 6, None, "w", 30, 24, (-1, 5, 4), (-1, 5, 6), 5, 0)
    assert tokens.is_sequence and tokens.channel_dim == 2
    shape = ((-1, 2, 8, 8), (-1, 4, 8, 8))
    conv = Site("c", "c", "conv2d", 2, 4, Geometry((1, 1), (1, 1), (0, 0), (1, 1), 1), "w", 12, 512, *shape, 64, 0)
    assert conv.channel_dim == 1 and conv.spatial_dims == 2 and not conv.is_sequence and not conv.is_transposed
