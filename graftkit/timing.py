"""Times sessions in turns, so that what else a machine does falls on all of them, and compares them pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from graftkit.contracts import Feed, Session
from graftkit.core.errors import ExportError, MismatchError
from graftkit.core.ratio import Ratio

SLICE = 2e-3  # seconds of runs at a time: long against the clock's grain, short against what else a machine does
_WARM = 3  # runs that are not counted
_SURE = 0.99
_OPENINGS = 3  # where a session's memory lies decides about some percent


@dataclass(frozen=True, eq=False)
class Mixed:
    """A session whose run is one of each of several batches, one after the other."""

    session: Session
    feeds: Sequence[Feed]

    def __call__(self, inputs: Feed) -> list[np.ndarray]:
        return self.session(inputs)

    def seconds(self, inputs: Feed, times: int) -> list[float]:
        """Of all batches together, so many times; `inputs` is not looked at."""
        return [sum(self.session.seconds(feed, 1)[0] for feed in self.feeds) for _ in range(times)]

    def close(self) -> None:
        self.session.close()


def timed(
    files: Mapping[str, Callable[[], Session]], feed: Mapping[str, np.ndarray], *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """The seconds of one run of each file, by name, and what is wrong with those that do not load or run.

    Args:
        files: what opens each; each is opened anew some times.
        feed: what all of them are given.
        rounds: turns of each in all, at least.
    """
    seconds: dict[str, list[float]] = {name: [] for name in files}
    troubles: dict[str, str] = {}
    for opening in range(_OPENINGS):
        names = [name for name in files if name not in troubles]
        sessions: dict[str, Session] = {}
        try:
            for name in names[opening % max(len(names), 1) :] + names[: opening % max(len(names), 1)]:
                try:
                    sessions[name] = files[name]()
                    sessions[name](feed)
                except (ExportError, MismatchError) as error:
                    troubles[name] = str(error)
            running = [name for name in sessions if name not in troubles]
            turns = in_turns([sessions[n] for n in running], [feed] * len(running), rounds=-(-rounds // _OPENINGS))
            for name, found in zip(running, turns, strict=True):
                seconds[name] += found
        finally:
            for session in sessions.values():
                session.close()
    return {name: found for name, found in seconds.items() if name not in troubles}, troubles


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
    ratios = sorted(a / max(b, 1e-9) for a, b in zip(ours, theirs, strict=True))  # a browser's clock has a coarse grain
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
