"""A sweep: what it searches, which networks are its fronts, and workers that come, go and die."""

from __future__ import annotations

import json
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from graftkit import augmenting
from graftkit.cli.sweep import _check_values, _parsed, _space, _written
from graftkit.cli.sweep import sweep as sweep_command
from graftkit.cli.swept import SWEPT
from graftkit.contracts import Observer
from graftkit.core.errors import PlanError, RunError, RuntimeMissingError, SourceError, TrainingError
from graftkit.core.records import EpochRecord, Measurement
from graftkit.core.search import Choice, Range, read_dimension
from graftkit.core.trials import SweepReport, TrialRecord, mean
from graftkit.fitting import FolderJournal
from graftkit.reporting import front_table, sweep_words
from graftkit.reporting.front_picture import front_svg
from graftkit.sweeping import RECORDS, Compression, Job, Sweep, SweepObserver, storage, sweep
from graftkit.sweeping.outcomes import completed, weighed
from graftkit.sweeping.sweep import _Worker

NET = """
from torch import nn


def build(hidden=4):
    if hidden == 13:
        raise MemoryError
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a|b", Choice(("a", "b"))),
        ("context:units=2,mode=add | full", Choice(("context:units=2,mode=add", "full"))),
        ("none|parameters=+10%", Choice(("none", "parameters=+10%"))),
        ("1..3", Range(1, 3, whole=True)),
        (" 4 .. 64 ", Range(4, 64, whole=True)),
        ("1e-3..1e-2", Range(1e-3, 1e-2, whole=False)),
        (".5..1.5", Range(0.5, 1.5, whole=False)),
        ("[4,6]|[8,12]", Choice(("[4,6]", "[8,12]"))),
    ],
)
def test_what_is_searched_is_read(text: str, found: object) -> None:
    assert read_dimension("x", text) == found


@pytest.mark.parametrize("text", ["", "a", "a|a", "a||b", "3..1", "2..2", "1..", "nan..1", "1..inf", "a..b"])
def test_what_leaves_nothing_to_search_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="--search x="):
        read_dimension("x", text)


def test_a_range_is_searched_by_its_logarithm_where_it_is_wide() -> None:
    assert Range(1e-3, 1e-2, whole=False).log and Range(1, 10, whole=True).log
    assert not Range(1, 9, whole=True).log and not Range(0, 10, whole=False).log and not Range(-5, 50, whole=True).log


@given(st.integers(-50, 50), st.integers(1, 100), st.integers(0, 9))
def test_a_trial_takes_what_lies_between_the_ends(low: int, width: int, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    whole = int(read_dimension("x", f"{low}..{low + width}").ask(study.ask(), "x"))
    assert low <= whole <= low + width
    real = float(read_dimension("y", f"{low}.0..{low + width}.0").ask(study.ask(), "y"))
    assert low - 0.01 <= real <= low + width + 0.01
    assert read_dimension("z", "a|b").ask(study.ask(), "z") in ("a", "b")


def measured(parameters: int, validation: float, macs: int = 0, test: float | None = 0.5) -> Measurement:
    return Measurement(validation, test, parameters, macs)


def report(*networks: tuple[Measurement, Measurement | None], cost: str = "parameters") -> SweepReport:
    trials = [
        TrialRecord(n, "complete", {"epochs": str(n)}, a, b, folder=f"t/{n}") for n, (a, b) in enumerate(networks)
    ]
    return SweepReport("net", "accuracy", cost, len(trials), tuple(trials))


networks = st.builds(measured, st.integers(1, 9), st.integers(0, 9).map(lambda n: n / 10), st.integers(1, 9))


@given(
    st.lists(st.tuples(networks, st.none() | networks), min_size=1, max_size=12),
    st.sampled_from(["parameters", "macs"]),
)
def test_a_front_holds_what_nothing_beats_at_its_size(
    found: list[tuple[Measurement, Measurement | None]], cost: str
) -> None:
    made = report(*found, cost=cost)
    for grafted in (True, False):
        points = [point.measured for point in made.points(grafted=grafted)]
        front = [point.measured for point in made.front(grafted=grafted)]
        assert bool(front) == bool(points)
        for one in points:
            beaten = any(made.price(f) <= made.price(one) and f.validation >= one.validation for f in front)
            assert beaten
        for cheap, dear in pairwise(front):
            assert made.price(cheap) < made.price(dear) and cheap.validation < dear.validation
    json.dumps(made.to_json(), allow_nan=False)


def test_a_front_is_drawn_for_one_network_and_for_sizes_far_apart() -> None:
    for made in (report((measured(5, 0.5), None)), report((measured(5, 0.5), measured(9_000, 0.7)), cost="parameters")):
        assert front_svg(made).startswith("<svg")


def words(made: SweepReport) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for sentence in sweep_words(made):
        console.print(sentence)
    console.print(front_table(made))
    console.file.close()
    return console.export_text()


def test_a_sweep_says_which_family_is_better_at_equal_size() -> None:
    won = words(report((measured(100, 0.9, test=0.8), measured(90, 0.85, test=0.82))))
    assert "scores +5.00 points on validation, -2.00 points on test" in won
    lost = words(report((measured(100, 0.9), measured(90, 0.95))))
    assert "nothing is won by dendrites at this size" in lost
    small = words(report((measured(80, 0.9), measured(90, 0.95))))
    assert "no network without them is as small" in small
    alone = words(report((measured(80, 0.9, test=None), None)))
    assert "there is no network without them to compare with" in alone
    failed = SweepReport("n", "accuracy", "macs", 2, (TrialRecord(0, "failed", {}, trouble="no such kind"),))
    assert "came to their end: 0 of 1" in words(failed) and "1 failed; trial 0: no such kind" in words(failed)


def test_the_model_as_given_is_on_the_plain_front_where_all_trials_began_with_it() -> None:
    ours, theirs = TrialRecord(0, "complete", {}, measured(9, 0.9), given=measured(5, 0.8)), measured(7, 0.5)
    made = SweepReport("n", "accuracy", "parameters", 2, (ours, TrialRecord(1, "complete", {}, given=measured(5, 0.8))))
    assert [point.measured for point in made.front(grafted=False)] == [measured(5, 0.8)]
    assert "the model as given" in words(made)
    mixed = SweepReport("n", "accuracy", "parameters", 2, (ours, TrialRecord(1, "complete", {}, given=theirs)))
    assert mixed.front(grafted=False) == []


def test_the_mean_of_several_seeds() -> None:
    assert mean([measured(10, 0.5, 4, 0.2), measured(13, 0.7, 4, 0.4)]) == Measurement(0.6, pytest.approx(0.3), 12, 4)
    assert mean([measured(10, 0.5, test=None), measured(10, 0.7)]).test is None


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network's source and its data."""
    (tmp_path / "sweep_nets.py").write_text(NET)
    rows = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
    np.savez(tmp_path / "rows.npz", x_train=rows, y_train=(rows[:, 0] * rows[:, 1] > 0).astype("int64"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "sweep_nets", raising=False)
    return tmp_path


LINE = ("sweep_nets:build", "--data", "rows.npz", "--cycles", "1", "--epochs", "1")
WIDTHS = ("arch.hidden=2..6",)


def wanted(
    shop: Path, trials: int = 2, *search: str, line: tuple[str, ...] = LINE, command: str = "augment", **more: object
) -> Sweep:
    """A sweep as the command line asks for it; over widths, where nothing else is said."""
    space = _space(SWEPT[command], search or WIDTHS, _parsed(SWEPT[command], line))

    def job(settings: Mapping[str, str], out: Path) -> Job:
        return SWEPT[command].job(_parsed(SWEPT[command], line, settings).params, out)

    return Sweep(job, space, shop / "out", trials, **more)  # type: ignore[arg-type]


def metrics(shop: Path, trial: TrialRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shop / "out" / trial.folder / "metrics.json").read_text())
    return found


