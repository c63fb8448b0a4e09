"""A sweep: what it searches, which networks are its fronts, and workers that come, go and die."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from graftkit import augmenting
from graftkit.cli.augment import augment, request_from
from graftkit.cli.sweep import sweep as command
from graftkit.contracts import Observer
from graftkit.core.errors import PlanError, RunError, RuntimeMissingError, SourceError, TrainingError
from graftkit.core.records import Measurement
from graftkit.core.search import Choice, Range, read_dimension
from graftkit.core.trials import SweepReport, TrialRecord, mean
from graftkit.reporting import front_svg, front_table, sweep_words
from graftkit.request import Request
from graftkit.sweeping import RECORDS, Sweep, SweepObserver, storage, sweep

NET = """
from torch import nn


def build(hidden=4):
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
    assert "0 of 2 trials" in words(failed) and "1 failed, the last one so: no such kind" in words(failed)


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


def wanted(shop: Path, trials: int = 2, search: Mapping[str, str] | None = None, **more: object) -> Sweep:
    """A sweep over widths, or whatever is said, with runs of one epoch."""
    space = {name: read_dimension(name, text) for name, text in (search or {"width": "2..6"}).items()}

    def request(settings: Mapping[str, str], out: Path) -> Request:
        line = ["sweep_nets:build", "--data", "rows.npz", "--cycles", "1", "--epochs", settings.get("epochs", "1")]
        line += ["--arch-args", f"hidden={settings.get('width', 4)}"]
        line += ["--dendrites", settings["kind"]] if "kind" in settings else []
        return request_from(augment.make_context("augment", line).params, out)

    return Sweep(request, space, shop / "out", trials, **more)  # type: ignore[arg-type]


def test_the_same_sweep_again_goes_on_and_at_its_end_trains_nothing(shop: Path) -> None:
    begun: list[int] = []
    seen = SweepObserver(on_begin=lambda trial, report: begun.append(trial.number))
    first = sweep(wanted(shop), seen)
    assert [trial.state for trial in first.trials] == ["complete"] * 2 and begun == [0, 1]
    told = json.loads((shop / "out" / RECORDS).read_text())
    for trial in told["trials"]:
        model = Path(trial["folder"]) / "model.onnx"
        metrics = json.loads((model.parent / "metrics.json").read_text())
        assert model.is_file() and metrics["seeds"][0]["grafted"]["validation"] == trial["grafted"]["validation"]
        assert (
            str(metrics["settings"]["epochs"]) == "1"
            and trial["control"]["parameters"] == metrics["baseline"]["parameters"]
        )
    more = sweep(wanted(shop, trials=3), seen)
    assert begun == [0, 1, 2] and more.trials[:2] == first.trials
    assert sweep(wanted(shop, trials=3), seen) == more and begun == [0, 1, 2]


def test_another_sweep_in_the_same_place_is_refused(shop: Path) -> None:
    sweep(wanted(shop, trials=1), SweepObserver())
    with pytest.raises(RunError, match=r"was begun otherwise \(search .* there, .* here\)"):
        sweep(wanted(shop, trials=1, search={"width": "2..7"}), SweepObserver())
    with pytest.raises(RunError, match=r"begun otherwise \(cost"):
        sweep(wanted(shop, trials=1, cost="macs"), SweepObserver())
    with pytest.raises(RunError, match="holds the trials of another sweep"):
        sweep(wanted(shop, trials=1, storage=f"sqlite:///{shop / 'other.db'}"), SweepObserver())
    assert len(sweep(wanted(shop, trials=1), SweepObserver()).trials) == 1


def test_what_cannot_be_read_is_told_before_anything_is_made(shop: Path) -> None:
    (shop / "sweep_nets.py").write_text("build = 3\n")
    with pytest.raises(SourceError):
        sweep(wanted(shop), SweepObserver())
    assert not (shop / "out").exists()


def test_a_trial_that_fails_is_told_and_the_others_go_on(shop: Path) -> None:
    search = {"kind": "full|full:never=1"}
    found = sweep(wanted(shop, trials=8, search=search), SweepObserver())
    states = {trial.settings["kind"]: trial.state for trial in found.trials}
    assert states == {"full": "complete", "full:never=1": "failed"} and len(found.trials) == 8
    assert all("never" in trial.trouble for trial in found.trials if trial.state == "failed")


def test_a_sweep_in_which_all_fails_gives_up(shop: Path) -> None:
    with pytest.raises(TrainingError, match=r"no trial came to its end, and 5 failed, the last one so: .*never"):
        sweep(wanted(shop, trials=50, search={"kind": "full:never=1|full:never=2"}), SweepObserver())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_trial_that_was_stopped_goes_on_where_it_was(shop: Path, stop: type[BaseException]) -> None:
    def at_epoch(record: object, of: int) -> None:
        raise stop

    asked = wanted(shop, trials=2, search={"epochs": "30|40"})
    with pytest.raises((augmenting.Interrupted, SystemExit)):
        sweep(asked, SweepObserver(run=Observer(on_epoch=at_epoch)))
    folder = shop / "out" / "trials" / "0000"
    begun = json.loads((folder / "request.json").read_text())["settings"]["epochs"] if folder.exists() else None
    found = sweep(asked, SweepObserver())
    assert [trial.state for trial in found.trials] == ["complete"] * 2
    taken_up = next(trial for trial in found.trials if trial.folder.endswith("0000"))
    assert taken_up.number == 1
    if begun is not None:
        assert taken_up.settings == {"epochs": str(begun)}


def test_a_worker_that_died_leaves_its_trial_to_the_others(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BEAT", 1)
    monkeypatch.setattr(storage, "_DEAD", 2)
    asked, waits = wanted(shop, trials=2), []
    (shop / "out").mkdir()
    dead = storage.opened(asked.url, asked.study, asked.asked(), 0)
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = dead.ask()
    trial.suggest_int("width", 2, 6)
    dead._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    begun = time.monotonic()
    found = sweep(asked, SweepObserver(on_wait=lambda report: waits.append(len(report.trials))))
    assert len(found.trials) == 2 and all(trial.state == "complete" for trial in found.trials)
    assert trial.params["width"] in {int(trial.settings["width"]) for trial in found.trials}
    assert waits in ([2], []) and time.monotonic() - begun > 2


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
        sweep(wanted(shop, storage=url), SweepObserver())
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
        ("m.pt --force", "--force is not for the runs of a sweep"),
        ("--search epochs=1|2", "Missing argument 'MODEL"),
        ("--epochs 3", "Missing argument 'MODEL'"),
        ("m.pt --epoch 3", "No such option '--epoch'"),
        ("m.pt --trials 0", "0 is not in the range"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(line: str, said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        command.main(line.split(), standalone_mode=False)
    assert said in caught.value.format_message()
