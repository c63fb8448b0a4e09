"""Files with a gate in every runtime: rows on both sides of the threshold, alone and in batches; see docs/gate.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graftkit as gk
from graftkit.core.errors import ExportError, RuntimeMissingError
from graftkit.folding import gated
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES
from graftkit.shipping import build

SAMPLE = Path(__file__).parents[2] / "sample_models/cnn.pt"
ROWS = 24

# Which runtimes take no gate: ncnn knows neither a comparison nor a minimum over the rows.
WITHOUT = {"ncnn"}


@dataclass(frozen=True, eq=False)
class Gate:
    """A file, real rows of which about half are below its threshold, and what each has to become."""

    content: bytes
    input: str
    rows: np.ndarray
    right: np.ndarray


def cnn(kind: str) -> GraftedModel:
    """The sample model with its default dendrites, or others, everywhere."""
    return grafted(gk.load(SAMPLE, trust=True), kind, "*" if kind else "")


def frozen() -> GraftedModel:
    """A network whose dendrites are all that was learned, at its middle layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    return grafted(net.eval(), "full", "3")


def grafted(module: object, kind: str, sites: str) -> GraftedModel:
    example = torch.from_numpy(digits()[:2])
    traced = gk.trace(module, example, dynamic="batch")  # ncnn takes no other free sizes  # type: ignore[arg-type]
    model = gk.graft(traced, gk.make_plan(traced, dendrites=kind or (), sites=sites or ()))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


def digits() -> np.ndarray:
    validation = gk.load_data("digits").validation
    return torch.stack([validation[index][0] for index in range(ROWS)]).numpy()


NETS: dict[str, Callable[[], GraftedModel]] = {
    "cnn, default": lambda: cnn(""),
    "cnn, full": lambda: cnn("full"),
    "frozen, full": frozen,
}


@pytest.fixture(scope="module", params=NETS)
def gate(request: pytest.FixtureRequest) -> Gate:
    model, rows = NETS[request.param](), digits()
    (name,) = model.traced.signature.input_names
    both = [build(model, dendrites=which).whole() for which in (False, True)]
    base, full = (RUNTIMES["onnxruntime"].open(each.SerializeToString())({name: rows})[0] for each in both)
    confidence = torch.from_numpy(base).softmax(1).max(1).values.numpy()
    threshold = between(confidence)
    right = np.where(confidence[:, None] >= threshold, base, full)
    assert np.abs(base - full).max(1).min() > 0.01 * np.abs(right).max()  # or both sides would be alike
    return Gate(gated(*both, threshold).SerializeToString(), name, rows, right)


def between(confidence: np.ndarray) -> float:
    """The middle of the widest gap around the half of the rows, so that rounding moves no row across."""
    ordered = np.sort(confidence)
    at = ROWS // 3 + int(np.diff(ordered[ROWS // 3 : -ROWS // 3]).argmax())
    return float(ordered[at] + ordered[at + 1]) / 2


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Every runtime that is there; all have to be under `make runtimes`."""
    try:
        RUNTIMES[request.param].version()
    except RuntimeMissingError as error:
        assert not os.environ.get("GRAFTKIT_ALL_RUNTIMES"), error
        pytest.skip(str(error))
    return str(request.param)


def test_each_row_gets_the_answer_that_is_its(gate: Gate, runtime: str) -> None:
    if runtime in WITHOUT:
        with pytest.raises(ExportError, match=r"does not load the file: (layer torch.ge not|min along batch axis)"):
            RUNTIMES[runtime].open(gate.content)
        return
    run = RUNTIMES[runtime].open(gate.content, threads=1)
    for count in (1, 2, 7, ROWS):
        parts = [run({gate.input: gate.rows[start : start + count]})[0] for start in range(0, ROWS, count)]
        np.testing.assert_allclose(np.concatenate(parts), gate.right, rtol=0, atol=1e-4 * np.abs(gate.right).max())
