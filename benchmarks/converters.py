"""Which converter brings an ONNX file into a form that can be grafted: python benchmarks/converters.py

A converter that cannot be imported is left out, and the reason told. Over the files of `_onnx_files.py`: *converts*;
*same* outputs as onnxruntime within 1e-4 of their scale, at the file's rows and, where those are free, at three;
*traces* through torch.export with a free batch and still the same at three rows; *sites*: the share of the Linear and
Conv calls with trained weights that end as calls with a parameter in the traced graph. And *operators*: how many of
the ONNX project's own tests of single operators on numbers give the right ones (`--operators` measures them).
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from _onnx_files import files
from torch import Tensor, nn
from torch.export import Dim

ROWS = 3
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Converter:
    """A package that converts, and how it is called."""

    package: str
    convert: Callable[[Path], nn.Module]


def _onnx2torch(path: Path) -> nn.Module:
    return importlib.import_module("onnx2torch").convert(onnx.load(path))  # type: ignore[no-any-return]


def _onnx2torch2(path: Path) -> nn.Module:
    return importlib.import_module("onnx2torch2.converter").convert(onnx.load(path))  # type: ignore[no-any-return]


def _onnx2pytorch(path: Path) -> nn.Module:
    return importlib.import_module("onnx2pytorch").ConvertModel(onnx.load(path))  # type: ignore[no-any-return]


def _onnx2fx(path: Path) -> nn.Module:
    package = importlib.import_module("onnx2fx")
    return package.make_trainable(package.convert(onnx.load(path)))  # type: ignore[no-any-return]


def _graftkit(path: Path) -> nn.Module:
    from graftkit.contracts import SourceRequest
    from graftkit.sources.onnx_model import OnnxModel

    return OnnxModel().load(SourceRequest(str(path))).model  # type: ignore[return-value]


CONVERTERS = (
    Converter("onnx2torch", _onnx2torch),
    Converter("onnx2torch2", _onnx2torch2),
    Converter("onnx2pytorch", _onnx2pytorch),
    Converter("onnx2fx", _onnx2fx),
    Converter("graftkit", _graftkit),
)


@dataclass
class Score:
    """What became of one file."""

    converts: bool = False
    same: bool = False
    traces: bool = False
    sites: int = 0
    wanted: int = 0
    error: str = ""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=Path, default=Path(gettempdir()) / "graftkit-onnx-files")
    arguments.add_argument("--only", default="", help="files with this in their name")
    arguments.add_argument("--converter", action="append", help="these alone")
    arguments.add_argument("--failures", action="store_true", help="list every failure")
    arguments.add_argument("--operators", action="store_true", help="the tests of single operators instead")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    wanted = [each for each in CONVERTERS if given.converter is None or each.package in given.converter]
    if given.operators:
        cases = operator_cases()
        print(f"{len(cases)} tests\n\n| converter | operators |\n| --- | --- |")
        for converter in wanted:
            _report(converter, lambda each: _operators(each, cases, failures=given.failures))
        return
    found = {name: path for name, path in files(given.files).items() if given.only in name}
    print(f"{len(found)} files\n\n| converter | converts | same | traces | sites |\n| --- | --- | --- | --- | --- |")
    for converter in wanted:
        _report(converter, lambda each: _on_files(each, found, failures=given.failures))


def _report(converter: Converter, measure_it: Callable[[Converter], tuple[str, list[str]]]) -> None:
    """Print a row, and what failed."""
    try:
        importlib.import_module(converter.package)
        called = f"{converter.package} {version(converter.package)}"
    except PackageNotFoundError:
        called = converter.package
    except Exception as error:  # some cannot be imported without another package
        print(f"| {converter.package} | {type(error).__name__}: {str(error).splitlines()[0][:90]} |", flush=True)
        return
    cells, failures = measure_it(converter)
    print(f"| {called} | {cells} |", *failures, sep="\n", flush=True)


def _on_files(converter: Converter, found: dict[str, Path], *, failures: bool) -> tuple[str, list[str]]:
    scores = {name: measure(converter, path) for name, path in found.items()}
    counts = [sum(getattr(s, key) for s in scores.values()) for key in ("converts", "same", "traces")]
    sites, wanted = sum(s.sites for s in scores.values()), sum(s.wanted for s in scores.values())
    told = _failures(scores) if failures else []
    return f"{' | '.join(map(str, counts))} | {100 * sites / max(wanted, 1):.0f}%", told


# ── single operators ─────────────────────────────────────────────────────────────────────────────

_TYPES = (1, 2, 3, 5, 6, 7, 9, 10, 11)  # of numbers that both numpy and torch have


def operator_cases() -> list[Any]:
    """The ONNX project's tests of operators from tensors of numbers to tensors of numbers."""
    from onnx.backend.test.case import node as package
    from onnx.backend.test.case.utils import import_recursive

    import_recursive(package)
    return [case for case in package.collect_testcases(None) if _usable(case.model)]


