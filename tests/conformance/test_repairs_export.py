"""What repairs make of a graph is right as ONNX, too; what has no form there is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from complex_examples import COMPLEX_APPLIES, COMPLEX_SPARES, Complex
from graph_repair_examples import APPLIES
from onnx import ModelProto
from torch import Tensor, nn

from graftkit import shipping, surgery, tracing
from graftkit.core.errors import ExportError
from graftkit.runtimes import RUNTIMES


class Bends(nn.Module):
    """Has no form for complex numbers."""

    def forward(self, z: Tensor) -> Tensor:
        return z.tanh()


def shipped(module: nn.Module) -> ModelProto:
    traced = tracing.trace_module(module.eval(), torch.randn(2, 5, 4), name="net")
    return shipping.to_onnx(surgery.empty(traced).eval(), opset=20)


EXAMPLES = {**COMPLEX_APPLIES, "has a form": COMPLEX_SPARES["the exporter has a form"], **APPLIES["projected_lstm"]}


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_is_right_for_any_number_of_rows(example: str) -> None:
    torch.manual_seed(0)
    module = EXAMPLES[example].make()
    run = RUNTIMES["onnxruntime"].open(shipped(module).SerializeToString())
    for rows in (2, 7):
        x = torch.randn(rows, 5, 4)
        with torch.no_grad():
            np.testing.assert_allclose(run({"x": x.numpy()})[0], module(x).numpy(), rtol=1e-3, atol=1e-4)


def test_what_has_no_form_is_named() -> None:
    module = Complex(lambda self, z: self.bends(z))
    module.bends = Bends()
    with pytest.raises(ExportError, match=r"no ONNX form for aten\.tanh of complex numbers \(in the module 'bends'\)$"):
        shipped(module)


def test_a_layer_of_complex_numbers_is_listed_with_its_reason() -> None:
    traced = tracing.trace_module(Complex(lambda self, z: self.mix(z)), torch.randn(2, 5, 4), name="net")
    assert [(call.key, call.reason) for call in traced.skipped] == [
        ("mix", "it computes with complex64, not with real numbers")
    ]
