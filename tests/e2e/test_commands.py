"""`inspect`, `export`, `verify` and the help, on runs that `augment` made."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from e2e_tools import RUNS, Lane, run_cli
from onnx import numpy_helper

import graftkit as gk
from graftkit.runtimes import RUNTIMES

COMMANDS = ("augment", "inspect", "export", "transplant", "verify", "bench", "check")

# Name of a command line -> its words; "weak" is a run's folder and "cnn.pt" a model file.
LINES: dict[str, tuple[str, ...]] = {
    "model json": ("inspect", "cnn.pt", "--json"),
    "model table": ("inspect", "vit.pt", "--trust"),
    "program json": ("inspect", "program.pt2", "--format", "json"),
    "factory table": ("inspect", "nets:regress", "--input", "6"),
    "value table": ("inspect", "--value", "budget"),
    "value json": ("inspect", "--value", "budget", "--json"),
    "value svg": ("inspect", "--value", "budget", "--format", "svg", "--out", "values.svg"),
    "value of none": ("inspect", "--value", "weak"),
    "value of a file": ("inspect", "--value", "cnn.pt"),
    "run json": ("inspect", "weak", "--format", "json"),
    "run table": ("inspect", "weak"),
    "run dot": ("inspect", "weak", "--format", "dot"),
    "run svg": ("inspect", "weak", "--format", "svg", "--out", "picture.svg"),
    "onnx json": ("inspect", "weak/model.onnx", "--json"),
    "foreign json": ("inspect", "foreign.onnx", "--json"),
    "foreign table": ("inspect", "foreign.onnx"),
    "verify": ("verify", "weak", "--json"),
    "verify both": ("verify", "weak", "--runtime", "onnxruntime", "--runtime", "reference"),
    "verify all": ("verify", "weak/model.onnx", "--against", "weak", "--runtime", "all", "--json"),
    "verify broken": ("verify", "corrupted.onnx", "--against", "weak", "--runtime", "onnxruntime"),
    "verify broken in two": (
        "verify",
        "corrupted.onnx",
        "--against",
        "weak",
        "--runtime",
        "reference",
        "--runtime",
        "onnxruntime",
    ),
    "verify a file": ("verify", "weak/model.onnx"),
    "verify in an unknown one": ("verify", "weak", "--runtime", "onxruntime"),
    "export again": ("export", "weak", "--opset", "22", "--out", "again.onnx", "--json"),
    "export over": ("export", "weak", "--opset", "22"),
    "export int8": ("export", "weak", "--precision", "int8", "--tolerance", "0.05", "--out", "small.onnx", "--json"),
    "export int4": ("export", "weak", "--precision", "int4", "--opset", "20"),
    "export int7": ("export", "weak", "--precision", "int7"),
    "export wide": ("export", "weak", "--layout", "wide", "--out", "wide.onnx", "--json"),
    "export auto": ("export", "weak", "--layout", "auto", "--threads", "1", "--out", "auto.onnx"),
    "export threads": ("export", "weak", "--threads", "2"),
    "bench": (
        "bench",
        "weak",
        "weak/model.onnx",
        "--runtime",
        "onnxruntime",
        "--runtime",
        "reference",
        "--threads",
        "1",
        "--rounds",
        "20",
        "--no-memory",
        "--plot",
        "bench.svg",
    ),
    "bench json": ("bench", "weak/model.onnx", "weak/model.onnx", "--rounds", "30", "--rows", "3", "--json"),
    "bench all": (
        "bench",
        "weak/model.onnx",
        "--runtime",
        "all",
        "--rounds",
        "20",
        "--no-memory",
        "--json",
    ),
    "bench others": ("bench", "weak/model.onnx", "foreign.onnx"),
    "bench unknown": ("bench", "weak/model.onnx", "--size", "height=8"),
    "bench nothing": ("bench", "nowhere.onnx"),
    "bench size": ("bench", "weak/model.onnx", "--size", "height=x"),
    "check": ("check", "weak/model.onnx", "--target", "tensorrt", "--target", "tflite", "--json"),
    "check all": ("check", "weak/model.onnx", "--target", "all"),
    "check nothing": ("check", "images", "--target", "rknn"),
    "check unknown": ("check", "weak/model.onnx", "--target", "tensorr"),
    "changed source": ("verify", "moved"),
    "changed export": ("export", "moved", "--out", "no.onnx"),
    "no run": ("verify", "images"),
    "no onnx": ("verify", "nowhere.onnx", "--against", "weak"),
}


@pytest.fixture(scope="module")
def lines(runs, workshop, request):
    """What each command line of `LINES` gave; the first of each command in a process of its own."""
    names = [name for item in request.session.items for mark in item.iter_markers("lines") for name in mark.args]
    read = {word.partition("/")[0] for name in names for word in LINES[name]} & {*RUNS}
    for name in ("weak", *read):
        assert runs[name].returncode == 0, runs[name]
    first = {LINES[name][0]: name for name in reversed(names)}
    _corrupt(workshop / "weak/model.onnx", workshop / "corrupted.onnx", site="4")
    _change_source(workshop)
    lane = Lane(names, lambda name: run_cli(*LINES[name], cwd=workshop, forked=name not in first.values()))
    yield lane
    lane.close()


def _corrupt(model: Path, target: Path, *, site: str) -> None:
    """Add to the first weight that only the nodes of a site read."""
    proto = onnx.load(model)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    own = {"key": "graftkit.site", "value": site}
    node = next(n for n in proto.graph.node if any(p.key == own["key"] and p.value == site for p in n.metadata_props))
    name = next(name for name in node.input if name in weights)
    weights[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[name]) + np.float32(0.5), name))
    onnx.save(proto, target)


def _change_source(workshop: Path) -> None:
    """A run's folder whose model file has become another one."""
    shutil.copytree(workshop / "weak", workshop / "moved")
    facts = json.loads((workshop / "moved/source.json").read_text())
    facts["source"] = str(workshop / "three.pt")
    (workshop / "moved/source.json").write_text(json.dumps(facts))


