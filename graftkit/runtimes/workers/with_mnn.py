"""A worker for MNN: converts the file, and runs it in full precision."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from serving import Run, serve

_VOLUME = 5  # axes of a batch of volumes: a network that reads one of another size ends the process
_NARROW = {"int64": "int32", "float64": "float32", "bool": "int32"}  # MNN has the second alone


def _version() -> str:
    import MNN  # noqa: F401

    return version("MNN")


def _load(model: Path, asked: Mapping[str, Any]) -> Run:
    import _tools
    import MNN
    from MNN import expr

    # MNN.tools.mnnconvert would do the same, and send a report of it to its makers
    _tools.mnnconvert(["", "-f", "ONNX", "--modelFile", str(model), "--MNNModel", "model.mnn", "--bizCode", "graftkit"])
    if not Path("model.mnn").is_file():
        raise ValueError("it is not converted")
    names = [value["name"] for value in asked["inputs"]]

    def load() -> Any:
        loaded = MNN.nn.load_module_from_file(
            "model.mnn", names, asked["outputs"], backend=expr.Backend.CPU, precision_mode=expr.PrecisionMode.High,
            memory_mode=expr.MemoryMode.High, thread_num=asked["threads"] or 4,
        )  # fmt: skip
        if loaded is None:
            raise ValueError("it is converted, but not loaded")
        return loaded

    network, seen = load(), None

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal network, seen
        shapes = [arrays[name].shape for name in names]
        if seen not in (None, shapes) and max(map(len, shapes)) >= _VOLUME:
            network = load()
        seen = shapes
        found = network.forward([_variable(arrays[name]) for name in names])
        if len(found) != len(asked["outputs"]):
            raise ValueError("it gives no outputs")
        read = (np.array(expr.convert(value, expr.NCHW).read()) for value in found)
        return dict(zip(asked["outputs"], read, strict=True))

    return run


def _variable(array: np.ndarray) -> Any:
    from MNN import expr

    kinds = {"float32": expr.float, "int32": expr.int, "uint8": expr.uint8, "int8": expr.int8}
    narrow = array.astype(_NARROW.get(array.dtype.name, array.dtype.name))
    return expr.const(narrow, list(array.shape), expr.NCHW, kinds[narrow.dtype.name])


if __name__ == "__main__":
    serve(_version, _load)