def test_the_same_sweep_again_goes_on_and_at_its_end_trains_nothing(shop: Path) -> None:
    begun: list[int] = []
    seen = SweepObserver(on_begin=lambda trial, report: begun.append(trial.number))
    search = ("arch.hidden=20..60", "learning-rate=1e-3..1e-2")
    first = sweep(wanted(shop, 2, *search), seen)
    assert [trial.state for trial in first.trials] == ["complete"] * 2 and begun == [0, 1]
    told = json.loads((shop / "out" / RECORDS).read_text())
    for trial, plain in zip(first.trials, told["trials"], strict=True):
        run, hidden = metrics(shop, trial), int(trial.settings["arch.hidden"])
        assert (shop / "out" / plain["folder"] / "model.onnx").is_file()
        assert run["seeds"][0]["grafted"]["validation"] == plain["grafted"]["validation"]
        assert plain["control"]["parameters"] == 4 * hidden + hidden + 2 * hidden + 2 < plain["grafted"]["parameters"]
        assert run["settings"]["learning_rate"] == float(trial.settings["learning-rate"])
        assert trial.given is None  # whose weights were drawn
    more = sweep(wanted(shop, 3, *search), seen)
    assert begun == [0, 1, 2] and more.trials[:2] == first.trials
    assert sweep(wanted(shop, 3, *search), seen) == more and begun == [0, 1, 2]
    assert len({tuple(trial.settings.values()) for trial in more.trials}) == 3