def good(lines: Lane, *names: str) -> list[str]:
    done = [lines[name] for name in names]
    assert all(one.returncode == 0 and "Traceback" not in one.stderr and "\x1b" not in one.stdout for one in done), done
    return [one.stdout for one in done]


def refused(lines: Lane, name: str) -> str:
    done = lines[name]
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.last.startswith("graftkit: ") and done.stderr.count("graftkit: ") == 1, done
    return done.last


@pytest.mark.runs("weak")
@pytest.mark.lines("run json", "onnx json", "run table")
def test_a_run_and_its_plain_onnx_file_say_the_same(lines):
    run, file, table = good(lines, "run json", "onnx json", "run table")
    run, file = json.loads(run), json.loads(file)
    assert run["sites"] == file["sites"] and (run["format"], file["format"]) == ("run", "onnx")
    assert (run["parameters"], run["macs"], run["edges"]) == (file["parameters"], file["macs"], file["edges"])
    assert [site["site"] for site in run["sites"]] == ["0", "4", "6"]
    assert [len(site["dendrites"]) for site in run["sites"]] == [1, 1, 0]
    assert run["sites"][0]["dendrites"][0].keys() >= {"kind", "count", "neurons", "strength"}
    assert isinstance(run["sites"][0]["gain"], float)
    assert "context ×1" in table and "lowrank ×1" in table and "3 sites" in table


@pytest.mark.runs("weak")
@pytest.mark.lines("run dot", "run svg")
def test_pictures(lines, workshop):
    dot, nothing = good(lines, "run dot", "run svg")
    assert dot.startswith("digraph") and dot.rstrip().endswith("}") and '"0\\nconv2d' in dot
    assert nothing == ""
    root = ElementTree.parse(workshop / "picture.svg").getroot()
    assert root.tag.endswith("svg") and "context" in "".join(root.itertext())


@pytest.mark.runs("weak", "budget")
@pytest.mark.lines("value table", "value json", "value svg", "value of none", "value of a file")
def test_what_dendrites_were_worth(lines, runs, workshop):
    assert runs["budget"].returncode == 0, runs["budget"]
    table, text, nothing = good(lines, "value table", "value json", "value svg")
    found = json.loads(text)
    assert found == json.loads((workshop / "budget/values.json").read_text())
    for value in found["values"]:
        assert value["site"] in table and value["kind"] in table
    assert "worth" in table and "Budget: " in table and nothing == ""
    assert ElementTree.parse(workshop / "values.svg").getroot().tag.endswith("svg")
    assert "weak valued no dendrites" in refused(lines, "value of none")
    assert "cnn.pt is no run's folder" in refused(lines, "value of a file")


