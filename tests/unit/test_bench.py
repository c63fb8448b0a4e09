"""Files side by side: what they are given, what is counted, and what is said where one cannot run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from graftkit.benching import bench, read_file
from graftkit.benching.energy import Meter, _sum
from graftkit.benching.files import File, feed_of
from graftkit.cli.bench import bench as command
from graftkit.core.benches import BenchReport, Subject, Timing
from graftkit.core.errors import ExportError, RuntimeMissingError
from graftkit.core.ratio import Ratio
from graftkit.reporting.bench_picture import bench_svg
from graftkit.reporting.benches import bench_table


def written(
    folder: Path,
    name: str = "small.onnx",
    *,
    shape: Sequence[int | str] = ("n", "length", 4),
    kind: int = TensorProto.FLOAT,
    times: int = 1,
    domain: str = "",
    apart: bool = False,
) -> File:
    """X @ w, over and over."""
    nodes = [helper.make_node("Cast", ["x"], ["h0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(times)]
    nodes.append(helper.make_node("Relu", [f"h{times}"], ["y"], domain=domain))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, folder / name, save_as_external_data=apart, location=f"{name}.data", size_threshold=0)
    return read_file(folder / name, name)


def test_a_free_size_has_to_be_said(tmp_path: Path) -> None:
    file = written(tmp_path)
    with pytest.raises(ExportError, match="leaves length of input x free; say how much it is with --size length=NUMB"):
        feed_of([file], rows=2, sizes={})
    assert feed_of([file], rows=2, sizes={"length": 5})["x"].shape == (2, 5, 4)


def test_what_is_said_of_a_size_counts_first(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert feed_of([file], rows=2, sizes={"length": 5, "n": 7})["x"].shape == (7, 5, 4)
    with pytest.raises(ExportError, match="no input has a free size 'height'; there are length, n"):
        feed_of([file], rows=2, sizes={"length": 5, "height": 7})


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [helper.make_tensor_value_info("x", TensorProto.STRING, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.STRING, (1,))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "text.onnx")
    with pytest.raises(ExportError, match="takes x, which is no tensor of numbers"):
        feed_of([read_file(tmp_path / "text.onnx")], rows=1, sizes={})


def test_whole_numbers_are_ones(tmp_path: Path) -> None:
    feed = feed_of([written(tmp_path, kind=TensorProto.INT64)], rows=3, sizes={"length": 2})
    assert feed["x"].dtype == np.int64 and (feed["x"] == 1).all()


def test_files_with_other_inputs_are_not_compared(tmp_path: Path) -> None:
    files = [written(tmp_path, "a.onnx", shape=("n", 4)), written(tmp_path, "b.onnx", shape=("n", 2, 4))]
    with pytest.raises(ExportError, match=r"b.onnx takes x \[1, 2, 4\] of float32, but a.onnx x \[1, 4\] of float32"):
        feed_of(files, rows=1, sizes={})


@pytest.mark.parametrize("apart", [False, True])
def test_what_is_counted(tmp_path: Path, apart: bool) -> None:
    file = written(tmp_path, apart=apart, times=3)
    found = file.subject(feed_of([file], rows=1, sizes={"length": 6}))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert found == Subject("small.onnx", size, parameters=16, macs=3 * 6 * 16, nodes=5)


def test_more_work_takes_longer_and_is_told(tmp_path: Path) -> None:
    files = [written(tmp_path, "one.onnx"), written(tmp_path, "many.onnx", times=300)]
    report = bench(files, sizes={"length": 64}, rows=8, rounds=30, memory=False)
    one, many = report.timings
    assert one.versus is None and many.versus is not None and many.versus.certain and many.versus.low > 1.5
    assert many.median > one.median and many.p90 >= many.median
    assert report.inputs == {"x": (8, 64, 4)} and report.rows == 8


def test_memory_is_that_of_the_file(tmp_path: Path) -> None:
    small, large = written(tmp_path, "small.onnx"), written(tmp_path, "large.onnx", times=2)
    (timing,) = bench([small], sizes={"length": 1}, rounds=20).timings
    (wide,) = bench([large], sizes={"length": 2_000_000}, rounds=20).timings  # 32 MB in, between and out
    assert timing.memory is not None and timing.memory < 2**24
    assert wide.memory is not None and wide.memory > 3 * 32e6


def test_a_file_that_does_not_run_has_a_line_of_its_own(tmp_path: Path) -> None:
    files = [written(tmp_path, "good.onnx"), written(tmp_path, "odd.onnx", domain="somewhere")]
    report = bench(files, sizes={"length": 2}, rounds=20, memory=False)
    good, odd = report.timings
    assert good.seconds and not odd.seconds and "onnxruntime does not load the file" in odd.trouble
    json.dumps(report.to_json(), allow_nan=False)
    assert "odd.onnx" in _shown(report) and "does not load" in _shown(report)
    assert "good.onnx" in bench_svg(report)
    with pytest.raises(ExportError, match="does not load the file"):
        bench(files[1:], sizes={"length": 2}, rounds=20, memory=False)


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match="unknown runtime 'onnx'"):
        bench([written(tmp_path)], runtimes=["onnx"], sizes={"length": 1})


def test_energy_needs_its_extra() -> None:
    with pytest.raises(RuntimeMissingError, match=r"zeus is not installed.*pip install 'graftkit\[energy\]'"):
        Meter()


def test_what_noise_hides_is_not_called_a_difference() -> None:
    subjects = tuple(Subject(name, 1, 1, 1, 1) for name in ("a", "b", "c"))
    runs = {"a": None, "b": Ratio(1.02, 0.99, 1.04), "c": Ratio(1.30, 1.28, 1.31)}
    timings = tuple(Timing(n, "onnxruntime", "1", None, (1e-3, 2e-3), versus) for n, versus in runs.items())
    shown = _shown(BenchReport(subjects, timings, {"x": (1, 2)}, 1, "not asked for"))
    rows = {line.split()[0]: line for line in shown.splitlines() if line.startswith(("b ", "c "))}
    assert "no difference told" in rows["b"] and "0.990 to 1.040" in rows["b"] and "1.020" not in rows["b"]
    assert "1.300" in rows["c"] and "its own number of threads" in shown


def _shown(report: BenchReport) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(bench_table(report))
    return capture.get()


def test_a_board_s_own_sum_counts_once() -> None:
    board = SimpleNamespace(cpu_energy_mj=1000.0, gpu_energy_mj=500.0, total_energy_mj=4000.0)
    assert _sum(SimpleNamespace(soc_energy=board)) == 4.0
    parts = SimpleNamespace(cpu_energy_mj=1000.0, gpu_energy_mj=500.0, total_energy_mj=None)
    assert _sum(SimpleNamespace(soc_energy=parts)) == 1.5
    assert _sum(SimpleNamespace(soc_energy=None, cpu_energy={0: 2.0, 1: 3.0})) == 5.0
    assert _sum(SimpleNamespace(soc_energy=None, cpu_energy=None)) is None


def test_what_is_left_out_of_all_runtimes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MNN_PYTHON", "NCNN_PYTHON", "ONNXRUNTIME_WEB"):
        monkeypatch.delenv(f"GRAFTKIT_{name}", raising=False)
    words = [str(written(tmp_path).path), "--size", "length=1", "--rounds", "20", "--no-memory", "--json"]
    done = CliRunner().invoke(command, [*words, "--runtime", "all"])
    assert done.exit_code == 0, done.output
    (note,) = [line for line in done.stderr.splitlines() if "left out: " in line]
    assert "mnn (" in note and "ncnn (" in note and "GRAFTKIT_MNN_PYTHON" in note and "onnxruntime (" not in note
    runtimes = {timing["runtime"] for timing in json.loads(done.stdout)["timings"]}
    assert {"onnxruntime", "reference"} <= runtimes and not runtimes & {"mnn", "ncnn"}
    named = CliRunner().invoke(command, [*words, "--runtime", "all", "--runtime", "mnn"])
    assert isinstance(named.exception, RuntimeMissingError) and "left out: ncnn" in named.stderr
    assert "left out" not in CliRunner().invoke(command, words).stderr
