"""Every growth schedule ends, is pure, and keeps its promises for any history."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftkit.contracts import GrowthSchedule, Phase
from graftkit.core.errors import PlanError
from graftkit.core.records import PhaseRecord
from graftkit.rules import RULES
from graftkit.schedules import SCHEDULES, Cycles, Plateau, Replay, Rounds, When

PHASES: tuple[tuple[Literal["neuron", "dendrite"], ...], ...] = tuple({rule.phases: None for rule in RULES.values()})
schedules = {
    "cycles": st.builds(Cycles, st.integers(1, 50), st.integers(1, 6), st.sampled_from(PHASES)),
    "plateau": st.builds(
        Plateau,
        patience=st.integers(1, 9),
        lookback=st.integers(1, 4),
        dendrites=st.integers(0, 6),
        tries=st.integers(1, 3),
    ),
    "replay": st.builds(Replay, st.lists(st.integers(1, 50), max_size=8).map(tuple)),
    "rounds": st.builds(Rounds, epochs=st.integers(1, 50), dendrites=st.integers(0, 6), tries=st.integers(1, 3)),
    "when": st.builds(When, grow=st.just(lambda scores: len(scores) > 2), dendrites=st.integers(0, 6)),
}


def test_every_schedule_is_tested_here() -> None:
    assert set(schedules) == set(SCHEDULES)
    assert all(kind.name == name for name, kind in SCHEDULES.items())  # type: ignore[attr-defined]


def record(phase: Phase, *, improved: bool, ends: bool) -> PhaseRecord:
    note = "a reason" if ends else ""
    return PhaseRecord("grafted", 0, phase.cycle, phase.kind, phase.epochs, 0.5, improved, 10, 1, note, ends)


def played(schedule: GrowthSchedule, fates: list[tuple[bool, bool]]) -> list[tuple[Phase, PhaseRecord]]:
    """The phases a schedule gives, each with what came of it, until it ends or the fates are used up."""
    history: list[PhaseRecord] = []
    phases: list[Phase] = []
    for improved, ends in fates:
        phase = schedule.next(history)
        assert schedule.next(tuple(history)) == phase  # asked twice, it says the same
        if phase is None:
            break
        phases.append(phase)
        history.append(record(phase, improved=improved, ends=ends))
    return list(zip(phases, history, strict=True))


fates = st.lists(st.tuples(st.booleans(), st.sampled_from([False, False, False, True])), min_size=1, max_size=40)


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data(), always=fates)
def test_it_ends_and_says_why(name: str, data: st.DataObject, always: list[tuple[bool, bool]]) -> None:
    schedule = data.draw(schedules[name])
    steps = played(schedule, always + [(True, False)] * 60)
    history = [step[1] for step in steps]
    assert len(steps) < 60 and schedule.next(history) is None
    if history:
        assert schedule.why(history).strip()
        assert not any(record.ends_growth for record in history[:-1])
        if history[-1].ends_growth:
            assert schedule.why(history) == "a reason"
    assert all(phase.epochs >= 1 and phase.cycle >= 0 for phase, _ in steps)


@given(schedule=schedules["cycles"], always=fates)
def test_cycles_never_grows_more_than_it_may(schedule: Cycles, always: list[tuple[bool, bool]]) -> None:
    steps = played(schedule, always + [(True, False)] * 60)
    grown = [phase for phase, _ in steps if phase.grow]
    assert [phase.cycle for phase in grown] == list(range(1, len(grown) + 1)) and 1 <= len(grown) <= schedule.cycles
    for index, (phase, _) in enumerate(steps):
        place = index % len(schedule.phases)
        assert phase.kind == schedule.phases[place] and phase.grow is (place == 0)
        assert phase.cycle == 1 + index // len(schedule.phases) and phase.epochs == schedule.epochs
    for _, record in steps[:-1]:
        assert record.improved or record.phase != schedule.phases[-1]


def test_cycles_says_which_cycle_was_too_many() -> None:
    schedule = Cycles(epochs=3, cycles=2)
    first = played(schedule, [(False, False)])
    assert schedule.why([first[0][1]]) == "cycle 1 did not improve validation"
    both = played(schedule, [(True, False)] * 5)
    assert len(both) == 2 and schedule.why([step[1] for step in both]) == "all 2 cycles were done"
    assert schedule.why([both[0][1]]) == ""


@given(schedule=schedules["replay"])
def test_replay_gives_the_very_lengths_and_grows_nothing(schedule: Replay) -> None:
    steps = played(schedule, [(False, False)] * 20)
    assert tuple(phase.epochs for phase, _ in steps) == schedule.lengths
    assert all(phase.kind == "neuron" and not phase.grow for phase, _ in steps)


@pytest.mark.parametrize(("epochs", "cycles"), [(0, 1), (1, 0), (-1, 2)])
def test_nothing_to_do_is_refused(epochs: int, cycles: int) -> None:
    with pytest.raises(PlanError, match="must be 1 or more"):
        Cycles(epochs=epochs, cycles=cycles)


@given(schedule=st.one_of(schedules["plateau"], schedules["rounds"], schedules["when"]), always=fates)
def test_rounds_begin_with_the_network_as_it_is(schedule: Rounds, always: list[tuple[bool, bool]]) -> None:
    steps = played(schedule, always + [(True, False)] * 60)
    assert [phase.cycle for phase, _ in steps] == list(range(len(steps))) and len(steps) <= 1 + schedule.dendrites
    assert [phase.grow for phase, _ in steps] == [False, *[True] * (len(steps) - 1)]
    grown = [record.improved for _, record in steps[1:]]
    runs_of_failures = [grown[max(0, end - schedule.tries) : end] for end in range(schedule.tries, len(grown))]
    assert all(any(run) for run in runs_of_failures)


def test_rounds_say_what_was_too_much() -> None:
    history = [record(Phase("neuron", cycle, 5, grow=cycle > 0), improved=not cycle, ends=False) for cycle in range(3)]
    assert Rounds(tries=1).why(history[:2]) == "cycle 1 did not improve validation"
    assert Rounds(tries=2).why(history[:2]) == "" and Rounds(tries=1).why(history[:1]) == ""
    assert Rounds(tries=2).why(history) == "cycles 1 to 2 did not improve validation"
    assert Rounds(dendrites=0).why(history[:1]) == "dendrites were grafted 0 times, as often as they may be"


def ends_at(schedule: GrowthSchedule, scores: list[float]) -> int | None:
    """After how many epochs a phase with these scores is over."""
    phase = Phase("neuron", 0, 100, grow=False)
    return next((n for n in range(1, len(scores) + 1) if schedule.over(phase, scores[:n])), None)


def test_a_plateau_by_hand() -> None:
    scores = [0.5, 0.6, 0.55, 0.6, 0.6, 0.61, 0.61, 0.61, 0.61]
    assert ends_at(Plateau(patience=3), scores) == 5  # 0.6 again is not better
    assert ends_at(Plateau(patience=4), scores) is None  # 0.61 is better, and then there are three more
    assert ends_at(Plateau(patience=2, absolute=0.1), [0.5, 0.55, 0.6, 0.7]) == 3
    assert ends_at(Plateau(patience=2, relative=0.5), [0.5, 0.7, 0.76, 0.9, 1.1]) == 5  # best 0.5, then 0.76
    assert ends_at(Plateau(patience=2, relative=0.1), [-1.0, -0.95, -0.9, -0.8]) == 3  # of a loss, by its size
    assert ends_at(Plateau(patience=1, lookback=2), [0.0, 1.0, 0.0, 1.0, 0.5]) == 3  # means 0, .5, .5
    assert ends_at(When(grow=lambda scores: sum(scores) > 1), [0.4, 0.5, 0.3, 0.1]) == 3
    assert ends_at(Rounds(epochs=2), [0.1] * 9) is None  # its length is the phase's


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=40), patience=st.integers(1, 5), lookback=st.integers(1, 4)
)
def test_a_plateau_never_comes_while_scores_rise(scores: list[float], patience: int, lookback: int) -> None:
    rising = sorted(set(scores))
    assert ends_at(Plateau(patience=patience, lookback=lookback), rising) is None
    level = [0.5] * (patience + 1)
    assert ends_at(Plateau(patience=patience, lookback=lookback), level) == patience + 1


@pytest.mark.parametrize(
    "asked", [{"patience": 0}, {"lookback": 0}, {"tries": 0}, {"epochs": 0}, {"dendrites": -1}, {"relative": -0.1}]
)
def test_a_plateau_that_cannot_be_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=f"{next(iter(asked))} must be"):
        Plateau(**asked)  # type: ignore[arg-type]


def test_schedules_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Cycles(epochs=1, cycles=1).epochs = 2  # type: ignore[misc]
    assert hash(Replay((1, 2))) == hash(Replay((1, 2)))