@pytest.mark.runs("weak")
@pytest.mark.lines("model json", "model table", "program json", "factory table")
def test_model_files_are_traced_and_shown(lines):
    module, vit, program, factory = good(lines, "model json", "model table", "program json", "factory table")
    module, program = json.loads(module), json.loads(program)
    keys = ("operator", "parameters", "macs")  # the program was exported with a free batch alone
    assert [[s[k] for k in keys] for s in module["sites"]] == [[s[k] for k in keys] for s in program["sites"]]
    assert all(site["dendrites"] == [] and site["gain"] is None for site in module["sites"])
    assert "blocks.0.attention" in vit and "10 sites" in vit
    assert "linear 6→8" in factory and "linear 8→1" in factory


@pytest.mark.runs("weak")
@pytest.mark.lines("foreign json", "foreign table")
def test_any_onnx_file_is_shown(lines):
    text, table = good(lines, "foreign json", "foreign table")
    found = json.loads(text)
    assert [(s["site"], s["operator"], s["dendrites"]) for s in found["sites"]] == [
        ("first", "conv2d", []),
        ("last", "linear", []),
    ]
    assert {"source": "first", "target": "last"} in found["edges"]
    assert "first" in table and "last" in table


@pytest.mark.runs("weak")
@pytest.mark.lines("export again", "export over")
def test_export_writes_another_opset_and_overwrites_nothing(lines, workshop):
    before = (workshop / "weak/model.onnx").read_bytes()
    written = json.loads(good(lines, "export again")[0])
    assert (written["model"], written["opset"]) == ("again.onnx", 22) and written["parity"]["onnxruntime"] < 1e-4
    model = onnx.load(workshop / "again.onnx")
    assert model.opset_import[0].version == 22
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    outputs = [_run(workshop / name, x) for name in ("again.onnx", "weak/model.onnx")]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    assert "exists already; pass --force" in refused(lines, "export over")
    assert (workshop / "weak/model.onnx").read_bytes() == before


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.runs("weak")
def test_export_with_force_replaces_the_file(runs, workshop):
    assert runs["weak"].returncode == 0
    shutil.copytree(workshop / "weak", workshop / "forced")
    done = run_cli("export", "forced", "--opset", "18", "--force", cwd=workshop)
    assert done.returncode == 0 and done.stdout.startswith("Written: forced/model.onnx (opset 18;"), done
    assert onnx.load(workshop / "forced/model.onnx").opset_import[0].version == 18


@pytest.mark.runs("weak")
@pytest.mark.lines("verify", "verify both")
def test_verify_passes_on_what_augment_wrote(lines, workshop):
    text, both = good(lines, "verify", "verify both")
    found = json.loads(text)
    ours = found["runtimes"].pop("onnxruntime")
    metrics = json.loads((workshop / "weak/metrics.json").read_text())
    assert (found["model"], found["against"], found["runtimes"]) == ("weak/model.onnx", "weak", {})
    assert found["metric"] == "accuracy" and ours["difference"] < found["tolerance"] == 1e-4
    assert ours["metric"] == pytest.approx(metrics["grafted"]["validation"])
    assert (ours["version"], ours["loads"], ours["trouble"]) == (onnxruntime.__version__, True, None)
    assert 0 < ours["latency_ms"] < 1000
    header, *rows = both.splitlines()
    assert header.split() == ["runtime", "version", "loads", "difference", "accuracy", "one", "row"]
    assert [row.split()[0] for row in rows] == ["onnxruntime", "reference"]
    assert all(row.split()[2] == "yes" and row.endswith(" ms") for row in rows)


@pytest.mark.runs("weak")
@pytest.mark.lines("verify all")
def test_all_runtimes_are_told_of_and_those_that_are_not_there_are_no_failure(lines):
    found = json.loads(good(lines, "verify all")[0])["runtimes"]
    assert list(found) == list(RUNTIMES)
    for name in ("onnxruntime", "reference", "openvino", "tract"):
        assert found[name]["loads"] and found[name]["difference"] < 1e-4
    assert len({round(one["metric"], 3) for one in found.values() if one["installed"]}) == 1
    for one in found.values():
        assert one["installed"] == (one["trouble"] is None)


