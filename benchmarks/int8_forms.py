"""How int8 files are best made here: 7 or 8 bits of a weight, signed or unsigned activations, which operators.

Each form is onnxruntime's static quantization (QDQ, a scale for each channel of a weight) of the same file on the same
training rows; the models are those of precision.py. Times are for one row on one thread, over those of fp32.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _ratio import print_table
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from precision import SAMPLES, model_and_data, ratio

from graftkit import shipping, training
from graftkit.contracts import Data
from graftkit.shipping.comparing import compared
from graftkit.shipping.smaller import feeds

PRODUCTS = ["Conv", "Gemm", "MatMul"]
UNSIGNED, SIGNED = QuantType.QUInt8, QuantType.QInt8
SYMMETRIC = {"ActivationSymmetric": True, "QuantizeBias": False}
FORMS: Mapping[str, dict[str, Any]] = {
    "unsigned, 7-bit weights, products (what graftkit makes)": {"activation_type": UNSIGNED, "reduce_range": True},
    "unsigned, 8-bit weights, products": {"activation_type": UNSIGNED},
    "unsigned, 7-bit weights, all operators": {
        "activation_type": UNSIGNED,
        "reduce_range": True,
        "op_types_to_quantize": None,
    },
    "signed, 8-bit weights, products": {"activation_type": SIGNED},
    "signed and symmetric, 8-bit weights, products": {"activation_type": SIGNED, "extra_options": SYMMETRIC},
}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="*", default=[*SAMPLES, "resnet18"])
    arguments.add_argument("--pairs", type=int, default=30)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [row for name in given.only for row in _rows(name, given.pairs)]
    header = ("model", "form", "validation %", "largest difference", "bytes of fp32", "time of fp32")
    print_table(header, rows, packages=["onnxruntime"])


def _rows(name: str, pairs: int) -> Iterator[str]:
    model, data = model_and_data(name)
    with TemporaryDirectory() as folder:
        full = shipping.ship(model, Path(folder) / "fp32.onnx", data, metric=training.accuracy)
        yield f"{name} | fp32 | {100 * (full.metric or 0):.2f} | | 1.00 | 1.00"
        image = next(iter(training.batches(data.validation, 1)))[0].numpy()
        for form, options in FORMS.items():
            path = _made(full, data, options)
            found = compared(path, full.path, data, training.accuracy)
            share = path.stat().st_size / full.path.stat().st_size
            time = ratio(path, full.path, image, 1, pairs).median
            yield f"{name} | {form} | {100 * found.metric:.2f} | {found.difference:.1e} | {share:.2f} | {time:.2f}"


def _made(full: shipping.Shipped, data: Data, options: dict[str, Any]) -> Path:
    class Reader(CalibrationDataReader):
        waiting = iter(list(feeds(data, full.signature)))

        def get_next(self) -> Any:
            return next(self.waiting, None)

    path = full.path.with_name("int8.onnx")
    usual = {"op_types_to_quantize": PRODUCTS, "weight_type": SIGNED, "per_channel": True}
    quantize_static(full.path, path, Reader(), quant_format=QuantFormat.QDQ, **{**usual, **options})
    return path


if __name__ == "__main__":
    main()
