"""Runtimes in other processes: frames, and workers that answer, die, hang or talk."""

from __future__ import annotations

import gc
import io
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

import graftkit
from graftkit.core.errors import ExportError, MismatchError, RuntimeMissingError
from graftkit.runtimes import RUNTIMES
from graftkit.runtimes.channel import Elsewhere, Lost, opened
from graftkit.runtimes.described import Described, described
from graftkit.runtimes.sized import UntilSized
from graftkit.runtimes.worker import Worker
from graftkit.runtimes.workers import frames

WORKERS = Path(graftkit.__file__).parent / "runtimes/workers"
# A worker whose runtime doubles; what it is given first says how it goes wrong.
SCRIPT = r"""
import os, signal, sys, time
sys.path.insert(0, {workers!r})
from serving import serve

def load(model, asked):
    assert model.read_bytes()
    def run(arrays):
        first = float(arrays["x"].flat[0]) if arrays["x"].size else 0
        if first == 13: raise ValueError("unlucky")
        if first == 14: print("nothing\nCannot do it: error 7"); raise ValueError("vague")
        if first == 15: print("the end is near", flush=True); os.kill(os.getpid(), signal.SIGKILL)
        if first == 16: time.sleep(600)
        if first == 18: return {{"y": arrays["x"][..., 0]}}
        if first == 19: return {{"y": arrays["x"][:, :1]}}
        if first == 17: os.write(1, b"talking"); print("talking")
        return {{"y": arrays["x"] * 2}}
    return run

serve(lambda: "7", load)
"""


def file(sizes: tuple[int | str, ...] = ("n", 2), kind: int = TensorProto.FLOAT) -> bytes:
    ports = [helper.make_tensor_value_info(name, kind, sizes) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sum", ["x", "x"], ["y"])], "double", ports[:1], ports[1:])
    return bytes(helper.make_model(graph).SerializeToString())


def worker(tmp_path: Path, script: str = SCRIPT, patience: float = 60) -> Worker:
    path = tmp_path / "worker.py"
    path.write_text(script.format(workers=str(WORKERS)))
    return Worker([sys.executable, str(path)], patience=patience)


def session(tmp_path: Path, **options: float) -> Elsewhere:
    return opened(worker(tmp_path, **options), described(file(), "double"), None)  # type: ignore[arg-type]


def of(first: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[first, 2]], np.float32)}


