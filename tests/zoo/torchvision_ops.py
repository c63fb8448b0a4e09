"""Lets torchvision, installed without its dependencies, be imported beside a torch build that its binaries do not fit.

Its C++ operators are then missing: box suppression gets a plain implementation here, the rest has one of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

_SUPPRESSION = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def prepare() -> tuple[Any, ...]:
    """Declare the operators; afterwards `import torchvision` and `import timm` work. What it returns has to live on."""
    if hasattr(torch.ops.torchvision, "nms"):
        return ()
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(name + _SUPPRESSION)
    declared.impl("nms", _suppressed, "CPU")
    from torchvision.ops import boxes

    boxes._assert_has_ops = lambda: None
    return (declared,)


def _suppressed(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes kept, best first: each takes out those below it that it overlaps by more."""
    from torchvision.ops.boxes import box_iou

    order = scores.argsort(descending=True)
    overlaps = box_iou(dets[order], dets[order]) > iou_threshold
    kept = torch.ones(len(order), dtype=torch.bool)
    for index in range(len(order)):
        if kept[index]:
            kept[index + 1 :] &= ~overlaps[index, index + 1 :]
    return order[kept]
