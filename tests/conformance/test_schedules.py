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
from graftkit.schedules import SCHEDULES, Cycles, Replay

PHASES: tuple[tuple[Literal["neuron", "dendrite"], ...], ...] = tuple({rule.phases: None for rule in RULES.values()})
schedules = {
    "cycles": st.builds(Cycles, st.integers(1, 50), st.integers(1, 6), st.sampled_from(PHASES)),
    "replay": st.builds(Replay, st.lists(st.integers(1, 50), max_size=8).map(tuple)),
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
    assert all(phase.epochs >= 1 and phase.cycle >= 1 for phase, _ in steps)


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


def test_schedules_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Cycles(epochs=1, cycles=1).epochs = 2  # type: ignore[misc]
    assert hash(Replay((1, 2))) == hash(Replay((1, 2)))
