"""A run as a folder: what lies in it, how it is begun, filled, read, and given up."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from graftkit.core.atomic import write_bytes, write_text
from graftkit.core.errors import RunError, SourceError
from graftkit.core.locking import locked
from graftkit.core.records import Inspection, PhaseRecord
from graftkit.core.values import Spending
from graftkit.folding import is_data_file
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan

SOURCE, PLAN, MODEL, CHECKPOINT = "source.json", "plan.json", "model.onnx", "checkpoint"
HISTORY, METRICS, REPORT, INSPECTION = "history.jsonl", "metrics.json", "report.html", "inspection.json"
VALUES, REQUEST, LOGS = "values.json", "request.json", "logs"
DENDRITES, SHAPES, FRONT = "dendrites.safetensors", "pruned.json", "front"
EVALUATION, EVALUATION_PICTURE = "evaluation.json", "evaluation.svg"
_PROGRESS = "progress"  # within the checkpoint folder: what a run that was stopped goes on from
_EVALUATING = "evaluation"  # likewise, of an evaluation
_MODEL = "model"
_EXPORTED = re.compile(r"model-(gate|fp16|bf16|int8|int4)\.onnx")  # by `export --precision` and `--gate`
_WRITTEN = {SOURCE, PLAN, MODEL, CHECKPOINT, HISTORY, METRICS, REPORT, INSPECTION, VALUES, REQUEST, LOGS}
_OWN = frozenset({*_WRITTEN, DENDRITES, SHAPES, FRONT, EVALUATION, EVALUATION_PICTURE})


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file is written to a temporary name and renamed."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / MODEL

    @property
    def dendrites(self) -> Path:
        return self.path / DENDRITES

    @contextmanager
    def begun(self, *, force: bool) -> Iterator[None]:
        """Make the folder, and hold it while inside; an earlier run moves aside with `force`. Raises RunError."""
        if self.path.is_dir():
            with locked(self.path):
                pass
        self.begin(force=force)
        with locked(self.path):
            yield

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """Hold the folder of an earlier run while inside. Raises RunError where there is none to go on with."""
        if not self.path.exists():
            self._bring_back_orphan()
        if not (self.path / REQUEST).is_file():
            raise RunError(f"{self.path} holds no run that could go on: it has no {REQUEST}")
        with locked(self.path):
            yield

    def begin(self, *, force: bool) -> None:
        self._bring_back_orphan()
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; name a folder with --out")
        if self.path.is_dir() and any(self.path.iterdir()):
            if not force:
                go_on = f"`graftkit {self._command} --resume {self.path}` goes on with it, " if self.can_go_on else ""
                raise RunError(f"{self.path} is not empty; {go_on}pass --force to replace it, or another --out")
            self._check_it_is_a_run()
        try:
            if force and self._aside.is_dir():  # an earlier run lies there, and this one never came to anything
                if self.can_go_on:
                    raise RunError(
                        f"{self.path} holds a run that replaced another one and was stopped; `graftkit {self._command}"
                        f" --resume {self.path}` goes on with it, or delete the folder first"
                    )
                shutil.rmtree(self.path)
            elif force and self.path.is_dir():
                self.path.rename(self._aside)
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            if self._aside.is_dir() and not self.path.exists():
                self._aside.rename(self.path)
            raise RunError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _check_it_is_a_run(self) -> None:
        """Raise RunError where the folder holds anything that a run did not put there."""
        strangers = sorted(_strangers(self.path))
        if strangers or not _made_by_graftkit(self.path):
            what = f"files that no run makes ({', '.join(strangers[:3])})" if strangers else "no run of graftkit's"
            raise RunError(f"{self.path} holds {what}, so --force does not replace it; name another --out")

    def _bring_back_orphan(self) -> None:
        """Where a run was killed while it replaced another, the earlier one comes back, if that is the finished one."""
        if not self._aside.is_dir() or self.can_go_on:
            return
        if self.model.exists():
            shutil.rmtree(self._aside, ignore_errors=True)
        elif not self.path.exists() or not _strangers(self.path):
            shutil.rmtree(self.path, ignore_errors=True)
            self._aside.rename(self.path)

    def keep(self) -> None:
        """The run is worth keeping: what it replaced goes."""
        shutil.rmtree(self._aside, ignore_errors=True)

    @property
    def progress(self) -> Path:
        """Where the run keeps what it could go on from; it need not be there."""
        return self.path / CHECKPOINT / _PROGRESS

    @property
    def evaluating(self) -> Path:
        """Where an evaluation of the run keeps what it could go on from; it need not be there."""
        return self.path / CHECKPOINT / _EVALUATING

    @property
    def can_go_on(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any(self.progress.glob("*.json"))

    @property
    def _command(self) -> str:
        """What began it."""
        try:
            return "compress" if "compress" in json.loads((self.path / REQUEST).read_text()) else "augment"
        except (OSError, ValueError, TypeError):
            return "augment"

    @property
    def ended(self) -> bool:
        """Whether the run came to its end."""
        if self.progress.exists() or not self.model.exists() or not (self.path / METRICS).is_file():
            return False
        return not self.read_json(METRICS)["interrupted"]

    def end(self) -> None:
        """The run came to its end: nothing will go on from here."""
        shutil.rmtree(self.progress, ignore_errors=True)

    def begun_with(self) -> Any:
        """What a run that is there was asked for; None where none came so far. Raises RunError for strangers' files."""
        try:
            return json.loads((self.path / REQUEST).read_text())
        except (OSError, ValueError):
            if self.path.is_dir() and (strangers := _strangers(self.path)):
                raise RunError(f"{self.path} holds files that no run makes ({', '.join(strangers[:3])})") from None
            return None

    def clear(self, name: str) -> None:
        """A folder within the run's goes, if it is there."""
        shutil.rmtree(self.path / name, ignore_errors=True)

    def check_source(self, sha256: str | None) -> None:
        """Raise SourceError where a run that goes on had a model of another content."""
        if (self.path / SOURCE).is_file() and self.read_json(SOURCE).get("sha256") != sha256:
            raise SourceError(f"the model has changed since {self.path} was begun; its sha256 is another one")

    @property
    def worth_keeping(self) -> bool:
        """Whether anything was trained in it."""
        return any((self.path / name).exists() for name in (HISTORY, PLAN)) or self.can_go_on

    def give_up(self) -> None:
        """The run came to nothing: its folder goes, and what it replaced comes back."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._aside.is_dir():
            self._aside.rename(self.path)

    def write_json(self, name: str, value: Any) -> None:
        write_text(self.path / name, json.dumps(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def write_history(self, phases: Sequence[PhaseRecord]) -> None:
        write_text(self.path / HISTORY, "".join(json.dumps(asdict(phase)) + "\n" for phase in phases))

    def write_checkpoint(self, model: GraftedModel) -> None:
        """The trained weights of what ships, as safetensors."""
        self._write_state(_MODEL, "state.json", model.state_dict(), {})

    def write_arm(
        self, name: str, plan: GraftPlan, state: Mapping[str, torch.Tensor], shapes: Mapping[str, Any] | None = None
    ) -> None:
        """The weights of a network that does not ship, with its plan and, of a compression, its shapes."""
        self._write_state(name, f"{name}.json", state, {"plan": plan.to_json(), "shapes": shapes})

    def read_arm(self, name: str) -> tuple[GraftPlan, dict[str, Any], Any] | None:
        """What `write_arm` was given; None where nothing was written. Raises RunError."""
        if not (self.path / CHECKPOINT / f"{name}.json").is_file():
            return None
        told = self.read_json(f"{CHECKPOINT}/{name}.json")
        plan = GraftPlan.from_json(told["plan"] if isinstance(told, dict) and "plan" in told else told)
        return plan, self._read_state(name, f"{name}.json"), told.get("shapes")

    def _write_state(self, stem: str, beside: str, state: Mapping[str, torch.Tensor], more: Mapping[str, Any]) -> None:
        """Tensors by name, a tensor with several names once; which those are is told beside them."""
        stored: dict[object, str] = {}
        tensors, aliases = {}, {}
        for name, tensor in state.items():
            same = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
            first = stored.setdefault(same, name)
            if first == name:
                tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            else:
                aliases[name] = first
        folder = self.path / CHECKPOINT
        folder.mkdir(exist_ok=True)
        write_bytes(folder / f"{stem}.safetensors", safetensors.torch.save(tensors))
        write_text(folder / beside, json.dumps({"aliases": aliases, **more}) + "\n")

    def read_checkpoint(self) -> dict[str, Any]:
        """The trained weights of what ships, by name. Raises RunError."""
        return self._read_state(_MODEL, "state.json")

    def _read_state(self, name: str, beside: str) -> dict[str, Any]:
        folder = self.path / CHECKPOINT
        try:
            tensors = safetensors.torch.load((folder / f"{name}.safetensors").read_bytes())
            aliases = json.loads((folder / beside).read_text())["aliases"]
            return {**tensors, **{name: tensors[first] for name, first in aliases.items()}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
            raise RunError(f"{folder} cannot be read: {error}") from None

    def read_json(self, name: str) -> Any:
        """A JSON file of the run. Raises RunError."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from None

    def read_plan(self) -> GraftPlan:
        return GraftPlan.from_json(self.read_json(PLAN))

    def read_inspection(self) -> Inspection:
        """What was found when the run ended. Raises RunError."""
        try:
            return Inspection.from_json(self.read_json(INSPECTION))
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path / INSPECTION} is broken: {error!r}") from None

    def read_values(self) -> Spending:
        """What dendrites were worth in the trial of a run with a budget. Raises RunError."""
        if not (self.path / VALUES).is_file():
            raise RunError(f"{self.path} valued no dendrites; `graftkit augment --budget parameters=+10%` does")
        try:
            return Spending.from_json(self.read_json(VALUES))
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path / VALUES} is broken: {error!r}") from None

    @property
    def _aside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.replaced")


def _strangers(path: Path) -> list[str]:
    """What lies in a folder that no run puts there."""
    names = [entry.name for entry in path.iterdir()]
    files = [path / MODEL, *(path / name for name in names if _EXPORTED.fullmatch(name))]
    own = _OWN.union(file.name for file in files)
    return [n for n in names if n not in own and not _is_half_written(n) and not any(is_data_file(n, f) for f in files)]


def _is_half_written(name: str) -> bool:
    """Whether it is what a process that was killed left of a file of ours."""
    return any(re.fullmatch(rf"\.({re.escape(own)}|probe)\.\d+(\.(tmp|draft|data))?", name) for own in _OWN)


def is_run(path: Path) -> bool:
    """Whether a path is a run's folder."""
    return (path / SOURCE).is_file()


def _made_by_graftkit(path: Path) -> bool:
    for name, key in ((SOURCE, None), (REQUEST, "versions")):
        try:
            told = json.loads((path / name).read_text())
            if "graftkit" in (told if key is None else told[key]):
                return True
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return False