def test_another_sweep_in_the_same_place_is_refused(shop: Path) -> None:
    sweep(wanted(shop, 1), SweepObserver())
    with pytest.raises(RunError, match=r"was begun otherwise \(search .* there, .* here\)"):
        sweep(wanted(shop, 1, "arch.hidden=2..7"), SweepObserver())
    with pytest.raises(RunError, match=r"begun otherwise \(cost"):
        sweep(wanted(shop, 1, cost="macs"), SweepObserver())
    with pytest.raises(RunError, match=r"begun otherwise \(epochs 1 there, 2 here"):
        sweep(wanted(shop, 1, line=(*LINE, "--epochs", "2")), SweepObserver())
    with pytest.raises(RunError, match="holds the trials of another sweep"):
        sweep(wanted(shop, 1, storage=f"sqlite:///{shop / 'another.db'}"), SweepObserver())
    other = f"sqlite:///{shop / 'other.db'}"
    (shop / "out" / "trials").rename(shop / "away")
    (shop / "out" / "trials").mkdir()
    sweep(wanted(shop, 1, "arch.hidden=70..900", storage=other), SweepObserver())
    shutil.copytree(shop / "away" / "0000", shop / "out" / "trials" / "0001")
    with pytest.raises(RunError, match="holds a run with other settings"):
        sweep(wanted(shop, 2, "arch.hidden=70..900", storage=other), SweepObserver())
    assert len(sweep(wanted(shop, 1), SweepObserver()).trials) == 1


def test_what_cannot_be_read_is_told_before_anything_is_made(shop: Path) -> None:
    (shop / "sweep_nets.py").write_text("build = 3\n")
    with pytest.raises(SourceError):
        sweep(wanted(shop), SweepObserver())
    assert not (shop / "out").exists()


def test_a_trial_that_fails_is_told_and_the_others_go_on(shop: Path) -> None:
    search = ("dendrites=full|full:never=1", "arch.hidden=4|13")
    found = sweep(wanted(shop, 12, *search), SweepObserver())
    by = {(t.settings["dendrites"], t.settings["arch.hidden"]): t for t in found.trials}
    assert len(found.trials) == 12 and len(by) == 4
    assert {key: trial.state for key, trial in by.items()} == {
        ("full", "4"): "complete",
        ("full", "13"): "failed",
        ("full:never=1", "4"): "failed",
        ("full:never=1", "13"): "failed",
    }
    assert "never" in by["full:never=1", "4"].trouble and "MemoryError" in by["full", "13"].trouble
    assert by["full", "13"].grafted is None
    done = [trial for trial in found.trials if trial.state == "complete"]
    runs = sum((shop / "out" / trial.folder).exists() for trial in done)
    assert len(done) > runs == 1  # the same settings are not trained again


