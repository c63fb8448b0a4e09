"""Shows a sweep while it goes: a bar for the trials and one for the epochs of the run, and a line for each trial."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

from rich.progress import TaskID

from graftkit.cli.progress import Watcher
from graftkit.core.records import Measurement, PhaseRecord
from graftkit.core.trials import SweepReport, TrialRecord
from graftkit.reporting import settings_words
from graftkit.reporting.wording import metric_value
from graftkit.sweeping import SweepObserver


class SweepWatcher:
    """A sweep observer's hooks, writing to stderr."""

    def __init__(self) -> None:
        self.watcher = Watcher()
        self.all: TaskID | None = None
        self.warned: set[str] = set()

    def __enter__(self) -> SweepObserver:
        observer = self.watcher.__enter__()
        run = replace(observer, on_stage=lambda text: None, on_phase=self.phase, on_warning=self.warn)
        return SweepObserver(self.begin, self.end, self.wait, run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watcher.__exit__(kind, error, trace)

    def begin(self, trial: TrialRecord, report: SweepReport) -> None:
        """A trial began."""
        if self.all is None:
            self.all = self.watcher.progress.add_task("trials", total=report.wanted, score="")
        self.watcher.progress.update(self.all, score=f"trial {trial.number}: {settings_words(trial.settings)}")
        self._count(report)

    def end(self, trial: TrialRecord, report: SweepReport) -> None:
        """A trial ended, well or not."""
        self.watcher.end_task()
        self._count(report)
        what = f"trial {trial.number}, {settings_words(trial.settings)}:"
        if trial.state == "failed":
            self.watcher.warning(f"{what} failed: {trial.trouble}")
            return
        grafted = "nothing grafted" if trial.grafted is None else _numbers(report, trial.grafted)
        control = "" if trial.control is None else f"; {report.plain} {_numbers(report, trial.control)}"
        self.watcher.console.print(f"  {what} {grafted}{control}", markup=False)

    def wait(self, report: SweepReport) -> None:
        """All trials are taken, but not all are done."""
        on = sum(trial.state == "running" for trial in report.trials)
        self.watcher.stage(f"waiting for {on} trial{'s' * (on != 1)} of other workers")

    def phase(self, record: PhaseRecord) -> None:
        """A phase of a run ended; that is told with its trial."""
        self.watcher.end_task()

    def warn(self, text: str) -> None:
        """What a run tells, once."""
        if text not in self.warned:
            self.watcher.warning(text)
        self.warned.add(text)

    def _count(self, report: SweepReport) -> None:
        if self.all is not None:
            done = sum(trial.state != "running" for trial in report.trials)
            self.watcher.progress.update(self.all, completed=done)


def _numbers(report: SweepReport, measured: Measurement) -> str:
    return f"{metric_value(report.metric, measured.validation)} with {measured.parameters:,} parameters"
