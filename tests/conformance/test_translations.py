"""Operators that graftkit writes itself: right at every size, and short where sizes are fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graftkit import shipping, surgery, tracing
from graftkit.folding.translations import TRANSLATIONS
from graftkit.runtimes import RUNTIMES

EVERYWHERE = {name: RUNTIMES[name] for name in ("onnxruntime", "reference", "openvino", "tract")}


class Pool(nn.Module):
    """Averages over a number of stretches, which may depend on the size."""

    def __init__(self, counts: Sequence[int | None], least: int | None = None):
        super().__init__()
        self.counts, self.least = counts, least
        self.layer = nn.Conv1d(3, 3, 1) if len(counts) == 1 else nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        heard = self.layer(x)
        pool = functional.adaptive_avg_pool1d if len(self.counts) == 1 else functional.adaptive_avg_pool2d
        if self.least is None:
            return pool(heard, self.counts[0] if len(self.counts) == 1 else tuple(self.counts))
        return pool(heard, tuple(torch.sym_max(self.least, size) for size in heard.shape[2:]))


CASES: dict[str, tuple[Pool, tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "one stretch": (Pool((1,)), (12,), ((12,), (5,), (31,))),
    "stretches of one length": (Pool((4,)), (12,), ((12,), (8,), (13,), (4,), (3,))),
    "stretches that overlap": (Pool((5,)), (12,), ((12,), (10,), (31,), (2,))),
    "a picture": (Pool((3, 2)), (12, 8), ((12, 8), (9, 8), (12, 7), (17, 23), (2, 2))),
    "a whole picture": (Pool((1, 1)), (12, 8), ((12, 8), (7, 9))),
    "one row": (Pool((1, 4)), (12, 8), ((12, 8), (7, 9))),
    "as many as there are": (Pool((7, 7), 7), (12, 8), ((12, 8), (9, 20))),
}


OTHERS = {"aten.lgamma.default", "aten.mul.Scalar", "aten.add.Scalar", "aten.sub.Scalar"}  # tested below


def shipped(pool: Pool, size: tuple[int, ...], *, free: str, opset: int):
    traced = tracing.trace_module(pool.eval(), torch.randn(2, 3, *size), name="pool", free=free)
    return shipping.to_onnx(surgery.empty(traced).eval(), opset=opset)


def test_every_translation_has_a_case() -> None:
    pools = {str(operator)[-10] for operator in TRANSLATIONS if "pool" in str(operator)}
    assert {str(operator) for operator in TRANSLATIONS if "pool" not in str(operator)} == OTHERS
    assert pools == {str(len(pool.counts)) for pool, _, _ in CASES.values()}


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("case", CASES)
def test_it_is_right_at_every_size(case: str, opset: int) -> None:
    pool, size, others = CASES[case]
    proto = shipped(pool, size, free="auto", opset=opset)
    assert all(dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:])
    for name, runtime in EVERYWHERE.items():
        run = runtime.open(proto.SerializeToString())
        for other in others:
            x = torch.randn(3, 3, *other)
            with torch.no_grad():
                expected = pool(x).numpy()
            np.testing.assert_allclose(run({"x": x.numpy()})[0], expected, atol=1e-5, err_msg=f"{name} {other}")


@pytest.mark.parametrize(
    ("case", "operators"),
    [
        ("one stretch", ["Conv", "ReduceMean"]),
        ("stretches of one length", ["Conv", "AveragePool"]),
        ("a picture", ["Conv", "AveragePool"]),
        ("stretches that overlap", ["Conv", "MatMul"]),
    ],
)
def test_it_is_short_where_sizes_are_fixed(case: str, operators: list[str]) -> None:
    pool, size, _ = CASES[case]
    proto = shipped(pool, size, free="batch", opset=20)
    assert [node.op_type for node in proto.graph.node] == operators
    run = RUNTIMES["onnxruntime"].open(proto.SerializeToString())
    x = torch.randn(3, 3, *size)
    with torch.no_grad():
        np.testing.assert_allclose(run({"x": x.numpy()})[0], pool(x).numpy(), atol=1e-5)


def test_the_logarithm_of_gamma() -> None:
    class Likely(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            nn.init.ones_(self.layer.weight)
            nn.init.zeros_(self.layer.bias)

        def forward(self, x: Tensor) -> Tensor:
            return torch.lgamma(self.layer(x))

    values = torch.cat(
        [torch.logspace(-6, 4, 60), torch.tensor([0.4999, 0.5, 1.0, 2.0, 3.5, 7.9, 8.0, -0.3, -1.7, -20.25])]
    )
    values = torch.cat([values, torch.tensor([4e5, 1e8, 0.0, -1.0, -2.0, -4.0, torch.inf, -torch.inf])])
    module = Likely().eval()
    proto = shipping.to_onnx(surgery.empty(tracing.trace_module(module, torch.ones(2, 1), name="gamma")).eval())
    expected = torch.lgamma(values.double()).numpy()
    for name, runtime in EVERYWHERE.items():
        (found,) = runtime.open(proto.SerializeToString())({"x": values[:, None].numpy()})
        np.testing.assert_allclose(found[:, 0], expected, rtol=2e-6, atol=4e-6, err_msg=name)


class Scaled(nn.Module):
    """Multiplies, adds and subtracts numbers, some of which the length decides."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        aten, share, length = torch.ops.aten, x.shape[1] / 7, x.shape[1]
        steps = aten.mul.Scalar(torch.arange(length), length)
        y = aten.sub.Scalar(aten.add.Scalar(aten.mul.Scalar(self.layer(x), share), length), share)
        fixed = aten.sub.Scalar(aten.add.Scalar(aten.mul.Scalar(x, 3), 0.25), 2)
        return y + fixed + steps.unsqueeze(-1)


def test_numbers_that_are_made_of_sizes() -> None:
    torch.manual_seed(0)
    module = Scaled().eval()
    proto = shipping.to_onnx(surgery.empty(tracing.trace_module(module, torch.randn(2, 6, 3), name="scaled")).eval())
    for name, runtime in EVERYWHERE.items():
        run = runtime.open(proto.SerializeToString())
        for length in (6, 1, 11):
            x = torch.randn(3, length, 3)
            with torch.no_grad():
                expected = module(x).numpy()
            np.testing.assert_allclose(run({"x": x.numpy()})[0], expected, rtol=1e-5, atol=1e-4, err_msg=name)
