"""One network with the same dendrites as an ONNX file: graftkit's beside what torch exports of PerforatedAI 3.2.9's.

Each Conv and Linear has one dendrite, a copy of it through a sigmoid; both files hold the same number of parameters.
PerforatedAI's model grows in an interpreter of its own, which needs onnx and onnxscript besides, and is exported there
by `torch.onnx.export`, by tracing, since the newer exporter refuses it; its file is held against its model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _nets
import numpy as np
import torch
from _perforated import _blocks, _configure, _contained, _deployed
from speed_perforated import net
from torch import nn

NETS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # channels, and a row
    "spoken words, 8 and 12 channels": ((8, 12), (16, 49)),
    "spoken words, 24 and 32 channels": ((24, 32), (16, 49)),
    "4 convolutions, 8 to 16 channels, 3x16x16": ((8, 8, 16, 16), (3, 16, 16)),
    "8 convolutions, 64 to 256 channels, 3x32x32": ((64, 64, 128, 128, 128, 256, 256, 256), (3, 32, 32)),
}


def build(name: str) -> nn.Sequential:
    """The plain network."""
    torch.manual_seed(0)
    made = _nets.speech_cnn(NETS[name][0]) if name.startswith("spoken") else net(NETS[name][0])
    assert isinstance(made, nn.Sequential)
    return made


# ── in the other interpreter ─────────────────────────────────────────────────────────────────────


def theirs(name: str, folder: Path) -> int:
    """PerforatedAI's file, with rows and answers beside it; returns how many parameters the model has."""
    from perforatedai import globals_perforatedai as settings
    from perforatedai import utils_perforatedai as tools

    model: Any = build(name)
    _configure(settings.pc, 2)
    model = tools.perforate_model(_blocks(model, settings.PAISequential), save_name="PAI", maximizing_score=True,
                                  making_graphs=False)  # fmt: skip
    tracker = settings.pai_tracker
    tracker.set_optimizer_instance(optimizer := torch.optim.AdamW(_deployed(model), lr=1e-3))
    rows = torch.randn(4, *NETS[name][1])
    for score in (0.1, 0.2):
        optimizer.zero_grad()
        model.train()(rows).square().mean().backward()
        optimizer.step()
        model, grew, _ = tracker.add_validation_score(score, model)
    if not grew:
        raise RuntimeError("it grew no dendrites")
    with torch.no_grad():
        for neuron in tools.get_pai_modules(model, 0):
            neuron.dendrites_to_top[0].normal_(std=0.5)
        answers = model.eval()(rows)
    # torch's newer exporter refuses it: its forward asks for the values of tensors
    torch.onnx.export(model, (rows,), folder / "theirs.onnx", dynamo=False, opset_version=17, input_names=["x"],
                      dynamic_axes={"x": {0: "n"}})  # fmt: skip
    np.savez(folder / "rows.npz", rows=rows.numpy(), answers=answers.detach().numpy())
    return sum(p.numel() for p in _deployed(model))


# ── in graftkit's ────────────────────────────────────────────────────────────────────────────────


def ours(name: str) -> tuple[Any, int]:
    """Our file before a layout, and how many parameters the model has."""
    import graftkit as gk
    from graftkit.shipping import build as built

    traced = gk.trace(build(name).eval(), torch.randn(2, *NETS[name][1]), dynamic="batch")
    model = gk.graft(traced, gk.make_plan(traced, dendrites="full:activation=sigmoid", sites=["*"]))
    with torch.no_grad():
        for dendrite in model.members():
            for strength in dendrite.strengths():
                strength.normal_(std=0.5)
    return built(model.eval()), model.parameter_count()


def compared(name: str, content: bytes, folder: Path, parameters: int, rounds: int) -> list[str]:
    """Table rows: nodes, and the time of a row by threads, graftkit's over PerforatedAI's."""
    import onnx

    from graftkit.folding.layouts import arrange
    from graftkit.runtimes import RUNTIMES
    from graftkit.shipping import Target
    from graftkit.shipping.layouts import layouts_for
    from graftkit.timing import in_turns, ratio

    written, count = ours(name)
    if count != parameters:
        raise RuntimeError(f"{name}: {count} parameters here, {parameters} there")
    told = np.load(folder / "rows.npz")
    row = told["rows"][:1]
    proto = onnx.ModelProto.FromString(content)
    feed = proto.graph.input[0].name
    lines = []
    for threads in (1, 2):
        open_ = RUNTIMES["onnxruntime"].open
        other = open_(content, threads=threads)
        (answers,) = other({feed: told["rows"]})
        if np.abs(answers - told["answers"]).max() > 1e-4 * np.abs(told["answers"]).max():
            raise RuntimeError(f"{name}: their file is not their model")
        file, own = written.whole(), {written.proto.graph.input[0].name: row}
        arrange(file, layouts_for("auto", written, own, Target(threads=threads)))
        sessions = [open_(file.SerializeToString(), threads=threads), other]
        mine, there = in_turns(sessions, [own, {feed: row}], rounds=rounds, slice=1e-2)
        found = ratio(mine, there)
        nodes = f"{len(file.graph.node)} of {len(proto.graph.node)}"
        times = " | ".join(f"{1e6 * float(np.median(each)):.1f}" for each in (mine, there))
        cells = f"{nodes} | {times} | **{found.median:.3f}** | {found.low:.3f} – {found.high:.3f}"
        lines.append(f"{name} | {count:,} | {threads} | {cells}")
    return lines


def main() -> None:
    """Export there, and compare."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--perforated", type=Path, help="a Python with perforatedai 3.2.9, onnx and onnxscript")
    made.add_argument("--rounds", type=int, default=60)
    made.add_argument("--there", nargs=2, help=argparse.SUPPRESS)
    options = made.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.there:
        name, folder = options.there
        with _contained():
            found = theirs(name, Path(folder))
        print(json.dumps(found))
        return
    if options.perforated is None:
        made.error("--perforated is needed")
    from _ratio import print_table

    rows = []
    for name in NETS:
        with tempfile.TemporaryDirectory(prefix="graftkit-") as folder:
            line = [options.perforated.absolute(), __file__, "--there", name, folder]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"PerforatedAI: {done.stderr[-2000:]}")
            content = (Path(folder) / "theirs.onnx").read_bytes()
            parameters = json.loads(done.stdout.splitlines()[-1])
            rows += compared(name, content, Path(folder), parameters, options.rounds)
    header = ("network", "parameters", "threads", "nodes", "graftkit, µs", "PerforatedAI, µs", "ratio", "99% limits")
    print_table(header, rows, packages=["torch", "onnxruntime"])


if __name__ == "__main__":
    main()
