"""A sweep: one run of `augment` a trial, each with other settings, until there are as many as were asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit import api, augmenting, sources
from graftkit.contracts import Observer
from graftkit.core.atomic import write_text
from graftkit.core.errors import DataError, GraftkitError, RunError, SourceError, TrainingError
from graftkit.core.records import Measurement
from graftkit.core.search import Space
from graftkit.core.trials import SweepReport, TrialRecord, mean
from graftkit.reopening import input_shape
from graftkit.reporting import front_svg
from graftkit.request import Request
from graftkit.run_folder import METRICS, REQUEST, RunFolder
from graftkit.sweeping import storage

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

TRIALS, RECORDS, FRONT, DATABASE = "trials", "sweep.json", "front.svg", "sweep.db"
_HOPELESS = 5  # so many trials failed and none came to an end: the rest would fail, too
_WAIT = 2.0  # seconds between looks at what other workers do
_FOUND, _TROUBLE, _SETTINGS = "found", "trouble", "settings"


@dataclass(frozen=True)
class Sweep:
    """What to search.

    Attributes:
        request: from what a trial sets, by option, and the folder of its run to what `augment` is asked.
        space: what may be set.
        out: folder of the sweep: runs under `trials/`, the table in `sweep.json`, the picture in `front.svg`.
        trials: how many, those of other workers and earlier sessions included.
        storage: URL of a database; None for a SQLite file in `out`.
        study: the sweep's name in the storage.
        cost: what accuracy is weighed against, "parameters" or "macs".
        seed: of the sampler.
    """

    request: Callable[[Mapping[str, str], Path], Request]
    space: Space
    out: Path
    trials: int
    storage: str | None = None
    study: str = "sweep"
    cost: str = "parameters"
    seed: int = 0

    @property
    def url(self) -> str:
        """Of the storage."""
        return self.storage or f"sqlite:///{(self.out / DATABASE).resolve()}"

    def first(self) -> Request:
        """With the first of everything that may be set."""
        return self.request({name: dimension.ends()[0] for name, dimension in self.space.items()}, self.out)

    def asked(self) -> dict[str, Any]:
        """What has to be the same for all workers, JSON-able."""
        told = self.first().to_json()
        told = {name: value for name, value in told.items() if name not in ("told", "versions")}
        settings = told.pop("settings")
        told |= {**settings.pop("recipe"), **settings}
        space = {name: [type(value).__name__, asdict(value)] for name, value in self.space.items()}
        plain: dict[str, Any] = json.loads(json.dumps({**told, "search": space, "cost": self.cost}))
        return plain


@dataclass(frozen=True)
class SweepObserver:
    """Where a sweep's progress goes; `run` sees what goes on within a trial."""

    on_begin: Callable[[TrialRecord, SweepReport], None] = field(default=lambda trial, report: None)
    on_end: Callable[[TrialRecord, SweepReport], None] = field(default=lambda trial, report: None)
    on_wait: Callable[[SweepReport], None] = field(default=lambda report: None)
    run: Observer = field(default_factory=Observer)


def sweep(asked: Sweep, observer: SweepObserver) -> SweepReport:
    """Try settings until all trials are done, together with whoever else works on the same storage.

    A trial that is stopped, here or with its worker, goes back into the queue, and goes on from its last checkpoint
    where its folder is at hand.

    Raises:
        RunError: the folder or the storage cannot be used, or belong to another sweep.
        SourceError, DataError: the model or the data cannot be read.
        TrainingError: every trial failed.
        augmenting.Interrupted: the user stopped it.
    """
    first = asked.first()
    api.load_data(first.data, seed=first.settings.seed, input_shape=input_shape(sources.load(first.source)))
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{asked.out} cannot be written: {error.strerror or error}") from error
    study = storage.opened(asked.url, asked.study, asked.asked(), asked.seed)
    worker = _Worker(asked, observer, study)
    with storage.told(asked.url):
        worker.check_folder()
        return worker.work()


class _Failed(Exception):
    """A trial that came to nothing; why is with the trial."""


