"""Operators with weights: products, convolutions, batch norm; and dropout, which knows training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError, given
from graftkit.sources.onnx_operators.numbers import Value, as_tensor, floats, larger

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def linear(call: Call, value: Value, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product with a held matrix [out, in], and a bias: what `Gemm` and `MatMul` become where they are that."""
    return F.linear(as_tensor(value), weight, bias)


def matmul(call: Call, first: Value, second: Value) -> Tensor:
    """MatMul of two computed tensors, or with a weight that is no matrix."""
    return torch.matmul(as_tensor(first), as_tensor(second))


def gemm(call: Call, first: Value, second: Value, third: Value | None = None) -> Tensor:
    """Gemm in its general form."""
    a, b = as_tensor(first), as_tensor(second)
    a = a.t() if call.get("transA", 0) else a
    b = b.t() if call.get("transB", 0) else b
    product: Tensor = call.get("alpha", 1.0) * torch.mm(a, b)
    return product if third is None else product + call.get("beta", 1.0) * as_tensor(third)


def convolution(call: Call, value: Value, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv."""
    x, rank = as_tensor(value), weight.ndim - 2
    _check_rank(rank)
    stride, dilation = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    before, after = pads_of(call, x.shape[2:], weight.shape[2:], stride, dilation)
    if before != after:
        x = F.pad(x, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair])
        before = [0] * rank
    return _CONVOLUTIONS[rank - 1](x, weight, bias, stride, before, dilation, call.get("group", 1))


def transposed_convolution(call: Call, value: Value, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """ConvTranspose: uneven padding, and a given size of the output, are cut from the full one."""
    x, rank = as_tensor(value), weight.ndim - 2
    _check_rank(rank)
    stride, dilation = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    extra = call.get("output_padding", [0] * rank)
    up, groups = _TRANSPOSED[rank - 1], call.get("group", 1)
    pads, even = call.get("pads", [0] * 2 * rank), call.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    if even and "output_shape" not in call.attributes:
        if pads[:rank] == pads[rank:]:
            return up(x, weight, bias, stride, pads[:rank], extra, groups, dilation)
        return _cut(up(x, weight, bias, stride, 0, extra, groups, dilation), pads[:rank], pads[rank:])
    surplus = _surplus(call, x.shape[2:], weight.shape[2:], stride, dilation, extra)
    # a size beyond the full one has places at the end that no input reaches: they hold the bias alone
    beyond = [max(0, -n) if isinstance(n, int) else 0 for n in surplus]
    whole = up(x, weight, bias, stride, 0, [e + b for e, b in zip(extra, beyond, strict=True)], groups, dilation)
    cut = [n + b for n, b in zip(surplus, beyond, strict=True)]
    less, more = [n // 2 for n in cut], [n - n // 2 for n in cut]
    return _cut(whole, *((less, more) if call.get("auto_pad") == "SAME_UPPER" else (more, less)))


def _surplus(
    call: Call,
    sizes: Sequence[Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    extra: Sequence[int],
) -> list[Any]:
    """By how much the full output is longer than what is asked for.

    That is the input times the stride, or what is there of it where strides go beyond the kernel.
    """
    reach = [(k - 1) * d + 1 + e for k, d, e in zip(kernel, dilation, extra, strict=True)]
    if "output_shape" not in call.attributes:
        return [max(0, r - s) for r, s in zip(reach, stride, strict=True)]
    wanted = call.get("output_shape")[-len(kernel) :]
    return [(n - 1) * s + r - w for n, s, r, w in zip(sizes, stride, reach, wanted, strict=True)]


def _cut(x: Tensor, before: Sequence[Any], after: Sequence[Any]) -> Tensor:
    """Without so much at either end of each axis behind the channels."""
    for axis, (less, more) in enumerate(zip(before, after, strict=True), 2):
        x = x.narrow(axis, less, x.shape[axis] - less - more)
    return x


def pads_of(
    call: Call, sizes: Sequence[Any], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[Any], list[Any]]:
    """(before, after) for each axis, from `pads` or from `auto_pad`."""
    rank, auto = len(kernel), call.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = call.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    totals = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = (k - 1) * d + 1
        totals.append(reach - s if s == 1 else larger((-(-size // s) - 1) * s + reach - size, 0))
    less, more = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return (more, less) if auto == "SAME_LOWER" else (less, more)


def batch_norm(
    call: Call, value: Value, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor
) -> Any:
    """BatchNormalization: in training it normalises by the batch and keeps its statistics up to date.

    A file that was exported in training mode has the statistics as further outputs: here they are what is kept.
    """
    if call.get("spatial", 1) != 1:
        raise UnsupportedError("it keeps statistics for every position (spatial=0)")
    momentum, x = 1.0 - call.get("momentum", 0.9), as_tensor(value)
    y = F.batch_norm(x, running_mean, running_var, weight, bias, call.training, momentum, call.get("epsilon", 1e-5))
    return y if call.outputs == 1 else (y, *2 * (running_mean, running_var))


def dropout(call: Call, value: Value, *rest: Value | None) -> Any:
    """Dropout: idle outside of training."""
    x, ratio = as_tensor(value), given(rest, 0)
    share = call.get("ratio", 0.5) if ratio is None else float(floats(ratio)[0])
    found = F.dropout(x, share, call.training)
    return found if call.outputs == 1 else (found, torch.ones_like(x, dtype=torch.bool))


def layer_norm(call: Call, value: Value, weight: Tensor, bias: Tensor | None = None) -> Any:
    """LayerNormalization over the last axes; its further outputs are the mean and one over the deviation."""
    x, epsilon = as_tensor(value), call.get("epsilon", 1e-5)
    axis = call.get("axis", -1) % x.ndim
    y = F.layer_norm(x, x.shape[axis:], weight, bias, epsilon)
    if call.outputs == 1:
        return y
    variance, mean = torch.var_mean(x, tuple(range(axis, x.ndim)), correction=0, keepdim=True)
    return y, mean, (variance + epsilon).rsqrt()


def attention(call: Call, query: Value, key: Value, value: Value, *rest: Value | None) -> Tensor:
    """Attention, as exporters write it: [N, heads, T, size], or [N, T, heads * size]; a mask; no cache."""
    mask = given(rest, 0)
    if any(given(rest, place) is not None for place in (1, 2, 3)) or call.outputs > 1 or call.get("softcap", 0.0):
        raise UnsupportedError("it keeps a cache, caps its scores or gives them as outputs")
    q, k, v = (as_tensor(x) for x in (query, key, value))
    flat = q.ndim == 3
    if flat:
        heads, kv_heads = call.get("q_num_heads"), call.get("kv_num_heads")
        q, k, v = (x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    found = F.scaled_dot_product_attention(
        q, k, v, None if mask is None else as_tensor(mask), is_causal=bool(call.get("is_causal", 0)),
        scale=call.get("scale"), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return found.transpose(1, 2).flatten(2) if flat else found


def _check_rank(rank: int) -> None:
    if not 1 <= rank <= 3:
        raise UnsupportedError(f"it convolves over {rank} axes")


LAYERS: Mapping[str, Operator] = {
    "Linear": linear,
    "MatMul": matmul,
    "Gemm": gemm,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "Dropout": dropout,
    "Attention": attention,
}
