"""A sweep: one run of a command a trial, each with other settings, until there are as many as were asked for."""

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
from graftkit.core.errors import BusyError, RunError, TrainingError
from graftkit.core.search import Space
from graftkit.core.trials import SweepReport, TrialRecord
from graftkit.reopening import input_shape
from graftkit.request import identity
from graftkit.run_folder import METRICS, SOURCE, RunFolder
from graftkit.sweeping import storage
from graftkit.sweeping.jobs import Compression, Job
from graftkit.sweeping.outcomes import completed, weighed
from graftkit.sweeping.storage import SETTINGS, TROUBLE

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

TRIALS, RECORDS, FRONT, DATABASE = "trials", "sweep.json", "front.svg", "sweep.db"
_HOPELESS = 5  # so many trials failed here and none came to an end anywhere: the rest would fail, too
_WAIT = 2.0  # seconds between looks at what other workers do
_FOUND = "found"


@dataclass(frozen=True)
class Sweep:
    """What to search.

    Attributes:
        job: from what a trial sets, by option, and the folder of its run to that run.
        space: what may be set.
        out: folder of the sweep: runs under `trials/`, the table in `sweep.json`, the picture in `front.svg`.
        trials: how many, those of other workers and earlier sessions included.
        storage: URL of a database; None for a SQLite file in `out`.
        study: the sweep's name in the storage.
        cost: what accuracy is weighed against, "parameters" or "macs".
        seed: of what is tried.
    """

    job: Callable[[Mapping[str, str], Path], Job]
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
        return self.storage or storage.sqlite((self.out / DATABASE).resolve())

    def first(self) -> Job:
        """With the first of everything that may be set."""
        return self.job({name: dimension.samples()[0] for name, dimension in self.space.items()}, self.out)

    def asked(self, model: str | None) -> dict[str, Any]:
        """What has to be the same for all workers, JSON-able; `model` is the sha256 of its file."""
        told = self.first().identity()
        settings = told.pop("settings")
        space = {name: [type(value).__name__, asdict(value)] for name, value in self.space.items()}
        own = told.pop(Compression.name, None)
        own = {} if own is None else {**own, "command": Compression.name}  # whose sparsity may be left open
        plain = {
            **told,
            **settings.pop("recipe"),
            **settings,
            **own,
            "search": space,
            "cost": self.cost,
            "model": model,
        }
        made: dict[str, Any] = json.loads(json.dumps(plain))
        return made


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
    where its folder is at hand. One that fails is told of, and the sweep goes on.

    Raises:
        RunError: the folder or the storage cannot be used, or belong to another sweep.
        SourceError, DataError: the model or the data cannot be read.
        TrainingError: every trial failed.
        augmenting.Interrupted: the user stopped it.
    """
    job = asked.first()
    job.check()
    first = job.request
    loaded = sources.load(first.source)
    api.load_data(first.data, seed=first.settings.seed, input_shape=input_shape(loaded))
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{asked.out} cannot be written: {error.strerror or error}") from error
    study = storage.opened(asked.url, asked.study, asked.asked(loaded.provenance.get("sha256")))
    worker = _Worker(asked, observer, study, job.name)
    with storage.told(asked.url):
        worker.check_folder()
        return worker.work()


class _Ended(Exception):
    """A trial that does not count, or failed; what is to be said is said."""


@dataclass
class _Worker:
    asked: Sweep
    observer: SweepObserver
    study: Study
    command: str
    own: int | None = None  # the trial that is on
    failed: list[str] = field(default_factory=list)  # here, and why
    written: SweepReport | None = None

    def check_folder(self) -> None:
        """Raise RunError where the folder holds the trials of a sweep that the storage does not know."""
        folder = self.asked.out / TRIALS
        if not self.study.get_trials(deepcopy=False) and folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder} holds the trials of another sweep; name another --out, or delete it")

    def work(self) -> SweepReport:
        waits = False
        while True:
            storage.take_from_the_dead(self.study)
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
            else:
                return report

    def report(self) -> SweepReport:
        """All trials so far."""
        trials = self._trials()
        facts: Mapping[str, Any] = next((t.user_attrs[_FOUND] for t in trials if _FOUND in t.user_attrs), {})
        return SweepReport(
            name=facts.get("name", self.asked.out.name),
            metric=facts.get("metric", ""),
            cost=self.asked.cost,
            wanted=self.asked.trials,
            trials=tuple(_record(trial) for trial in trials if trial.state.name != "WAITING"),
            command=self.command,
        )

    def write(self, report: SweepReport) -> None:
        """Table and picture of what is there, where that is new."""
        if report == self.written:
            return
        write_text(self.asked.out / RECORDS, json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n")
        if any(report.points(grafted=grafted) for grafted in (True, False)):
            from graftkit.reporting.front_picture import front_svg  # matplotlib takes a second to import

            write_text(self.asked.out / FRONT, front_svg(report) + "\n")
        self.written = report

    def _trials(self) -> list[FrozenTrial]:
        """Those that count: a trial that was stopped does not, the one that goes on with it does."""
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state.name != "FAIL" or TROUBLE in t.user_attrs]

    def _one(self) -> None:
        """Take the next trial of the queue, or a new one, to its end."""
        self.own = None
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_Ended,))
        except BusyError:  # the worker that was taken for dead lives, and will come to the end of it
            self._give_back()
            time.sleep(storage.BEAT)
        except BaseException as error:
            if self._is_over():  # because this worker was taken for dead: whoever goes on with it has what was found
                if isinstance(error, Exception):
                    return
            else:
                self._give_back()
            raise

    def _objective(self, trial: Trial) -> tuple[float, float]:
        self.own = trial.number
        self.study.sampler = storage.sampler(self.asked.seed + trial.number)  # workers try different settings
        settings = {name: dimension.ask(trial, name) for name, dimension in self.asked.space.items()}
        before = [t for t in self._trials() if t.number < trial.number]
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        first = storage.first_number(frozen)
        if first == trial.number and len(before) >= self.asked.trials:
            raise _Ended  # another worker began the last one just before
        trial.set_user_attr(SETTINGS, settings)
        begun = TrialRecord(first, "running", settings, folder=f"{TRIALS}/{first:04d}")
        self.observer.on_begin(begun, self.report())
        same = (t.user_attrs.get(_FOUND) for t in before if t.user_attrs.get(SETTINGS) == settings)
        try:
            found = next((one for one in same if one), None) or self._trained(settings, self.asked.out / begun.folder)
            ended = completed(begun, found)
        except (RunError, augmenting.Interrupted):
            raise
        except Exception as error:  # whatever a model or its code may do with these settings
            trouble = str(error) if str(error) else type(error).__name__
            self.failed.append(trouble)
            trial.set_user_attr(TROUBLE, trouble)
            self.observer.on_end(replace(begun, state="failed", trouble=trouble), self.report())
            raise _Ended from error
        trial.set_user_attr(_FOUND, found)
        self.observer.on_end(ended, self.report())
        measured = weighed(ended, found)
        return measured.validation, float(getattr(measured, self.asked.cost))

    def _trained(self, settings: Mapping[str, str], path: Path) -> dict[str, Any]:
        """What a run with these settings found; one that was stopped goes on."""
        job, folder = self.asked.job(settings, path), RunFolder(path)
        begun = folder.begun_with()
        if begun is None:
            folder.give_up()
            job.begin(self.observer.run)
        elif identity(begun) != job.identity():
            raise RunError(f"{path} holds a run with other settings; name another --out")
        else:
            job.go_on(self.observer.run)
        trained = folder.read_json(SOURCE)["sha256"] is not None  # an architecture alone has weights drawn at random
        return {**job.found(folder.read_json(METRICS)), "trained": trained}

    def _look_for_hope(self, report: SweepReport) -> None:
        done = any(trial.state == "complete" for trial in report.trials)
        if not done and len(self.failed) >= min(_HOPELESS, self.asked.trials):
            raise TrainingError(
                f"no trial came to its end, and {len(self.failed)} failed, the last one so: {self.failed[-1]}"
            )

    def _is_over(self) -> bool:
        """Whether somebody else ended the trial that is on here."""
        with suppress(Exception):
            known = self.study.get_trials(deepcopy=False)
            return self.own is not None and any(self.own in storage.earlier_numbers(trial) for trial in known)
        return False

    def _give_back(self) -> None:
        """Put the trial that was on back into the queue, for whoever goes on; where that fails, others find it."""
        with suppress(Exception):
            assert self.own is not None
            trial = self.study.get_trials(deepcopy=False)[self.own]
            if trial.state.name == "RUNNING":
                trial = self.study.tell(trial.number, state=type(trial.state).FAIL)
            if trial.state.name == "FAIL":
                storage.again(self.study, trial)


def _record(trial: FrozenTrial) -> TrialRecord:
    first, attributes = storage.first_number(trial), trial.user_attrs
    told = TrialRecord(first, "running", attributes.get(SETTINGS, {}), folder=f"{TRIALS}/{first:04d}")
    if trial.state.name == "FAIL":
        return replace(told, state="failed", trouble=attributes[TROUBLE])
    return completed(told, attributes[_FOUND]) if _FOUND in attributes else told
