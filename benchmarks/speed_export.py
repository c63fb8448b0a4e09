"""How long trace, graft and export take together, against one plain `torch.onnx.export` of the ungrafted model."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable

import torch
from _ratio import compare, print_table
from networks import Encoder, ResNet18
from torch import Tensor, nn
from torch.export import Dim

import graftkit as gk
from graftkit import api

AIM = 2.0
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18, 3x64x64": (ResNet18, (2, 3, 64, 64)),
    "encoder, 6 layers, 64x256": (Encoder, (2, 64, 256)),
}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pairs", type=int, default=9)
    pairs = arguments.parse_args().pairs
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [_row(name, build, shape, pairs) for name, (build, shape) in MODELS.items()]
    header = ("model", "trace + graft + export, s", "`torch.onnx.export`, s", "ratio", "range", "pairs", "aim")
    print_table(header, rows, packages=["torch", "onnx", "onnxscript"])


def grafted_export(model: nn.Module, example: Tensor) -> bytes:
    """One default dendrite at each default site, and the bytes of the folded file; nothing is verified."""
    traced = gk.trace(model, example)
    grafted = gk.graft(traced, gk.make_plan(traced))
    with torch.no_grad():
        for site in grafted.plan.sites():
            for strength in grafted.at(site).members()[0].strengths():
                strength.fill_(0.1)  # at zero the dendrites would be folded away
    return api.to_onnx(grafted).SerializeToString()


def plain_export(model: nn.Module, example: Tensor) -> bytes:
    """What the exporter alone makes of the model as it is."""
    program = torch.onnx.export(
        model, (example,), dynamo=True, dynamic_shapes=({0: Dim.DYNAMIC},), opset_version=20, verbose=False
    )
    assert program is not None
    return program.model_proto.SerializeToString()


def _row(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], pairs: int) -> str:
    torch.manual_seed(0)
    model, example = build().eval(), torch.randn(shape)
    grafted_export(model, example)
    plain_export(model, example)
    found = compare(lambda: grafted_export(model, example), lambda: plain_export(model, example), pairs=pairs)
    return f"{name} | {found.cells()} | {pairs} | < {AIM}"


if __name__ == "__main__":
    main()