@dataclass
class _Worker:
    asked: Sweep
    observer: SweepObserver
    study: Study
    own: int | None = None  # the trial that is on

    def check_folder(self) -> None:
        """Raise RunError where the folder holds the trials of a sweep that the storage does not know."""
        folder = self.asked.out / TRIALS
        if not self.study.get_trials(deepcopy=False) and folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder} holds the trials of another sweep; name another --out, or delete it")

    def work(self) -> SweepReport:
        waits = False
        while True:
            report = self.report()
            self.write(report)
            self._look_for_hope(report)
            states = [trial.state.name for trial in self._trials()]
            if "WAITING" in states or len(states) < self.asked.trials:
                waits = False
                self._one()
            elif "RUNNING" in states:
                if not waits:
                    self.observer.on_wait(report)
                waits = True
                time.sleep(_WAIT)
                self._take_from_the_dead()
            else:
                return report

    def report(self) -> SweepReport:
        """All trials so far."""
        known = [self._record(trial) for trial in self._trials()]
        facts: Mapping[str, Any] = next((t.user_attrs[_FOUND] for t in self._trials() if _FOUND in t.user_attrs), {})
        return SweepReport(
            name=facts.get("name", self.asked.out.name),
            metric=facts.get("metric", ""),
            cost=self.asked.cost,
            wanted=self.asked.trials,
            trials=tuple(record for record in known if record is not None),
        )

    def write(self, report: SweepReport) -> None:
        """Table and picture of what is there."""
        write_text(self.asked.out / RECORDS, json.dumps(report.to_json(), indent=2) + "\n")
        if any(report.points(grafted=grafted) for grafted in (True, False)):
            write_text(self.asked.out / FRONT, front_svg(report) + "\n")

    def _trials(self) -> list[FrozenTrial]:
        """Those that count: a trial that was stopped does not, the one that goes on with it does."""
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state.name != "FAIL" or _TROUBLE in t.user_attrs]

    def _one(self) -> None:
        """Take the next trial of the queue, or a new one, to its end."""
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_Failed,))
        except BaseException:
            self._give_back()
            raise
        self.own = None

    def _objective(self, trial: Trial) -> tuple[float, float]:
        self.own = trial.number
        settings = {name: dimension.ask(trial, name) for name, dimension in self.asked.space.items()}
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        folder = self.asked.out / TRIALS / f"{storage.first_number(frozen):04d}"
        trial.set_user_attr(_SETTINGS, settings)
        begun = TrialRecord(trial.number, "running", settings, folder=str(folder))
        self.observer.on_begin(begun, self.report())
        try:
            found = self._trained(settings, folder)
        except (SourceError, DataError, RunError, augmenting.Interrupted):
            raise
        except GraftkitError as error:
            trial.set_user_attr(_TROUBLE, str(error))
            self.observer.on_end(replace(begun, state="failed", trouble=str(error)), self.report())
            raise _Failed from error
        trial.set_user_attr(_FOUND, found)
        ended = _complete(begun, found)
        assert ended.grafted is not None
        self.observer.on_end(ended, self.report())
        return ended.grafted.validation, float(getattr(ended.grafted, self.asked.cost))

    def _trained(self, settings: Mapping[str, str], path: Path) -> dict[str, Any]:
        """What a run with these settings found; one that was stopped goes on."""
        request = self.asked.request(settings, path)
        folder = RunFolder(path)
        if (path / REQUEST).is_file():
            augmenting.resume(path, self.observer.run, trust=request.source.trust, allow=request.source.allow)
        else:
            augmenting.augment(request, self.observer.run)
        told = folder.read_json(METRICS)
        keys = ("name", "metric", "shipped", "baseline", "grafted", "best_grafted", "seeds")
        return {"folder": str(path), **{key: told[key] for key in keys}}

    def _record(self, trial: FrozenTrial) -> TrialRecord | None:
        if trial.state.name == "WAITING":
            return None
        state = {"COMPLETE": "complete", "FAIL": "failed"}.get(trial.state.name, "running")
        told = TrialRecord(trial.number, state, trial.user_attrs.get(_SETTINGS, {}))
        if state == "failed":
            return replace(told, trouble=trial.user_attrs[_TROUBLE])
        return _complete(told, trial.user_attrs[_FOUND]) if _FOUND in trial.user_attrs else told

    def _look_for_hope(self, report: SweepReport) -> None:
        failed = [trial for trial in report.trials if trial.state == "failed"]
        if len(failed) >= min(_HOPELESS, self.asked.trials) and not report.points(grafted=True):
            raise TrainingError(
                f"no trial came to its end, and {len(failed)} failed, the last one so: {failed[-1].trouble}"
            )

    def _give_back(self) -> None:
        """Put the trial that was on back into the queue, for whoever goes on."""
        if self.own is None:
            return
        trial = self.study.get_trials(deepcopy=False)[self.own]
        if trial.state.name == "RUNNING":
            trial = self.study.tell(trial.number, state=type(trial.state).FAIL)
        if trial.state.name == "FAIL":
            storage.again(self.study, trial)

    def _take_from_the_dead(self) -> None:
        import optuna

        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            optuna.storages.fail_stale_trials(self.study)


def _complete(begun: TrialRecord, found: Mapping[str, Any]) -> TrialRecord:
    """The trial with what its run found, over all seeds."""
    grafted = [Measurement(**seed["grafted"]) for seed in found["seeds"]]
    controls = [Measurement(**seed["control"]) for seed in found["seeds"] if seed["control"]]
    return replace(
        begun,
        state="complete",
        grafted=mean(grafted),
        control=mean(controls) if len(controls) == len(grafted) else None,
        given=Measurement(**found["baseline"]),
        shipped=found["shipped"],
        folder=found["folder"],
    )