def test_a_sweep_in_which_all_fails_gives_up_and_goes_on_when_asked_again(shop: Path) -> None:
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"no trial came to its end, and 5 failed, the last one so: .*never"):
            sweep(wanted(shop, 50, "dendrites=full:never=1|full:never=2"), SweepObserver())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_trial_that_was_stopped_goes_on_where_it_was(
    shop: Path, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderJournal, "always", True)
    line = (*LINE[:-2], "--margin", "0")
    seen: list[EpochRecord] = []

    def at_epoch(record: EpochRecord, of: int) -> None:
        seen.append(record)
        if len(seen) == 35:
            raise stop

    asked = wanted(shop, 2, "epochs=20|30", line=line)
    with pytest.raises((augmenting.Interrupted, SystemExit)):
        sweep(asked, SweepObserver(run=Observer(on_epoch=at_epoch)))
    found = sweep(asked, SweepObserver())
    assert sorted(trial.number for trial in found.trials) == [0, 2]  # the first one went on under another number
    assert all(trial.state == "complete" and trial.folder.endswith(f"{trial.number:04d}") for trial in found.trials)
    first = metrics(shop, min(found.trials, key=lambda trial: trial.number))
    whole = sweep(replace(asked, out=shop / "whole", trials=1), SweepObserver()).trials[0]
    again = json.loads((shop / "whole" / whole.folder / "metrics.json").read_text())
    assert first == again  # also the weights that were drawn at first


def test_what_a_worker_left_half_written_is_begun_anew(shop: Path) -> None:
    folder = shop / "out" / "trials" / "0000"

    def kill(trial: TrialRecord, report: SweepReport) -> None:
        folder.mkdir(parents=True)
        (folder / ".request.json.99.tmp").write_text("{")
        raise SystemExit

    with pytest.raises(SystemExit):
        sweep(wanted(shop, 1), SweepObserver(on_begin=kill))
    assert [trial.state for trial in sweep(wanted(shop, 1), SweepObserver()).trials] == ["complete"]
    assert not (folder / ".request.json.99.tmp").exists()


