"""What a smaller shape of the MNIST network saves in onnxruntime: time and peak memory, down to one channel a layer."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from _arms import markdown
from _nets import Widths, grey_lenet

from graftkit import api, benching, surgery

# As given; what pruning to 40% left; channels by halves; 10%; and next to nothing.
SHAPES: tuple[Widths, ...] = (
    (8, 16, 50), (8, 14, 21), (6, 12, 26), (5, 10, 31), (4, 8, 32), (4, 8, 16), (5, 7, 10), (2, 4, 8), (1, 1, 1),
)  # fmt: skip


def written(widths: Widths, folder: Path) -> benching.File:
    """A network of this shape, untrained, as a file."""
    torch.manual_seed(0)
    module = grey_lenet(widths)
    model = surgery.empty(api.trace(module, torch.randn(4, 1, 28, 28), dynamic="batch")).eval()
    name = "-".join(map(str, widths))
    api.export(model, folder / f"{name}.onnx")
    return benching.read_file(folder / f"{name}.onnx", name)


def main() -> None:
    """Measure and print one table."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--rows", type=int, nargs="*", default=(1, 64))
    made.add_argument("--rounds", type=int, default=120)
    options = made.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [written(widths, Path(folder)) for widths in SHAPES]
        for count in options.rows:
            report = benching.bench(files, rows=count, rounds=options.rounds)
            for subject, timing in zip(report.subjects, report.timings, strict=True):
                v, first = timing.versus, report.timings[0]
                ratio = "" if v is None else f"{v.median:.2f} ({v.low:.2f} to {v.high:.2f})"
                memory = (timing.memory or 0) / max(1, first.memory or 0)
                share = "" if v is None else f"{memory:.2f}"
                kib = f"{(timing.memory or 0) / 1024:,.0f}"
                sizes = (f"{subject.parameters:,}", f"{subject.macs:,}", f"{subject.size / 1024:,.0f}")
                rows.append([f"{count}", subject.name, *sizes, f"{1e6 * timing.median:,.0f}", ratio, kib, share])
    heads = ("rows", "shape", "parameters", "multiply-adds", "file (KiB)", "time (us)", "time / given (99%)",
             "peak memory (KiB)", "memory / given")  # fmt: skip
    print(markdown(heads, rows))


if __name__ == "__main__":
    main()
