"""Times sessions in turns, so that what else a machine does falls on all of them, and compares them pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from graftkit.contracts import Session

SLICE = 2e-3  # seconds of runs at a time: long against the clock's grain, short against what else a machine does
_WARM = 3  # runs that are not counted
_SURE = 0.99


@dataclass(frozen=True)
class Ratio:
    """How much longer one takes than another, from measurements in pairs.

    Attributes:
        median: of the pairs' ratios.
        low, high: between which the median of ever more pairs lies, in 99 of 100 cases.
    """

    median: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether one is faster than the other for all that the noise of these measurements says."""
        return not self.low <= 1 <= self.high


def in_turns(
    sessions: Sequence[Session],
    feeds: Sequence[Mapping[str, np.ndarray]],
    *,
    rounds: int,
    slice: float = SLICE,
) -> list[list[float]]:
    """The seconds of one run of each session, in each round a mean over `slice` seconds.

    Args:
        sessions: they are warmed up first.
        feeds: what each of them is given.
        rounds: which one goes first changes from round to round.
    """
    pairs = list(zip(sessions, feeds, strict=True))
    runs = [_runs(session, feed, slice) for session, feed in pairs]
    found: list[list[float]] = [[] for _ in pairs]
    for turn in range(rounds):
        for place in range(len(pairs)):
            index = (place + turn) % len(pairs)
            session, feed = pairs[index]
            found[index].append(statistics.fmean(session.seconds(feed, runs[index])))
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of two sessions' seconds from the same rounds.

    The limits are order statistics of the ratios, whose ranks follow from the binomial distribution (Conover 1999,
    Practical Nonparametric Statistics, section 3.2).
    """
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    cut = _rank(len(ratios))
    return Ratio(statistics.median(ratios), ratios[cut], ratios[-1 - cut])


def _runs(session: Session, feed: Mapping[str, np.ndarray], slice: float) -> int:
    session.seconds(feed, _WARM)
    return max(1, round(slice / max(statistics.median(session.seconds(feed, _WARM)), 1e-7)))


def _rank(count: int) -> int:
    """How many of the smallest, and of the largest, of so many values the limits leave out."""
    below, rank = 0, -1
    while rank < count // 2 and (below + comb(count, rank + 1)) / 2**count <= (1 - _SURE) / 2:
        rank += 1
        below += comb(count, rank)
    return max(rank, 0)