def gone(pid: int) -> bool:
    """Whether there is no such process, not even a dead one that nobody waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


numbers = st.sampled_from(sorted(frames.DTYPES)).flatmap(
    lambda name: arrays.arrays(np.dtype(name), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(max_size=5), numbers, max_size=3))
def test_frames_come_through(given: dict[str, np.ndarray]) -> None:
    stream = io.BytesIO()
    frames.write(stream, {"do": "run"}, given)
    frames.write(stream, {}, {})
    stream.seek(0)
    header, found = frames.read(stream) or ({}, {})
    assert header == {"do": "run"} and list(found) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
    assert frames.read(stream) == ({}, {}) and frames.read(stream) is None


@given(st.binary(min_size=1, max_size=60))
def test_what_is_no_frame_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, EOFError, KeyError, TypeError, AttributeError)):
        frames.read(io.BytesIO(content))


def test_a_worker_answers(tmp_path: Path) -> None:
    double = session(tmp_path)
    np.testing.assert_array_equal(double(of(3))[0], [[6, 4]])
    np.testing.assert_array_equal(double({"x": np.zeros((0, 2), np.float32)})[0], np.zeros((0, 2)))
    assert len(double.seconds(of(3), 4)) == 4
    np.testing.assert_array_equal(double(of(17))[0], [[34, 4]])  # what a package prints is no answer


@pytest.mark.parametrize(("first", "why"), [(13, "ValueError: unlucky"), (14, "Cannot do it: error 7")])
def test_what_goes_wrong_is_told_and_it_goes_on(tmp_path: Path, first: float, why: str) -> None:
    double = session(tmp_path)
    with pytest.raises(MismatchError, match=rf"^double fails on x \[1, 2\]: {why}$"):
        double(of(first))
    np.testing.assert_array_equal(double(of(3))[0], [[6, 4]])


@pytest.mark.parametrize(("first", "shape"), [(18, r"\[1\]"), (19, r"\[1, 1\]")])
def test_an_output_of_another_shape_is_no_answer(tmp_path: Path, first: float, shape: str) -> None:
    with pytest.raises(MismatchError, match=rf"^double gives y {shape} for y \[n, 2\] of float32$"):
        session(tmp_path)(of(first))


def test_a_worker_that_dies_is_told_and_is_no_zombie(tmp_path: Path) -> None:
    double = session(tmp_path)
    pid, folder = double.channel.process.pid, double.channel.said.parent  # type: ignore[attr-defined]
    with pytest.raises(MismatchError, match=r"its process ended \(SIGKILL\): the end is near$"):
        double(of(15))
    with pytest.raises(MismatchError, match=r"its process ended \(SIGKILL\)"):
        double(of(3))
    del double
    gc.collect()
    assert gone(pid) and not folder.exists()


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    double = session(tmp_path)
    double.channel.patience = 1.0  # type: ignore[attr-defined]
    begun = time.monotonic()
    with pytest.raises(MismatchError, match=r"no answer in 1 s$"):
        double(of(16))
    assert time.monotonic() - begun < 30


def test_a_closed_session_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    double = session(tmp_path)
    pid, folder = double.channel.process.pid, double.channel.said.parent  # type: ignore[attr-defined]
    double.close()
    double.close()
    assert gone(pid) and not folder.exists()
    with pytest.raises(MismatchError, match="the session is closed"):
        double(of(3))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("raise SystemExit('no use')", "exit code 1.*no use"),
        ("print('hello, world')", "it does not answer|its process ended"),
        ("{{", "exit"),
    ],
)
def test_what_is_no_worker_is_told(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(ExportError, match=why) as caught:
        opened(worker(tmp_path, script), described(file(), "double"), None)
    assert "\n" not in str(caught.value)


def test_an_unknown_question_is_refused(tmp_path: Path) -> None:
    with worker_closed(worker(tmp_path)) as asked, pytest.raises(Exception, match="asked for 'dance'"):
        asked.ask({"do": "dance"}, {})


class worker_closed:
    def __init__(self, asked: Worker):
        self.asked = asked

    def __enter__(self) -> Worker:
        return self.asked

    def __exit__(self, *_: object) -> None:
        self.asked.close()
        with pytest.raises(Lost):
            self.asked.ask({"do": "version"}, {})


def test_types_that_no_worker_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"double does not load the file: 'x' is of bfloat16"):
        opened(worker(tmp_path), described(file(kind=TensorProto.BFLOAT16), "double"), None)


@pytest.mark.parametrize(
    ("shape", "fits"), [((2, 2), True), ((2, 3), False), ((2,), False), ((2, 2, 1), False), ((0, 2), True)]
)
def test_shapes_are_held_to_what_the_file_says(shape: tuple[int, ...], fits: bool) -> None:
    known = described(file(), "double")
    if fits:
        known.check({"x": np.zeros(shape, np.float32)})
    else:
        with pytest.raises(MismatchError, match=r"the file takes x \[n, 2\] of float32$"):
            known.check({"x": np.zeros(shape, np.float32)})


def test_a_size_of_one_name_is_one_size() -> None:
    known = described(file(("n", "n")), "double")
    known.check({"x": np.zeros((3, 3), np.float32)})
    with pytest.raises(MismatchError, match=r"the file takes x \[n, n\]"):
        known.check({"x": np.zeros((3, 2), np.float32)})


def test_a_python_that_is_none_or_lacks_the_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFTKIT_MNN_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeMissingError, match=r"GRAFTKIT_MNN_PYTHON names .*nowhere, which is no Python"):
        RUNTIMES["mnn"].version()
    monkeypatch.delenv("GRAFTKIT_MNN_PYTHON")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MNN").mkdir()  # a folder is no package
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeMissingError, match=r"pip install 'graftkit\[mnn\]', or set GRAFTKIT_MNN_PYTHON"):
        RUNTIMES["mnn"].open(onnx.ModelProto().SerializeToString())


@pytest.mark.parametrize("why", ["Undetermined symbol in expression: n", "unlucky"])
def test_what_fails_in_a_run_for_another_reason_than_a_free_size_is_told_as_it_is(why: str) -> None:
    class Failing:
        def __call__(self, inputs: object) -> list[np.ndarray]:
            raise MismatchError(why)

        def seconds(self, inputs: object, times: int) -> list[float]:
            raise MismatchError(why)

        def close(self) -> None:
            raise AssertionError("it is used still")

    def refused(file: Described) -> Failing:
        raise ExportError("not with this size, either")

    session = UntilSized(Failing(), described(file(), "small"), refused)
    for ask in (lambda: session({"x": np.zeros((1, 2))}), lambda: session.seconds({"x": np.zeros((1, 2))}, 1)):
        with pytest.raises(MismatchError, match=f"^{why}$"):
            ask()
