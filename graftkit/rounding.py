"""How finely a device multiplies: in whole float32, as runtimes do, where torch lets it round more coarsely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import backends

WHOLE = "ieee"


@contextmanager
def whole_numbers() -> Iterator[None]:
    """Convolutions and matrix products of float32 in float32; afterwards everything is set as it was.

    A GPU's convolutions round their factors to TF32 (ten bits) unless told otherwise, and with
    `torch.set_float32_matmul_precision("high")` its matrix products do, too: enough to learn by, but a thousandth off
    what a file computes.
    """
    own: Any = backends
    places = (own.cuda.matmul, own.cudnn.conv, own.cudnn.rnn, own.mkldnn.matmul, own.mkldnn.conv, own.mkldnn.rnn)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = WHOLE
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