@pytest.mark.runs("weak")
@pytest.mark.lines("verify broken", "verify broken in two")
def test_verify_names_the_site_that_was_tampered_with(lines):
    one, two = lines["verify broken"], lines["verify broken in two"]
    assert one.returncode == two.returncode == 1
    assert one.last.startswith("graftkit: onnxruntime gives") and "first part at site '4'" in one.last
    assert two.last == "graftkit: 2 runtimes do not compute it: reference, onnxruntime"
    names = [line.split()[0] for line in two.stdout.splitlines() if not line.startswith(" ")]
    assert names == ["runtime", "reference", "onnxruntime"]
    assert two.stdout.count("first part at site '4'") == 2 and "\x1b" not in two.stdout


@pytest.mark.runs("weak")
@pytest.mark.lines("verify in an unknown one", "verify a file")
def test_a_runtime_that_was_named_has_to_be_there(lines, workshop, monkeypatch):
    monkeypatch.setenv("GRAFTKIT_MNN_PYTHON", "/nowhere")
    done = run_cli("verify", "weak", "--runtime", "mnn", "--runtime", "onnxruntime", cwd=workshop)
    assert done.returncode == 1 and "GRAFTKIT_MNN_PYTHON names /nowhere" in done.last
    assert "mnn" in done.stdout and "not installed" in done.stdout and "yes" in done.stdout
    assert "Did you mean onnxruntime" in refused(lines, "verify in an unknown one")
    assert "--against RUN" in refused(lines, "verify a file")


