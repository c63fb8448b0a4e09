"""Whether onnx2tf turns ONNX files into TFLite, and whether both give the same: python benchmarks/to_tflite.py FILE...

Runs in an interpreter of its own, where `pip install onnx2tf ai-edge-litert` was: they pin packages that do not go
together with graftkit's. A file is converted with a batch of 1 and its other free sizes as --size says, and compared
with onnxruntime on eight random inputs of one row; *same* is a largest difference of 1e-4 of their scale at most.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

TOLERANCE = 1e-4
ROWS = 8


def main() -> None:
    """Convert, compare and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--size", type=int, default=8, help="of each free dimension besides the batch")
    arguments.add_argument("--options", default="-b 1 -eru", help="more of onnx2tf's own options")
    given = arguments.parse_args()
    packages = ("onnx2tf", "tensorflow", "ai-edge-litert", "onnxruntime")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print("\n| file | converts | largest difference | same |\n| --- | --- | --- | --- |")
    for path in given.files:
        print(f"| {path.name} | {measure(path, given.size, given.options.split())} |", flush=True)


def measure(path: Path, size: int, options: list[str]) -> str:
    """The cells of a file's row."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    shape = [1, *(each if isinstance(each, int) else size for each in port.shape[1:])]
    with TemporaryDirectory() as folder:
        failed = convert(path, Path(folder), [*options, "-kat", port.name, "-ois", f"{port.name}:{_text(shape)}"])
        found = list(Path(folder).glob("*_float32.tflite"))
        if failed or not found:
            return f"no: {failed or 'no file'} | | no"
        try:
            worst = max(_difference(session, port.name, found[0], shape, seed) for seed in range(ROWS))
        except Exception as error:  # a runtime's own kinds
            return f"yes | {str(error).splitlines()[0][:150]} | no"
    return f"yes | {worst:.1e} | {'yes' if worst <= TOLERANCE else 'no'}"


def convert(path: Path, folder: Path, options: list[str]) -> str:
    """What onnx2tf says where it fails, empty where it does not."""
    command = [Path(sys.executable).with_name("onnx2tf"), "-n", "-i", path, "-o", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
    return "" if done.returncode == 0 else (lines or ["it failed"])[-1][:150]


def _difference(session: onnxruntime.InferenceSession, name: str, model: Path, shape: list[int], seed: int) -> float:
    from ai_edge_litert.interpreter import Interpreter

    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    right = session.run(None, {name: values})[0]
    interpreter = Interpreter(str(model))
    port = interpreter.get_input_details()[0]
    if list(port["shape"]) != shape:
        interpreter.resize_tensor_input(port["index"], shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(port["index"], values)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return float(np.abs(found - right).max() / np.abs(right).max())


def _text(shape: list[int]) -> str:
    return ",".join(map(str, shape))


if __name__ == "__main__":
    main()
