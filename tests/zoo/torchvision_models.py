"""torchvision's architectures: classification, segmentation, video, optical flow, and detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .case import Case, Inputs, floats, image, positional
from .torchvision_ops import prepare


def cases() -> Iterator[Case]:
    """Every architecture of the tables below."""
    for table in (_classifiers(), _segmenters(), _videos()):
        for name, (options, inputs, other) in table.items():
            yield Case(f"torchvision/{name}", "torchvision", _maker(name, options), inputs, other=other)
    yield Case("torchvision/mvit", "torchvision", _mvit, floats(3, 4, 32, 32), notes="three blocks of MViT v2")
    yield Case("torchvision/raft_small", "torchvision", _raft, _frames, notes="two refinements of the flow")
    for name, options in _DETECTORS.items():
        note = "whole detector: images as a list, boxes after suppression"
        make = _maker(name, {**_BARE, **options})
        yield Case(f"torchvision/{name}", "torchvision", make, _pictures, parts=True, notes=note)


def _maker(name: str, options: Mapping[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        prepare()
        import torchvision

        return torchvision.models.get_model(name, weights=None, **options)

    return make


def _classifiers() -> dict[str, tuple[dict[str, Any], Inputs, Inputs | None]]:
    ten = {"num_classes": 10}
    free, fixed = (ten, image(64), image(96)), (ten, image(64), None)
    return {
        **dict.fromkeys(_FREE, free),
        "alexnet": (ten, image(96), image(128)),
        "vgg11_bn": fixed,
        "inception_v3": ({**ten, "init_weights": True}, image(299), None),
        "googlenet": ({**ten, "init_weights": True}, image(64), None),
        "vit_b_32": ({**ten, "image_size": 64}, image(64), None),
        "maxvit_t": ({**ten, "input_size": (224, 224)}, image(224), None),
    }


def _segmenters() -> dict[str, tuple[dict[str, Any], Inputs, Inputs | None]]:
    plain = {"weights_backbone": None, "num_classes": 3}
    free = image(64), image(96)
    return {
        "fcn_resnet50": ({**plain, "aux_loss": True}, *free),
        "deeplabv3_mobilenet_v3_large": (plain, *free),
        "lraspp_mobilenet_v3_large": (plain, *free),
    }


def _videos() -> dict[str, tuple[dict[str, Any], Inputs, Inputs | None]]:
    ten = {"num_classes": 10}
    return {
        "r3d_18": (ten, floats(3, 4, 32, 32), None),
        "mc3_18": (ten, floats(3, 4, 32, 32), None),
        "r2plus1d_18": (ten, floats(3, 4, 32, 32), None),
        "s3d": (ten, floats(3, 14, 224, 224), None),
        "swin3d_t": (ten, floats(3, 4, 64, 64), None),
    }


_FREE = (
    *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "squeezenet1_1", "densenet121", "mnasnet0_5", "mobilenet_v2"),
    *("mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"),
    *("regnet_x_400mf", "regnet_y_400mf", "swin_t", "swin_v2_t"),
)
_BARE = {"weights_backbone": None, "num_classes": 3}
_SMALL = {"min_size": 96, "max_size": 96}
_DETECTORS: dict[str, dict[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": _SMALL,
    "retinanet_resnet50_fpn": _SMALL,
    "ssdlite320_mobilenet_v3_large": {},
    "fcos_resnet50_fpn": _SMALL,
    "maskrcnn_resnet50_fpn": _SMALL,
    "keypointrcnn_resnet50_fpn": {**_SMALL, "num_classes": 2},
}


class _Flow(nn.Module):
    """RAFT with two refinements, of which the last is the output."""

    def __init__(self, raft: nn.Module):
        super().__init__()
        self.raft = raft

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.raft(first, second, num_flow_updates=2)[-1]


def _mvit() -> nn.Module:
    prepare()
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    blocks = [
        MSBlockConfig(1, 24, 48, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 4, 4]),
        MSBlockConfig(2, 48, 48, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
        MSBlockConfig(2, 48, 48, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
    ]
    return MViT(
        (32, 32), 4, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
        proj_after_attn=True, num_classes=10, stochastic_depth_prob=0.1,
    )  # fmt: skip


def _raft() -> nn.Module:
    return _Flow(_maker("raft_small", {})())


def _frames(rows: int) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    return (torch.rand(rows, 3, 128, 128) * 2 - 1, torch.rand(rows, 3, 128, 128) * 2 - 1), {}


_pictures = positional(lambda rows: (torch.rand(rows, 3, 96, 96),))
