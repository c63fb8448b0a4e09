"""How large dendrites are without their base, and how long loading and switching take: sample models, a larger one."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _arms import markdown
from torch import nn

import graftkit as gk
from graftkit.model import GraftedModel, TracedModel

SAMPLES = Path(__file__).parents[1] / "sample_models"
HEADINGS = (
    "model", "parameters", "of dendrites", "model file, bytes", "ONNX file, bytes", "dendrites file, bytes",
    "first load, ms", "second load, ms", "switch, ms",
)  # fmt: skip


def grafted(traced: TracedModel) -> GraftedModel:
    """With the kind `adapter` at every site, and numbers that are not zero."""
    model = gk.graft(traced, gk.make_plan(traced, dendrites="adapter"))
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.normal_(0, 0.1)
    return model


def milliseconds(act: Callable[[], object], times: int) -> float:
    """The median of so many calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return 1e3 * statistics.median(found)


def wide(folder: Path) -> Path:
    """A network of 25 million numbers, as a file."""
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 6144)), folder / "wide.pt")
    return folder / "wide.pt"


def row(name: str, folder: Path) -> list[str]:
    """One model's."""
    file = wide(folder) if name == "wide" else SAMPLES / f"{name}.pt"
    traced = gk.trace(gk.load(file, trust=True), torch.rand(2, 1, 8, 8))
    model = grafted(traced)
    own = sum(p.numel() for p in model.dendrites.parameters())
    alone = gk.save_dendrites(model, folder / "anna.safetensors")
    whole = gk.export(model, folder / f"{name}.onnx")
    first = milliseconds(lambda: gk.load_dendrites(traced, alone), 5)
    held = gk.load_dendrites(traced, alone)
    names = iter(range(5))
    second = milliseconds(lambda: gk.load_dendrites(held, alone, name=f"ben {next(names)}"), 5)
    turns = iter([*held.dendrite_sets] * 20)
    switch = milliseconds(lambda: held.set_dendrites(next(turns)), 100)
    sizes = (model.parameter_count() - own, own, *(path.stat().st_size for path in (file, whole, alone)))
    return [name, *(f"{size:,}" for size in sizes), f"{first:.1f}", f"{second:.1f}", f"{switch:.3f}"]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(markdown(HEADINGS, [row(name, Path(folder)) for name in ("cnn", "mlp", "gru", "vit", "wide")]))


if __name__ == "__main__":
    main()