def test_strangers_files_are_not_touched(shop: Path) -> None:
    folder = shop / "out" / "trials" / "0000"

    def put(trial: TrialRecord, report: SweepReport) -> None:
        folder.mkdir(parents=True)
        (folder / "mine.txt").write_text("mine")

    with pytest.raises(RunError, match=r"holds files that no run makes \(mine.txt\)"):
        sweep(wanted(shop, 1), SweepObserver(on_begin=put))
    assert (folder / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("lived", [True, False])
def test_a_worker_that_died_leaves_its_trial_to_the_others(
    shop: Path, monkeypatch: pytest.MonkeyPatch, lived: bool
) -> None:
    monkeypatch.setattr(storage, "BEAT", 1)
    monkeypatch.setattr(storage, "DEAD", 2)
    asked, waits = wanted(shop), []
    (shop / "out").mkdir()
    dead = storage.opened(asked.url, asked.study, asked.asked(None))
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = dead.ask()
    trial.suggest_int("arch.hidden", 2, 6)
    if lived:  # until after its first sign of life
        trial.set_user_attr("settings", {"arch.hidden": str(trial.params["arch.hidden"])})
        dead._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    begun = time.monotonic()
    found = sweep(asked, SweepObserver(on_wait=lambda report: waits.append(len(report.trials))))
    assert [t.state for t in found.trials] == ["complete"] * 2 and {t.number for t in found.trials} == {0, 1}
    (taken,) = (t for t in found.trials if t.number == 0)
    assert taken.settings == {"arch.hidden": str(trial.params["arch.hidden"])}
    assert time.monotonic() - begun > 2


def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_whoever_took_it(shop: Path) -> None:
    asked = wanted(shop, 1)

    def take(trial: TrialRecord, report: SweepReport) -> None:
        other = storage.opened(asked.url, asked.study, asked.asked(None))
        storage.again(other, other.tell(trial.number, state=optuna.trial.TrialState.FAIL))

    ends: list[int] = []

    def end(trial: TrialRecord, report: SweepReport) -> None:
        ends.append(trial.number)
        if len(ends) == 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                take(trial, report)

    found = sweep(asked, SweepObserver(on_end=end))
    assert [trial.state for trial in found.trials] == ["complete"] and ends == [0, 0]


def test_the_last_trial_is_not_begun_twice(shop: Path) -> None:
    asked, begun = wanted(shop, 1), []

    def another(trial: TrialRecord, report: SweepReport) -> None:
        begun.append(trial.number)
        if len(begun) == 1:  # a worker that looked just before
            study = storage.opened(asked.url, asked.study, asked.asked(None))
            _Worker(asked, SweepObserver(on_begin=another), study, "augment")._one()

    found = sweep(asked, SweepObserver(on_begin=another))
    assert begun == [0] and len(found.trials) == 1


def test_without_a_control_or_a_dendrite_nothing_is_claimed(shop: Path) -> None:
    found = sweep(wanted(shop, 1, line=(*LINE, "--no-control", "--seeds", "2")), SweepObserver())
    assert found.trials[0].control is None and "there is no network without them" in words(found)
    assert found.trials[0].grafted is not None
    runs = [seed["grafted"]["validation"] for seed in metrics(shop, found.trials[0])["seeds"]]
    assert len(runs) == 2 and found.trials[0].grafted.validation == pytest.approx(sum(runs) / 2)
    shutil.rmtree(shop / "out")
    bare = sweep(wanted(shop, 1, line=(*LINE, "--max-parameters", "+1%")), SweepObserver())
    assert bare.trials[0].grafted is None and bare.trials[0].control is not None
    assert bare.front(grafted=True) == [] and "With dendrites" not in words(bare)


def test_flags_and_options_that_are_left_out(shop: Path) -> None:
    swept = SWEPT["augment"]
    assert _written(swept, "control", "no") == ["--no-control"] and _written(swept, "control", "yes") == ["--control"]
    assert _written(swept, "freeze-base", "yes") == ["--freeze-base"] and _written(swept, "freeze-base", "no") == []
    assert _written(swept, "max-parameters", "none") == [] and _written(swept, "epochs", "3") == ["--epochs", "3"]
    assert _written(swept, "arch.hidden", "[4,6]") == ["--arch-args", "hidden=[4,6]"]
    line = ("m.pt", "--budget", "parameters=+10%")
    assert set(_space(swept, (), _parsed(swept, line))) == {"dendrites", "learning-rate"}
    assert set(_space(swept, (), _parsed(swept, ("m.pt", "--learning-rate", "1e-3")))) == {"dendrites", "cycles"}


SMALL = ("sweep_nets:build", "--arch-args", "hidden=20", "--data", "rows.npz", "--epochs", "1", "--steps", "1",
         "--sparsity", "0", "--no-scratch")  # fmt: skip


def test_a_sweep_of_compressions(shop: Path) -> None:
    begun: list[int] = []
    seen = SweepObserver(on_begin=lambda trial, report: begun.append(trial.number))
    asked = wanted(shop, 3, "keep=0.3|0.5|0.9", "distil=0..0.5", line=SMALL, command="compress")
    report = sweep(asked, seen)
    assert report.command == "compress" and [trial.state for trial in report.trials] == ["complete"] * 3
    for trial in report.trials:
        run = metrics(shop, trial)
        assert (shop / "out" / trial.folder / "model.onnx").is_file() and trial.control is not None
        pruned = run["sizes"][0]["pruned"]
        assert trial.control.validation == pruned["validation"] and trial.given is None
        assert trial.control.parameters == pruned["parameters"] <= float(trial.settings["keep"]) * 142
        assert (trial.grafted is None) == (run["sizes"][0]["grafted"] is None)
        assert run["settings"]["distil"] == float(trial.settings["distil"])
    assert sweep(asked, seen) == report and begun == [0, 1, 2]
    told = words(report)
    assert "came to their end: 3 of 3" in told and "augment" not in told
    with pytest.raises(RunError, match=r"begun otherwise \(steps 1 there, 2 here"):
        sweep(wanted(shop, 3, "keep=0.3|0.5|0.9", "distil=0..0.5", line=(*SMALL, "--steps", "2"), command="compress"),
              seen)  # fmt: skip
    with pytest.raises(RunError, match=r"begun otherwise \(sparsity 0.0 there, 0.5 here"):
        sweep(wanted(shop, 3, "keep=0.3|0.5|0.9", "distil=0..0.5", line=(*SMALL, "--sparsity", "0.5"),
                     command="compress"), seen)  # fmt: skip
    with pytest.raises(RunError, match=r"command 'compress' there, None here"):
        sweep(wanted(shop, 3), seen)


def row(parameters: int, validation: float) -> dict[str, Any]:
    return {"name": "pruned", "validation": validation, "test": None, "parameters": parameters, "macs": 7, "epochs": 3}


def size(pruned: float, grafted: float | None, amount: int = 50) -> dict[str, Any]:
    better = grafted is not None and grafted > pruned
    return {"pruned": row(amount, pruned), "grafted": None if grafted is None else row(amount - 1, grafted),
            "chosen": "grafted" if better else "pruned", "amount": amount}  # fmt: skip


def found(shop: Path, sizes: list[dict[str, Any]], seeds: list[int], *line: str) -> tuple[TrialRecord, Measurement]:
    """What a trial is said to be, and by what it is weighed, from a run's metrics."""
    job = SWEPT["compress"].job(_parsed(SWEPT["compress"], (*SMALL, *line)).params, shop)
    told = {"name": "n", "metric": "accuracy", "given": row(100, 0.9), "sizes": sizes, "seeds": seeds, "shipped": 0}
    one = {**job.found(told), "trained": True}
    ended = completed(TrialRecord(0, "running", {}), one)
    return ended, weighed(ended, one)


def test_seeds_that_grafted_and_seeds_that_did_not(shop: Path) -> None:
    trial, best = found(shop, [size(0.8, None), size(0.6, 0.7)], [0, 1])
    assert trial.grafted is not None and trial.control is not None and trial.shipped == "pruned"
    assert trial.grafted.validation == pytest.approx(0.75) and trial.control.validation == pytest.approx(0.7)
    assert best == trial.grafted
    trial, best = found(shop, [size(0.8, 0.7), size(0.6, 0.5)], [0, 1])
    assert trial.grafted is not None and trial.grafted.validation == pytest.approx(0.6)
    assert best == trial.control and best.validation == pytest.approx(0.7)
    trial, best = found(shop, [size(0.8, None)], [0])
    assert trial.grafted is None and best == trial.control


def test_of_sizes_within_a_loss_each_seed_counts_with_its_smallest(shop: Path) -> None:
    line = ("--max-loss", "10", "--target", "parameters")
    sizes = [
        size(0.9 - 0.1, None, 40),
        size(0.89, None, 60),
        size(0.85, None, 50),
        size(0.7, None, 30),
        size(0.88, None, 70),
        size(0.5, 0.9, 65),
    ]
    trial, best = found(shop, sizes, [0, 0, 0, 0, 1, 1], *line)
    assert trial.control is not None and trial.control.parameters == round((40 + 65) / 2)
    assert trial.grafted is not None and trial.grafted.parameters == round((40 + 64) / 2)
    assert best == trial.grafted and best.validation == pytest.approx((0.8 + 0.9) / 2)


def test_a_compression_that_was_stopped_goes_on(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(record: EpochRecord, of: int) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    asked = wanted(shop, 1, "keep=0.3|0.5", line=(*SMALL[:-2], "1e-4", "--epochs", "3"), command="compress")
    with pytest.raises((KeyboardInterrupt, augmenting.Interrupted)):
        sweep(asked, SweepObserver(run=Observer(on_epoch=stop)))
    resumed: list[Path] = []
    go_on = Compression.go_on
    monkeypatch.setattr(Compression, "go_on", lambda job, seen: [resumed.append(job.request.out), go_on(job, seen)])
    (trial,) = sweep(asked, SweepObserver()).trials
    assert trial.state == "complete" and trial.folder == "trials/0000" and resumed == [shop / "out/trials/0000"]


def test_values_that_no_run_takes_are_told_before_any_is_made(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sweep_nets:build", "--compress", "--data", "rows.npz", "--out", "refused"]
    with pytest.raises(PlanError, match="more than 100% cannot be kept"):
        sweep_command.main([*line, "--search", "keep=30%|300%"], standalone_mode=False)
    with pytest.raises(PlanError, match="--keep"):
        sweep_command.main([*line, "--search", "keep=30%|some"], standalone_mode=False)
    assert not (shop / "refused").exists() and capsys.readouterr().out == ""


def test_an_option_may_be_left_out_where_it_has_no_default() -> None:
    for command, text in (("augment", "max-parameters=none|+10%"), ("compress", "sparsity=none|0.001")):
        swept = SWEPT[command]
        _check_values(swept, ("m.pt",), _space(swept, (text,), _parsed(swept, ("m.pt",))))
    swept = SWEPT["augment"]
    with pytest.raises(click.UsageError, match="without it there is its default"):
        _check_values(swept, ("m.pt",), _space(swept, ("epochs=none|3",), _parsed(swept, ("m.pt",))))


def test_without_its_library_no_sweep_begins(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(RuntimeMissingError, match="graftkit\\[compress\\]"):
        sweep(wanted(shop, 1, "keep=0.3|0.5", line=SMALL, command="compress"), SweepObserver())
    assert not (shop / "out").exists()


def test_what_is_searched_of_a_compression() -> None:
    swept = SWEPT["compress"]
    everything = {"keep", "importance", "distil", "learning-rate"}
    assert set(_space(swept, (), _parsed(swept, ("m.pt",)))) == everything
    for line in (("--keep", "30%"), ("--target", "macs=50%"), ("--target", "macs", "--max-loss", "1")):
        assert set(_space(swept, (), _parsed(swept, ("m.pt", *line)))) == everything - {"keep"}
    assert _written(swept, "dendrites", "no") == ["--no-dendrites"] and _written(swept, "keep", "0.2") == [
        "--keep",
        "0.2",
    ]


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("nonsense", RunError, "storage given with --storage cannot be used"),
        ("sqlite:////nowhere/at/all.db", RunError, "unable to open database file"),
        ("postgresql+psycopg2://me:secret@127.0.0.1:1/x", (RunError, RuntimeMissingError), "postgresql"),
    ],
)
def test_a_storage_that_is_none_is_told_without_its_password(
    shop: Path, url: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        sweep(wanted(shop, 1, storage=url), SweepObserver())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m.pt --search epoch=1|2", "augment has no option --epoch. Did you mean epochs"),
        ("m.pt --search epochs", "is not OPTION=VALUES"),
        ("m.pt --search epochs=3", "give several different values"),
        ("m.pt --search epochs=3..1", "ends before it begins"),
        ("m.pt --search epochs=few|many", "'few' is not a valid integer"),
        ("m.pt --search learning-rate=0..1e-2", "0 is not in the range"),
        ("m.pt --search epochs=1|2 --search epochs=1|3", "gives epochs twice"),
        ("m.pt --search epochs=1|2 --epochs 3", "contradict each other"),
        ("m.pt --search arch.width=1|2 --arch-args width=3", "contradict each other"),
        ("m.pt --search out=a|b", "out is the same in all trials"),
        ("m.pt --search batch-size=16..1e2", "is not a valid integer"),
        ("m.pt --search freeze-base=true|false", "it is a flag, so say freeze-base=yes|no"),
        ("m.pt --search dendrites=none|full", "none is no value of it"),
        ("m.pt --search metric=accuracy|r2", "metric is the same in all trials"),
        ("m.pt --search cycles=1..2 --budget macs=+5%", "--budget is spent in one cycle"),
        ("m.pt --cache-memory 1GB", "--cache-memory is for"),
        ("m.pt --force", "--force is not for the runs of a sweep"),
        ("--search epochs=1|2", "Missing argument 'MODEL"),
        ("--epochs 3", "Missing argument 'MODEL'"),
        ("m.pt --epoch 3", "No such option '--epoch'"),
        ("m.pt --trials 0", "0 is not in the range"),
        ("m.pt --compress --front", "--front is not for the runs of a sweep"),
        ("m.pt --compress --search front=yes|no", "front is the same in all trials"),
        ("m.pt --compress --search cycles=1|2", "compress has no option --cycles"),
        ("m.pt --compress --search dendrites=full|lowrank", "it is a flag, so say dendrites=yes|no"),
        ("m.pt --compress --search keep=20%|40% --target macs=50%", "--keep and --target both say how small"),
        ("m.pt --compress --search keep=20%|40% --keep 30%", "contradict each other"),
        ("m.pt --compress --search steps=2..4 --max-loss 1", "takes one step a size"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(line: str, said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        sweep_command.main(line.split(), standalone_mode=False)
    assert said in caught.value.format_message()
