"""How finely a device multiplies: in whole float32, as runtimes do, where torch lets it round more coarsely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import backends

WHOLE = "ieee"


@contextmanager
def whole_numbers() -> Iterator[None]:
    """Convolutions and matrix products of float32 in float32; afterwards torch is set as it was.

    A GPU's convolutions round their factors to TF32 (ten bits) unless told otherwise, and with
    `torch.set_float32_matmul_precision("high")` its matrix products do, too: enough to learn by, but a thousandth off
    what a file computes. It holds for the whole process. torch keeps such settings twice, and a model that reads the
    older ones in its forward is refused where the two differ; so both are set.
    """
    own: Any = backends
    places = (own.cuda.matmul, own.cudnn.conv, own.cudnn.rnn, own.mkldnn.matmul, own.mkldnn.conv, own.mkldnn.rnn)
    before = [place.fp32_precision for place in places]
    convolutions: bool | None = None
    products: str | None = None
    with suppress(RuntimeError):  # whoever set the newer ones alone
        convolutions = own.cudnn.allow_tf32
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    try:
        own.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        for place in places:
            place.fp32_precision = WHOLE
        yield
    finally:
        if convolutions is not None:
            own.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
