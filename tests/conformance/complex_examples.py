"""Examples of calls with complex numbers that the ONNX exporter has a form for, and of others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from repair_example import Example
from torch import Tensor, fx, nn
from torch.nn import functional

_NO_COMPLEX_FORM = (
    "linear", "unsqueeze", "select", "expand", "squeeze", "repeat", "split", "chunk", "unbind", "index", "pad", "where",
    "fill", "zeros", "copy_", "type_as", "einsum", "bmm", "aten.mm", "addmm", "exp", "pow", "square", "norm", "cumsum",
)  # fmt: skip


class Complex(nn.Module):
    """What a layer gives, as complex numbers [rows, 5, 2], through a function of them."""

    def __init__(self, function: Callable[[Complex, Tensor], Tensor]):
        super().__init__()
        self.layer, self.mix, self.function = nn.Linear(4, 4), nn.Linear(2, 3, dtype=torch.complex64), function
        self.codes = nn.Parameter(torch.randn(5, 2, dtype=torch.complex64))
        self.register_buffer("turns", torch.view_as_real(torch.randn(5, 2, dtype=torch.complex64)))

    def forward(self, x: Tensor) -> Tensor:
        z = self.function(self, torch.view_as_complex(self.layer(x).unflatten(-1, (2, 2))))
        return torch.view_as_real(z.resolve_conj()).flatten(1)


def _rotary(self: Complex, z: Tensor) -> Tensor:
    return z.unsqueeze(-2) * torch.view_as_complex(self.turns)[: z.shape[1]].unsqueeze(1)


def _taken_apart(self: Complex, z: Tensor) -> Tensor:
    a, b = z.split([2, 3], -2)
    first, *_ = a.unbind(1)
    *_, last = b.chunk(2, 1)
    return first.conj().unsqueeze(0).squeeze(0) * last[:, -1] + z[..., 1:].squeeze(-1)[:, :1]


def _spread(self: Complex, z: Tensor) -> Tensor:
    return self.codes.unsqueeze(0).expand(z.shape[0], -1, -1) + z.repeat(1, 2, 1)[:, 5:].type_as(self.codes)


def _chosen(self: Complex, z: Tensor) -> Tensor:
    z = torch.where(z.abs() > 1, z, self.codes).masked_fill(z.real > 1, 0)
    return functional.pad(z, (0, 1))[:, torch.tensor([3, 0])].index_select(-1, torch.tensor([2, 0]))


def _written_into(self: Complex, z: Tensor) -> Tensor:
    """As a Fourier neural operator puts the frequencies that it keeps."""
    kept = torch.zeros(z.shape[0], 6, 2, dtype=z.dtype)
    kept[:, :3] = torch.einsum("bkx,kx->bkx", z[:, :3], self.codes[:3])
    kept[:, -1] = z.real[:, 0]
    return kept + torch.cat([z.new_zeros(z.shape[0], 1, 2), torch.zeros_like(z)], 1)


def _computed(self: Complex, z: Tensor) -> Tensor:
    z = self.mix(z) + functional.linear(z, self.mix.weight.conj())
    z = z / 10
    z = torch.bmm(z.mT, z) + torch.baddbmm(z[:, :3], z.mT, z)
    return z.exp() + z**2 + z.square() + torch.einsum("bij,bkj->bik", z, z.conj()) + z.cumsum(1)


def _flattened(self: Complex, z: Tensor) -> Tensor:
    z = torch.addmm(self.codes[0], torch.mm(z.flatten(1)[:, :2], self.codes.mT), self.codes)
    return z * torch.linalg.vector_norm(z, dim=-1, keepdim=True)


def _has_a_form(self: Complex, z: Tensor) -> Tensor:
    return torch.cat([z.transpose(1, 2) @ z, (z * 2j).mean(1, keepdim=True) + z[:, :1]], 1).reshape(z.shape[0], -1)


def _has_none(self: Complex, z: Tensor) -> Tensor:
    return functional.pad(z, (0, 1), value=1.0).pow(3) + torch.einsum("bi...->b", z).view(-1, 1, 1)


def numbers(function: Callable[[Complex, Tensor], Tensor]) -> Example:
    return Example(lambda: Complex(function), lambda: (torch.randn(2, 5, 4),))


def without_a_form(node: fx.Node) -> bool:
    """Whether a node reads complex numbers for what has a form for real ones alone."""
    read = [value for n in node.all_input_nodes if isinstance(value := n.meta["val"], Tensor)]
    return any(value.is_complex() for value in read) and any(name in str(node.target) for name in _NO_COMPLEX_FORM)


COMPLEX_APPLIES: dict[str, Example] = {
    "rotary positions": numbers(_rotary),
    "taken apart": numbers(_taken_apart),
    "spread": numbers(_spread),
    "chosen": numbers(_chosen),
    "written into": numbers(_written_into),
    "computed": numbers(_computed),
    "flattened": numbers(_flattened),
}
COMPLEX_SPARES: dict[str, Example] = {
    "real": Example(lambda: nn.Linear(4, 4), lambda: (torch.randn(2, 5, 4),)),
    "the exporter has a form": numbers(_has_a_form),
    "no form at all": numbers(_has_none),
}
