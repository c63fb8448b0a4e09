"""Shows a run while it goes: a live bar on a terminal, one line a phase where output is piped."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from graftkit.contracts import Observer
from graftkit.core.records import EpochRecord, PhaseRecord, StepRecord


class Watcher:
    """An observer's hooks, writing to stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[score]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.done = 0

    def __enter__(self) -> Observer:
        self.progress.start()
        step = self.step if self.console.is_terminal else None
        return Observer(self.stage, self.epoch, self.phase, self.warning, step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def stage(self, text: str) -> None:
        """A stage began."""
        self.end_task()
        self.console.print(f"[dim]·[/dim] {text}" if self.console.is_terminal else f"- {text}")

    def step(self, record: StepRecord) -> None:
        """A step was taken."""
        done = record.epoch - 1 + record.step / record.steps
        self.progress.update(self._bar(_label(record.arm, record.cycle, "neuron"), record.epochs), completed=done)

    def epoch(self, record: EpochRecord, of: int) -> None:
        """An epoch ended, of so many in its phase."""
        task = self._bar(_label(record.arm, record.cycle, record.phase), of)
        self.done += 1
        score = f"epoch {self.done}/{of}  validation {record.validation:.4f}  loss {record.loss:.4f}"
        self.progress.update(task, completed=self.done, score=score)

    def phase(self, record: PhaseRecord) -> None:
        """A phase ended."""
        self.end_task()
        best = "" if record.validation is None else f", best validation {record.validation:.4f}"
        better = " (best so far)" if record.improved else ""
        grown = f", {_counted(record.dendrites, 'dendrite')}" if record.dendrites else ""
        note = f"; {record.note}" if record.note else ""
        label = _label(record.arm, record.cycle, record.phase)
        size = f"{_counted(record.epochs, 'epoch')}, {record.parameters:,} parameters{grown}"
        self.console.print(f"  seed {record.seed}, {label}: {size}{best}{better}{note}", markup=False)

    def warning(self, text: str) -> None:
        """Something the user has to know."""
        self.console.print(f"  note: {text}", markup=False, style="yellow")

    def _bar(self, label: str, epochs: int) -> TaskID:
        """The bar of the phase that is on."""
        if self.task is None:
            self.done = 0
            self.task = self.progress.add_task(label, total=epochs, score="")
        return self.task

    def end_task(self) -> None:
        """Take the bar of a phase away."""
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


def _label(arm: str, cycle: int, phase: str) -> str:
    name = {"control": "control (nothing grafted)", "trial": "trial (all candidates at once)"}.get(arm, arm)
    return f"{name}, cycle {cycle}" + (", dendrite phase" if phase == "dendrite" else "")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
