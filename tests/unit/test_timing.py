"""Interleaved times, their ratios and what noise lets one tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftkit.timing import Mixed, in_turns, ratio


@dataclass
class Fixed:
    """A session that says what each run takes, and when it was asked."""

    name: str
    each: float
    asked: list[str] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    def __call__(self, inputs: object) -> list[np.ndarray]:
        return []

    def seconds(self, inputs: object, times: int) -> list[float]:
        self.asked.append(self.name)
        self.runs.append(times)
        return [self.each] * times

    def close(self) -> None:
        pass


def test_each_turn_is_a_slice_of_runs_and_the_first_place_goes_round() -> None:
    order: list[str] = []
    fast, slow = Fixed("fast", 1e-4, order), Fixed("slow", 5e-3, order)
    found = in_turns([fast, slow], [{}, {}], rounds=4)
    assert found == [pytest.approx([1e-4] * 4), pytest.approx([5e-3] * 4)]
    assert fast.runs[2:] == [20] * 4 and slow.runs[2:] == [1] * 4
    assert order[4:] == ["fast", "slow", "slow", "fast", "fast", "slow", "slow", "fast"]


def test_a_ratio_is_the_median_of_pairs() -> None:
    found = ratio([2.0, 4.0, 9.0] * 10, [1.0, 2.0, 3.0] * 10)
    assert (found.median, found.low) == (2.0, 2.0) and found.high == 3.0 and found.certain


def test_two_alike_are_not_told_apart() -> None:
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        wrong += ratio(random.lognormal(size=60), random.lognormal(size=60)).certain
    assert wrong <= 12  # one in a hundred is meant; 12 or more of 400 is one chance in a thousand


def test_a_difference_beyond_the_noise_is_told() -> None:
    random = np.random.default_rng(0)
    found = ratio(1.1 * random.lognormal(sigma=0.05, size=60), random.lognormal(sigma=0.05, size=60))
    assert found.certain and found.low < 1.1 < found.high


@settings(max_examples=50)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=80))
def test_limits_hold_the_median(values: list[float]) -> None:
    found = ratio(values, [1.0] * len(values))
    assert found.low <= found.median <= found.high


def test_a_mix_takes_what_its_batches_take_together() -> None:
    @dataclass
    class ByFeed(Fixed):
        def seconds(self, inputs: dict, times: int) -> list[float]:
            self.runs.append(times)
            return [self.each * inputs["factor"]] * times

    session = ByFeed("mixed", 1e-3)
    mixed = Mixed(session, [{"factor": 1}, {"factor": 4}, {"factor": 5}])
    assert mixed.seconds({}, 2) == [pytest.approx(0.01)] * 2
    assert session.runs == [1] * 6  # one after the other, never the same one twice
