"""A few hundred of the cases, and proof that the watch sees what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import pool
from .case import Case, Place
from .faulty import FAULTY
from .formats import FORMATS
from .pool import Worker

_EACH = 30


@pytest.mark.parametrize("name", FORMATS)
def test_files_are_read_or_refused(worker: Worker, name: str) -> None:
    verdicts = [worker.examine(Case(name, 0, index)) for index in range(_EACH)]
    assert [f"{each.case.name} {each.how}: {each.why}" for each in verdicts if each.outcome == "failed"] == []
    assert {each.outcome for each in verdicts} == {"loaded", "refused"}


# Those that end the process come last.
@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_reader_is_found_out(
    worker: Worker, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FAULTS", tmp_path)
    verdict = worker.examine(Case(name, 0, 0))
    assert verdict.outcome == "failed"
    assert FAULTY[name][1] in verdict.why
    kept = tmp_path / verdict.case.name
    assert (kept / "net.safetensors").is_file()
    assert verdict.why in (kept / "why.txt").read_text()


@pytest.mark.parametrize("name", ["pickle", "npz", "onnx_inspect"])
def test_a_case_is_made_again_from_its_name(tmp_path: Path, name: str) -> None:
    form, place = FORMATS[name], Place(tmp_path / "case")
    place.folder.mkdir()
    place.secret.parent.mkdir()
    place.secret.touch()
    (tmp_path / "good").mkdir()
    form.originals(tmp_path / "good")
    good = min((tmp_path / "good").iterdir()).read_bytes()
    for index in range(60):
        case = Case(name, 3, index)
        made = [rng.choice(form.breaks)(good, rng, place) for rng in (case.random(), case.random())]
        assert made[0] == made[1]
