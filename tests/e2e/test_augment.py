"""`graftkit augment` from end to end: every format, every kind of data, and what the run's folder says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from e2e_tools import RUNS
from safetensors.torch import load_file

import graftkit as gk

FILES = (
    "request.json",
    "source.json",
    "plan.json",
    "model.onnx",
    "history.jsonl",
    "metrics.json",
    "report.html",
    "inspection.json",
)
SAMPLES = ("cnn", "mlp", "vit", "gru")
GROWN = ("weak", "correlation", "seeds", "chosen", "state", "safe", "function", "loaders", "folder")


def metrics_of(workshop: Path, run: str) -> dict:
    return json.loads((workshop / run / "metrics.json").read_text())


def sites_of(workshop: Path, run: str) -> list[str]:
    return [graft["site"] for graft in json.loads((workshop / run / "plan.json").read_text())["grafts"]]


def session_of(workshop: Path, run: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(workshop / run / "model.onnx", providers=["CPUExecutionProvider"])


def outputs_of(session: onnxruntime.InferenceSession, x: np.ndarray) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def accuracy_of(workshop: Path, run: str, data: str, part: str) -> float:
    rows = getattr(gk.load_data(data, input_shape=(-1, 1, 8, 8)), part)
    x, y = zip(*(rows[index] for index in range(len(rows))), strict=True)
    scores = outputs_of(session_of(workshop, run), torch.stack(x).numpy())
    return float((scores.argmax(1) == torch.stack(y).numpy()).mean())


@pytest.mark.parametrize("run", RUNS)
def test_every_run_ends_well_and_leaves_a_whole_folder(runs, workshop, run):
    done = runs[run]
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done
    assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout + done.stderr, done
    folder = workshop / run
    more = ("values.json",) if "--budget" in RUNS[run] else ()
    assert sorted(p.name for p in folder.iterdir()) == sorted((*FILES, *more, "checkpoint"))
    told = metrics_of(workshop, run)
    kept = ["control"] if told["control"] is not None else []
    kept += ["grafted"] if told["shipped"] == "given" and told["best_grafted"] is not None else []
    files = [*(f"{name}{ending}" for name in kept for ending in (".json", ".safetensors"))]
    written = sorted(p.name for p in (folder / "checkpoint").iterdir())
    assert written == sorted([*files, "model.safetensors", "state.json"])
    assert [p.name for p in workshop.iterdir() if p.name.startswith(f".{run}")] == []
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert history and {"arm", "cycle", "phase", "epochs", "validation"} <= history[0].keys()
    page = (folder / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "<svg" in page
    assert 'src="http' not in page and 'href="http' not in page and "@import" not in page


@pytest.mark.parametrize("run", RUNS)
def test_metrics_have_the_documented_keys_and_fit_the_plan(runs, workshop, run):
    assert runs[run].returncode == 0, runs[run]
    metrics = metrics_of(workshop, run)
    for arm in ("baseline", "control", "grafted"):
        if arm == "control" and "--no-control" in RUNS[run]:
            assert metrics[arm] is None
            continue
        assert metrics[arm].keys() == {"validation", "test", "parameters", "macs"}
        assert math.isfinite(metrics[arm]["validation"])
    assert metrics["seed"] == (3 if run.startswith("weak") else 0)
    assert 0 <= metrics["parity"]["onnxruntime"] < 1e-4
    assert metrics["runtime_metric"]["onnxruntime"] == pytest.approx(metrics["grafted"]["validation"], abs=5e-3)
    grafts = sites_of(workshop, run)
    if metrics["shipped"] == "given":
        assert not grafts and metrics["grafted"] == metrics["baseline"]
    else:
        assert metrics["shipped"] == "grafted" and grafts
        assert metrics["grafted"]["validation"] > metrics["baseline"]["validation"]
        assert metrics["grafted"]["parameters"] > metrics["baseline"]["parameters"]
        assert metrics["best_grafted"] == metrics["grafted"]


@pytest.mark.parametrize("run", RUNS)
def test_the_onnx_file_is_plain_and_takes_any_batch(runs, workshop, run):
    assert runs[run].returncode == 0, runs[run]
    words = RUNS[run]
    opset = int(words[words.index("--opset") + 1]) if "--opset" in words else 20
    model = onnx.load(workshop / run / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"} and not model.functions
    assert not any(node.op_type in ("BatchNormalization", "Identity", "Dropout") for node in model.graph.node)
    text = str(model)
    assert str(workshop) not in text and "site-packages" not in text and ".py" not in text
    session = session_of(workshop, run)
    row = [size if isinstance(size, int) else 8 for size in session.get_inputs()[0].shape[1:]]  # a name is free
    for size in (1, 5):
        outputs = outputs_of(session, np.random.default_rng(0).random((size, *row), dtype=np.float32))
        assert len(outputs) == size and np.isfinite(outputs).all()


@pytest.mark.runs(*SAMPLES, "weak")
@pytest.mark.parametrize("run", [*SAMPLES, "weak", "cnn_bf16", "program"])
def test_metrics_are_those_of_the_file_that_ships(runs, workshop, run):
    assert runs[run].returncode == 0, runs[run]
    found = metrics_of(workshop, run)["grafted"]
    assert accuracy_of(workshop, run, "digits", "validation") == pytest.approx(found["validation"], abs=1e-9)
    assert accuracy_of(workshop, run, "digits", "test") == pytest.approx(found["test"], abs=1e-9)


@pytest.mark.parametrize("run", [run for run, words in RUNS.items() if "--json" in words])
def test_json_is_metrics_json_and_nothing_else(runs, workshop, run):
    assert runs[run].stdout == (workshop / run / "metrics.json").read_text()


@pytest.mark.parametrize("run", GROWN)
def test_an_untrained_model_gains_and_what_was_grafted_ships(runs, workshop, run):
    done = runs[run]
    assert metrics_of(workshop, run)["shipped"] == "grafted", done
    assert "baseline (as given)" in done.stdout and "Verified against the trained model" in done.stdout
    assert f"{run}/model.onnx" in done.stdout
    assert all(line.startswith(("- ", "  ")) for line in done.stderr.splitlines()), done.stderr


@pytest.mark.runs("budget")
def test_a_budget_is_spent_and_told(runs, workshop):
    done = runs["budget"]
    assert done.returncode == 0, done
    metrics, values = metrics_of(workshop, "budget"), json.loads((workshop / "budget/values.json").read_text())
    budget = metrics["budget"]
    assert (budget["cost"], budget["epochs"]) == ("parameters", 2)
    assert budget["given"] == metrics["baseline"]["parameters"]
    assert budget["spent"] <= budget["allowance"] == pytest.approx(0.08 * budget["given"])
    assert {key: values[key] for key in budget} == budget
    assert metrics["best_grafted"]["parameters"] - budget["given"] == budget["spent"] > 0
    assert "Budget: " in done.stdout and "- valuing dendrites" in done.stderr
    assert "trial (all candidates at once)" in done.stderr
    assert "what the budget went to" in (workshop / "budget/report.html").read_text()
    kept = {(value["site"], value["kind"]) for value in values["values"] if value["kept"]}
    plan = json.loads((workshop / "budget/plan.json").read_text())["grafts"]
    assert metrics["shipped"] == "grafted" and {(graft["site"], graft["kind"]) for graft in plan} == kept


@pytest.mark.runs("shrunk")
def test_a_shrunk_network_gets_both_kinds_and_two_controls(runs, workshop):
    assert runs["shrunk"].returncode == 0, runs["shrunk"]
    history = [json.loads(line) for line in (workshop / "shrunk/history.jsonl").read_text().splitlines()]
    assert {record["arm"] for record in history} == {"grafted", "control", "control, not shrunk"}
    settings = metrics_of(workshop, "shrunk")["settings"]
    assert (settings["shrink"], settings["label_smoothing"]) == (0.3, 0.1)
    plan = [
        (graft["site"], graft["kind"]) for graft in json.loads((workshop / "shrunk/plan.json").read_text())["grafts"]
    ]
    assert len(plan) == 0 or {kind for _, kind in plan} == {"context", "full"}
    assert "control, not shrunk" in runs["shrunk"].stderr


@pytest.mark.runs("frozen_base")
def test_a_frozen_base_keeps_its_weights(runs, workshop):
    assert runs["frozen_base"].returncode == 0, runs["frozen_base"]
    given = torch.load(workshop / "weak.pt", weights_only=False).state_dict()
    kept = load_file(workshop / "frozen_base/checkpoint/model.safetensors")
    base = {name.removeprefix("base."): tensor for name, tensor in kept.items() if name.startswith("base.")}
    assert len(set(base) & set(given)) >= 6
    assert all(torch.equal(tensor, given[name]) for name, tensor in base.items() if name in given)
    assert metrics_of(workshop, "frozen_base")["settings"]["rule"] == "gradient:freeze=true"


@pytest.mark.runs("weak", "weak_again")
def test_the_same_seed_gives_the_same_result_bit_for_bit(runs, workshop):
    assert runs["weak"].returncode == runs["weak_again"].returncode == 0
    first, again = (workshop / name for name in ("weak", "weak_again"))
    for file in ("checkpoint/model.safetensors", "plan.json", "history.jsonl", "metrics.json", "model.onnx"):
        assert (first / file).read_bytes() == (again / file).read_bytes(), file


@pytest.mark.runs("correlation")
def test_correlation_detaches_and_says_which_neurons_beat_chance(runs, workshop):
    done = runs["correlation"]
    plan = json.loads((workshop / "correlation/plan.json").read_text())
    assert plan["grafts"] and all(graft["detach"] for graft in plan["grafts"])
    history = [json.loads(line) for line in (workshop / "correlation/history.jsonl").read_text().splitlines()]
    assert [record["phase"] for record in history] == ["dendrite", "neuron"]
    assert "beat chance" in history[0]["note"] and "beat chance" in done.stderr


@pytest.mark.runs("seeds")
def test_seeds_and_a_cap_on_parameters(runs, workshop):
    metrics = metrics_of(workshop, "seeds")
    assert [record["seed"] for record in metrics["seeds"]] == [0, 1]
    assert all(record["control"] is None for record in metrics["seeds"])
    assert 4330 < metrics["grafted"]["parameters"] <= 4330 * 1.05
    assert sites_of(workshop, "seeds") == ["0"]  # the other site's dendrite would not fit
    assert "2 seeds" in runs["seeds"].stdout


@pytest.mark.runs("chosen")
def test_sites_and_dendrites_are_those_that_were_asked_for(runs, workshop):
    assert runs["chosen"].returncode == 0
    grafts = json.loads((workshop / "chosen/plan.json").read_text())["grafts"]
    assert [(g["site"], g["kind"], g["join"], g["options"].get("rank")) for g in grafts] == [
        ("0", "pointwise", "call", None),
        ("6", "lowrank", "call", 3),
    ]
    found = json.loads((workshop / "chosen/inspection.json").read_text())["sites"]
    assert {site["site"]: len(site["dendrites"]) for site in found} == {"0": 1, "4": 0, "6": 1}
    assert all((site["gain"] is not None) == bool(site["dendrites"]) for site in found)


@pytest.mark.runs("safe", "given_names")
def test_floats_are_values_with_squared_error_and_r2(runs, workshop):
    assert runs["safe"].returncode == 0, runs["safe"]
    metrics, source = metrics_of(workshop, "safe"), json.loads((workshop / "safe/source.json").read_text())
    assert (metrics["metric"], source["loss"]) == ("r2", "mse")
    values = np.load(workshop / "values.npz")
    outputs = outputs_of(session_of(workshop, "safe"), values["x_test"])[:, 0]
    r2 = 1 - ((outputs - values["y_test"]) ** 2).sum() / ((values["y_test"] - values["y_test"].mean()) ** 2).sum()
    assert metrics["grafted"]["test"] == pytest.approx(r2, abs=1e-4)
    named = json.loads((workshop / "given_names/source.json").read_text())
    assert (named["loss"], named["metric"]) == (RUNS["given_names"][-3], RUNS["given_names"][-1])


@pytest.mark.runs("program", "state", "folder", "function")
def test_what_the_user_has_to_know_is_said(runs, workshop):
    split = "the given model may have learned from those rows, which flatters it"
    assert split in runs["state"].stderr and split in metrics_of(workshop, "state")["warnings"][0]
    assert split not in runs["folder"].stderr and split not in runs["function"].stderr
    assert json.loads((workshop / "program/source.json").read_text())["provenance"]["format"] == "pt2"
    assert Path(json.loads((workshop / "function/source.json").read_text())["source"]).is_absolute()
    assert metrics_of(workshop, "folder")["baseline"]["test"] is None
