"""How much memory a large transformer takes on its way from a live module to a verified ONNX file."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import torch
from _ratio import print_table
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

import graftkit as gk
from graftkit import shipping

VOCABULARY = 32_000
AIMS: Mapping[str, float] = {"trace": 1.3, "build": 2.5, "write": 2.5, "verify": 2.5}


class Block(nn.Module):
    """A decoder's block, normed first: causal attention, then a perceptron."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        heard = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(heard.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    """Token ids [batch, length] in, logits [batch, length, vocabulary] out."""

    def __init__(self, width: int, layers: int, vocabulary: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, max(1, width // 128)) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def main() -> None:
    """Measure in a process of its own, and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--parameters", type=float, default=1e9)
    arguments.add_argument("--width", type=int, default=2048)
    arguments.add_argument("--length", type=int, default=16, help="tokens of the example")
    arguments.add_argument("--one-file", type=int, default=shipping.ONE_FILE, help="bytes that one file may have")
    arguments.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        _measure(given)
        return
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child"], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    size = found["bytes"]
    rows = [
        f"{stage} | {seconds:.0f} | {peak / 2**30:.2f} | {peak / size:.2f} | {_aim(stage)}"
        for stage, seconds, peak in found["stages"]
    ]
    print(f"{found['parameters']:,} parameters, {size / 2**30:.2f} GiB; {found['files']}; {found['parity']}")
    header = ("stage", "seconds", "peak, GiB over the imports", "times the model", "aim")
    print_table(header, rows, packages=["torch", "onnx", "onnxruntime"])


def _aim(stage: str) -> str:
    return f"≤ {AIMS[stage]}" if stage in AIMS else ""


def _measure(given: argparse.Namespace) -> None:
    """Every stage's time and largest resident memory, as one line of JSON."""
    torch.set_num_threads(1)
    stages: list[tuple[str, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        _ship(Decoder(64, 1, 64).eval(), Path(folder) / "small.onnx", given, [])  # so that all code is loaded
        base = _resident("VmRSS")
        with _stage("make", stages):
            model = _decoder(given)
        parity = _ship(model, Path(folder) / "model.onnx", given, stages)
        files = ", ".join(sorted(f"{file.name} {file.stat().st_size:,} bytes" for file in Path(folder).glob("model*")))
    count = sum(parameter.numel() for parameter in model.parameters())
    found = {"parameters": count, "bytes": 4 * count, "files": files, "parity": parity}
    print(json.dumps({**found, "stages": [(name, seconds, peak - base) for name, seconds, peak in stages]}))


def _ship(
    model: Decoder, path: Path, given: argparse.Namespace, stages: list[tuple[str, float, int]]
) -> Mapping[str, float]:
    ids = torch.randint(0, model.head.out_features, (2, given.length))
    with _stage("trace", stages):
        traced = gk.trace(model, ids)
    with _stage("graft", stages):
        grafted = gk.graft(traced, gk.make_plan(traced, dendrites="lowrank"))
    with _stage("build", stages):
        written = shipping.build(grafted)
    with _stage("write", stages):
        staging = shipping.staged(written, path, one_file=given.one_file)
        draft = staging.__enter__()
    with _stage("verify", stages):
        parity = shipping.verify(draft, grafted)
    staging.__exit__(None, None, None)
    return parity


def _decoder(given: argparse.Namespace) -> Decoder:
    """About as many parameters as asked for, their memory filled once."""
    layers = max(1, ceil((given.parameters - 2 * VOCABULARY * given.width) / (12 * given.width**2)))
    with torch.device("meta"):
        model = Decoder(given.width, layers, VOCABULARY)
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                parameter.uniform_(-0.03, 0.03)
    return model


@contextmanager
def _stage(name: str, stages: list[tuple[str, float, int]]) -> Iterator[None]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    start = time.perf_counter()
    yield
    stages.append((name, time.perf_counter() - start, _resident("VmHWM")))


def _resident(what: str) -> int:
    """Bytes of memory that are, or were at most, resident: "VmRSS" or "VmHWM"."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
