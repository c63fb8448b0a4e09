"""How fast onnxruntime runs a folded file, against the same grafted network exported with nothing optimised."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from _ratio import calls_within, compare, print_table

import graftkit as gk
from graftkit import api, folding
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan

AIM = 1.0
MODELS = Path(__file__).parents[1] / "sample_models"
GRAFTS: dict[str, tuple[str, int]] = {"1 full": ("full", 1), "2 full": ("full", 2), "defaults": ("default", 1)}
BATCHES = (1, 32)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pairs", type=int, default=100)
    arguments.add_argument("--only", nargs="*", default=["cnn", "mlp", "vit", "gru"], help="sample models")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [row for name in given.only for grafts in GRAFTS for row in _rows(name, grafts, given.pairs)]
    header = ("model", "dendrites a site", "batch", "nodes", "folded, µs", "not folded, µs", "ratio", "range", "aim")
    print_table(header, rows, packages=["torch", "onnxruntime"])


def _rows(name: str, grafts: str, pairs: int) -> list[str]:
    model = _grafted(name, *GRAFTS[grafts])
    folded = api.to_onnx(model)
    plain = folding.to_onnx(api.fresh_graph(model), model.traced.inputs, opset=20, optimize=False)
    nodes = f"{len(folded.graph.node)} of {len(plain.graph.node)}"
    rows = []
    for batch in BATCHES:
        inputs = np.random.default_rng(0).standard_normal((batch, 1, 8, 8), dtype=np.float32)
        runs = [_session(proto, inputs) for proto in (folded, plain)]
        outputs = [run()[0] for run in runs]
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)
        found = compare(*runs, pairs=pairs, runs=calls_within(runs[1], 4e-3))
        rows.append(f"{name} | {grafts} | {batch} | {nodes} | {found.cells(1e-6, 1)} | ≤ {AIM}")
    return rows


def _grafted(name: str, kind: str, count: int) -> GraftedModel:
    """A sample model with dendrites at the default sites, and numbers in all that is zero at first."""
    torch.manual_seed(0)
    traced = gk.trace(gk.load(MODELS / f"{name}.pt", trust=True), torch.randn(2, 1, 8, 8))
    cycle = gk.make_plan(traced, dendrites=kind)
    model = gk.graft(traced, GraftPlan(cycle.grafts * count))
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


def _session(proto: onnx.ModelProto, inputs: np.ndarray) -> Callable[[], Sequence[np.ndarray]]:
    options = onnxruntime.SessionOptions()  # with its own graph optimisations on, as they are by default
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: inputs}
    for _ in range(20):
        session.run(None, feed)
    return lambda: session.run(None, feed)


if __name__ == "__main__":
    main()