def _usable(model: onnx.ModelProto) -> bool:
    ports = [*model.graph.input, *model.graph.output]
    return all(entry.domain in ("", "ai.onnx") for entry in model.opset_import) and all(
        port.type.HasField("tensor_type") and port.type.tensor_type.elem_type in _TYPES for port in ports
    )


def _operators(converter: Converter, cases: list[Any], *, failures: bool) -> tuple[str, list[str]]:
    failed: list[str] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for case in cases:
            onnx.save(case.model, path)
            inputs, right = case.data_sets[0]
            try:
                with torch.no_grad():
                    found = converter.convert(path)(*(torch.from_numpy(np.array(each)) for each in inputs))
                _compare(found, [np.asarray(each) for each in right])
            except Exception as error:
                failed.append(f"  {case.name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:110]}")
    return f"{len(cases) - len(failed)} of {len(cases)}", failed if failures else []


def _failures(scores: dict[str, Score]) -> list[str]:
    causes: dict[str, list[str]] = defaultdict(list)
    for name, score in scores.items():
        if score.error or score.sites < score.wanted:
            causes[score.error or "sites missing"].append(f"{name} ({score.sites}/{score.wanted})")
    ordered = sorted(causes.items(), key=lambda item: -len(item[1]))
    return [f"  {len(names)} x {cause}: {', '.join(names)}" for cause, names in ordered]


def measure(converter: Converter, path: Path) -> Score:
    """What one converter makes of one file."""
    proto = onnx.load(path)
    score = Score(wanted=_calls(proto))
    free = any(d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim[:1])
    batches = [_inputs(proto, rows) for rows in ((2, ROWS) if free else (None,))]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = [session.run(None, {k: v.numpy() for k, v in batch.items()}) for batch in batches]
    try:
        with torch.no_grad():
            model = converter.convert(path)
            score.converts = True
            for batch, right in zip(batches, expected, strict=True):
                _compare(model(*batch.values()), right)
            score.same = True
        first = tuple(batches[0].values())
        sizes = tuple({0: Dim.DYNAMIC} if free else None for _ in first)
        program = torch.export.export(model, first, dynamic_shapes=(sizes,) if _variadic(model) else sizes)
        _compare(program.module(check_guards=False)(*batches[-1].values()), expected[-1])
        score.traces, score.sites = True, _sites(program)
    except Exception as error:
        score.error = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:110]}"
    return score


def _variadic(model: nn.Module) -> bool:
    return model.forward.__code__.co_flags & 0x04 != 0  # type: ignore[union-attr]


def _inputs(proto: onnx.ModelProto, rows: int | None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    held = {tensor.name for tensor in proto.graph.initializer}
    found = {}
    for value in proto.graph.input:
        if value.name not in held:
            shape = [d.dim_value or rows or 1 for d in value.type.tensor_type.shape.dim]
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                found[value.name] = torch.randn(shape)
            else:
                found[value.name] = torch.ones(shape, dtype=torch.int64)
    return found


def _compare(given: object, right: list[np.ndarray]) -> None:
    tensors = list(given) if isinstance(given, tuple | list) else [given]
    if len(tensors) != len(right):
        raise AssertionError(f"{len(tensors)} outputs instead of {len(right)}")
    for tensor, array in zip(tensors, right, strict=True):
        if tuple(tensor.shape) != array.shape:
            raise AssertionError(f"shape {tuple(tensor.shape)} instead of {array.shape}")
        if not array.size:
            continue
        ours, theirs = tensor.detach().numpy().astype(np.float64), array.astype(np.float64)
        scale = max(float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)), 1e-6)
        if not np.allclose(ours, theirs, rtol=0.0, atol=TOLERANCE * scale, equal_nan=True):
            raise AssertionError("other numbers")


_WEIGHED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_KEEPING = frozenset({"Transpose", "Identity", "Reshape", "Cast", "Constant"})


def _calls(proto: onnx.ModelProto) -> int:
    """The Linear and Conv calls of a file: those whose second input is a held tensor, transposed or not."""
    held = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) > 1}
    for node in proto.graph.node:
        if node.op_type in _KEEPING and (node.op_type == "Constant" or node.input[0] in held):
            held.add(node.output[0])
    counted = Counter(node.op_type in _WEIGHED and node.input[1] in held for node in proto.graph.node)
    return counted[True]


def _sites(program: torch.export.ExportedProgram) -> int:
    """Calls in the traced graph whose weight is a parameter, or made from one."""
    from graftkit.tracing.capture import unlift
    from graftkit.tracing.sites import _CALLS, _ancestors, _arguments

    graph = unlift(program)
    parameters = dict(graph.named_parameters())
    found = 0
    for node in graph.graph.nodes:
        weight = _arguments(node)[1] if node.target in _CALLS else None
        if isinstance(weight, torch.fx.Node):
            found += any(str(n.target) in parameters for n in _ancestors([weight]))
    return found


if __name__ == "__main__":
    main()