@pytest.mark.runs("weak")
@pytest.mark.lines("changed source", "changed export", "no run", "no onnx")
def test_what_no_longer_fits_together_is_refused(lines, workshop):
    assert "has changed since" in refused(lines, "changed source")
    assert "has changed since" in refused(lines, "changed export") and not (workshop / "no.onnx").exists()
    assert "graftkit export" in refused(lines, "no onnx")
    refused(lines, "no run")


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)], ids=" ".join)
def test_help(tmp_path, words):
    done = run_cli(*words, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: graftkit") and all(len(line) <= 80 for line in done.stdout.splitlines())
    assert all(command in done.stdout for command in (words or COMMANDS))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("augment", "x.pt", "--frobnicate"), "No such option"),
        (("augment",), "Missing argument 'MODEL'"),
        (("augment", "x.pt", "--epochs", "0"), "Invalid value for '--epochs'"),
        (("augment", "x.pt", "--epochs", "many"), "Invalid value for '--epochs'"),
        (("augment", "x.pt", "--learning-rate", "0"), "Invalid value for '--learning-rate'"),
        (("augment", "x.pt", "--join", "elsewhere"), "Invalid value for '--join'"),
        (("augment", "x.pt", "--opset", "26"), "Invalid value for '--opset': 26"),
        (("export", "x", "--opset", "16"), "Invalid value for '--opset': 16"),
        (("inspect", "x.pt", "--format", "jpeg"), "Invalid value for '--format'"),
        (("export",), "Missing argument 'RUN|MODEL'"),
        (("verify",), "Missing argument 'RUN|MODEL'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_told_apart(tmp_path, words, says):
    done = run_cli(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("Usage: graftkit") and says in done.last, done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.runs("weak")
@pytest.mark.lines("export int8", "export int4", "export int7")
def test_a_run_in_smaller_numbers(lines, workshop):
    (text,) = good(lines, "export int8")
    told = json.loads(text)
    assert told["precision"] == "int8" and told["metric"] == "accuracy"
    assert told["validation"]["fp32"] - told["validation"]["int8"] <= 0.05
    assert told["bytes"]["int8"] == (workshop / "small.onnx").stat().st_size
    proto = onnx.load(workshop / "small.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in proto.graph.node}
    assert [site.site for site in gk.inspect(workshop / "small.onnx").sites] == ["0", "4", "6"]
    assert "int4 needs opset 21 or newer; pass --opset 21" in refused(lines, "export int4")
    assert "unknown precision 'int7'; there are fp16, bf16, int8, int4" in refused(lines, "export int7")
    assert not list((workshop / "weak").glob("model-*"))


@pytest.mark.runs("weak")
@pytest.mark.lines("check", "check all", "check nothing", "check unknown")
def test_a_file_held_against_targets(lines):
    (text,) = good(lines, "check")
    told = json.loads(text)
    assert told["run"] is False and [told["targets"][name]["findings"] for name in ("tensorrt", "tflite")] == [[], []]
    every = lines["check all"]
    assert every.returncode == 1 and "graftkit: " not in every.stderr, every
    assert "tensorrt: nothing known against it" in every.stdout and "not run" in every.stdout
    assert "opset 20; its list is of 1 to 19. What to do: export with --opset 19" in every.stdout
    assert "coremltools reads no ONNX file" in every.stdout and "torch.export" in every.stdout
    assert "not a readable ONNX file" in refused(lines, "check nothing")
    assert "unknown target 'tensorr'" in refused(lines, "check unknown")


@pytest.mark.runs("weak")
@pytest.mark.lines("export wide", "export auto", "export threads")
def test_export_in_layouts(lines, workshop):
    told, words = good(lines, "export wide", "export auto")
    layouts = json.loads(told)["layouts"]
    assert set(layouts.values()) <= {"wide"} and "in the layout" not in told
    assert words.startswith("Written: auto.onnx (opset 20; largest relative difference: onnxruntime ")
    first = np.random.RandomState(0).rand(3, 1, 8, 8).astype(np.float32)
    outputs = [
        onnxruntime.InferenceSession(workshop / file).run(None, {"input": first})[0]
        for file in ("weak/model.onnx", "wide.onnx", "auto.onnx")
    ]
    for found in outputs[1:]:
        np.testing.assert_allclose(found, outputs[0], rtol=1e-4, atol=1e-5)
    done = lines["export threads"]
    assert done.returncode == 2 and "where --layout auto and --gate measure" in done.stderr


@pytest.mark.runs("weak")
@pytest.mark.lines("bench", "bench json")
def test_files_side_by_side(lines, workshop):
    table, told = good(lines, "bench", "bench json")
    rows = table.splitlines()
    assert rows[0].split() == ["file", "parameters", "multiply-adds", "a", "row", "nodes", "bytes"]
    assert [row.split("  ")[0] for row in rows[1:4]] == ["weak: given = control", "weak: grafted", "weak/model.onnx"]
    assert sum(row.startswith(("onnxruntime 1.", "reference 1.")) for row in rows) == 2
    picture = ElementTree.parse(workshop / "bench.svg").getroot()
    assert "weak: grafted" in "".join(picture.itertext())
    report = json.loads(told)
    assert report["inputs"] == {"input": [3, 1, 8, 8]} and report["rows"] == 3
    first, second = report["timings"]
    assert [file["name"] for file in report["files"]] == ["weak/model.onnx", "weak/model.onnx (2)"]
    assert report["files"][0]["size"] == (workshop / "weak/model.onnx").stat().st_size
    assert first["versus"] is None and 0 < second["versus"]["low"] <= second["versus"]["median"]
    assert first["rows_per_second"] == pytest.approx(3 / first["median"]) and first["p90"] >= first["median"]
    assert first["memory"] >= 0 and first["energy"] is None and report["energy"] == "not asked for"
    assert len(first["turns"]) == 30


@pytest.mark.runs("weak")
@pytest.mark.lines("bench all", "verify all")
def test_runtimes_that_are_not_there_are_named(lines):
    """Once, beside what is measured in the others."""
    measured, verified = (json.loads(told) for told in good(lines, "bench all", "verify all"))
    there = {name for name, check in verified["runtimes"].items() if check["installed"]}
    missing = {name: check["trouble"] for name, check in verified["runtimes"].items() if not check["installed"]}
    assert {timing["runtime"] for timing in measured["timings"]} == there
    notes = [line for line in lines["bench all"].stderr.splitlines() if "left out: " in line]
    wanted = "  note: left out: " + "; ".join(f"{name} ({why})" for name, why in missing.items())
    assert notes == ([wanted] if missing else [])


@pytest.mark.runs("weak")
@pytest.mark.lines("bench others", "bench unknown", "bench nothing", "bench size")
def test_what_cannot_be_measured(lines):
    assert "only files with the same inputs can be compared" in refused(lines, "bench others")
    assert "no input has a free size 'height'; there are batch" in refused(lines, "bench unknown")
    assert "nowhere.onnx is neither an ONNX file nor a run's folder" in refused(lines, "bench nothing")
    done = lines["bench size"]
    assert done.returncode == 2 and "'height=x' is not NAME=NUMBER" in done.stderr
