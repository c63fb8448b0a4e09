"""A worker for ncnn: pnnx converts the file at the sizes it is told, and one row is run at a time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from serving import Run, serve

_SHORT = {"float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "int32": "i32", "int16": "i16",
          "int8": "i8", "uint8": "u8"}  # fmt: skip
_NARROW = {"int64": "int32", "float64": "float32", "bool": "int32"}  # ncnn has the second alone

# Said of an axis of size one that is reduced along with another: it goes, as it has to.
_HARMLESS = "along batch axis is not supported yet"


def _version() -> str:
    import ncnn  # noqa: F401

    return version("ncnn")


def _load(model: Path, asked: Mapping[str, Any]) -> Run:
    import ncnn

    axes = _convert(model, asked["inputs"])
    net = ncnn.Net()
    net.opt.num_threads = asked["threads"] or 1
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "vulkan_compute"):
        setattr(net.opt, f"use_{option}", False)
    if net.load_param("model.ncnn.param") or net.load_model("model.ncnn.bin"):
        raise ValueError("ncnn does not read what pnnx wrote: it has no layer of some kind in it")
    names = [value["name"] for value in asked["inputs"]]
    there = set(net.input_names()) | set(net.output_names())
    lost = [name for name in (*_wanted("in", names), *_wanted("out", asked["outputs"])) if name not in there]
    if lost:
        raise ValueError(f"pnnx lost {lost[0]}, which is an input or output in the file's order")

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with net.create_extractor() as extractor:
            for number, name in enumerate(names):
                extractor.input(f"in{number}", _mat(arrays[name], axes.get(f"in{number}", 0)))
            found = [_extracted(extractor, f"out{n}", axes) for n in range(len(asked["outputs"]))]
        return dict(zip(asked["outputs"], found, strict=True))

    return run


def _convert(model: Path, inputs: list[Mapping[str, Any]]) -> dict[str, int]:
    """Have pnnx write model.ncnn.*; which axis of each input and output is the batch, as it says beside them."""
    spec = find_spec("pnnx")  # it is not imported: that would take torch
    if spec is None or spec.origin is None:
        raise ImportError("pnnx is not there")
    shapes = ",".join(f"[{','.join(map(str, value['shape']))}]{_SHORT[value['dtype']]}" for value in inputs)
    program = Path(spec.origin).with_name("pnnx")
    done = subprocess.run([program, model, f"inputshape={shapes}", "fp16=0"], check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    said = done.stdout.decode(errors="replace").splitlines()
    sys.stderr.writelines(f"{line}\n" for line in said if _HARMLESS not in line)
    if done.returncode or not Path("model.ncnn.param").is_file():
        raise ValueError(f"pnnx does not convert it (exit code {done.returncode})")
    _reduces(Path("model.ncnn.param").read_text())
    told = Path("model_ncnn.py").read_text()
    into = re.findall(r'ex\.input\("(in\d+)".*batch_index=(\d+)', told)
    out = re.findall(r"from_numpy\((out\d+)\.numpy\(batch_index=(\d+)", told)
    return {name: int(axis) for name, axis in (*into, *out)}


def _reduces(layers: str) -> None:
    """Raises ValueError where pnnx wrote a reduction over no axes at all: ncnn gives its input back."""
    for line in layers.splitlines():
        kind, name, *rest = [*line.split(), "", ""]
        if kind == "Reduction" and {"1=0", "-23303=0"} <= set(rest):
            raise ValueError(f"pnnx lost the axis of a reduction, of which it makes {name}")


def _wanted(kind: str, names: list[str]) -> list[str]:
    return [f"{kind}{number}" for number in range(len(names))]


def _mat(array: np.ndarray, axis: int) -> Any:
    import ncnn

    narrow = np.ascontiguousarray(array.astype(_NARROW.get(array.dtype.name, array.dtype.name)))
    return ncnn.Mat(narrow, batch_index=axis).clone()


def _extracted(extractor: Any, name: str, axes: Mapping[str, int]) -> np.ndarray:
    code, found = extractor.extract(name)
    if code:
        raise ValueError(f"ncnn fails on the way to {name} (code {code})")
    return np.array(found.numpy(batch_index=axes.get(name, 0)))


if __name__ == "__main__":
    serve(_version, _load)
