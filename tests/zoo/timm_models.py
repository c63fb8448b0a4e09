"""timm's architectures: the smallest variant of each family, at an image size that the family allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .case import Case, image
from .torchvision_ops import prepare


@dataclass(frozen=True)
class _Variant:
    """A timm architecture; `other` is a second image size, None where the family fixes it."""

    name: str
    size: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)
    other: int | None = None

    def make(self) -> nn.Module:
        prepare()
        import timm

        return timm.create_model(self.name, pretrained=False, num_classes=10, **self.options)


def cases() -> Iterator[Case]:
    """Every architecture of the tables below."""
    for variant in (*_convolutions(), *_attention(), *_others()):
        other = image(variant.other) if variant.other else None
        yield Case(f"timm/{variant.name}", "timm", variant.make, image(variant.size), other=other)


def _convolutions() -> Iterator[_Variant]:
    """Convolutional networks: any image size."""
    for name in _CONVOLUTIONS.split():
        yield _Variant(name, 64, other=96)
    for name, size in _LARGER.items():
        yield _Variant(name, size, other=size + 32)


def _attention() -> Iterator[_Variant]:
    """Those that are built for one image size."""
    for name, size in _SIZED.items():
        yield _Variant(name, size, {"img_size": size})
    for name, size in _FIXED.items():
        yield _Variant(name, size)


def _others() -> Iterator[_Variant]:
    """Those that need options, to be small or at all."""
    for name, (size, options) in _WITH_OPTIONS.items():
        yield _Variant(name, size, options)


_CONVOLUTIONS = """
    resnet10t resnet18 resnetblur18 seresnet18 ecaresnext26t_32x4d legacy_seresnet18 legacy_seresnext26_32x4d
    resnext50_32x4d skresnet18 resnest14d res2net50_14w_8s res2next50 resnetv2_18 resnetv2_50x1_bit
    regnetx_002 regnety_002 regnetz_b16 regnetv_040
    efficientnet_b0 tf_efficientnetv2_b0 tf_efficientnet_lite0 mixnet_s tinynet_e mobilenetv2_035 mnasnet_small
    semnasnet_075 spnasnet_100 fbnetc_100 fbnetv3_b lcnet_035 lcnetv2_small mobilenetv3_small_050
    tf_mobilenetv3_small_minimal_100 mobilenetv4_conv_small_035 hardcorenas_a mobilenet_edgetpu_v2_xs
    ghostnet_050 ghostnetv2_100 ghostnetv3_050 repghostnet_050 rexnet_100 rexnetr_100
    convnext_atto convnext_zepto_rms convnextv2_atto inception_next_atto mambaout_femto rdnet_tiny
    densenet121 densenetblur121d vgg11 vgg11_bn dla34 dla46x_c dpn48b hrnet_w18_small hgnet_tiny hgnetv2_b0
    cs3darknet_focus_s darknet17 cspresnext50 cspnext_tiny vovnet39a ese_vovnet19b_slim_dw selecsls42
    repvgg_a0 mobileone_s0 gernet_s gcresnext26ts eca_resnext26ts xception41 tresnet_m starnet_s050
    nf_regnet_b0 nf_resnet26 nf_ecaresnet26 dm_nfnet_f0 fasternet_t0 poolformer_s12 poolformerv2_s12 convformer_s18
    focalnet_tiny_srf edgenext_xx_small repvit_m0_9 shvit_s1 cpubone_nano csatv2 iformer_t lowformer_b0
    efficientvit_b0 pvt_v2_b0 fastvit_t8 convmixer_768_32 mobilevit_xxs mobilevitv2_050 nextvit_small
    test_efficientnet_evos
""".strip()
# The size below which a valid convolution or a pooling has nothing left to read.
_LARGER = {"inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 96, "legacy_xception": 64}
# Built for the image size that is asked for.
_SIZED = {
    "vit_tiny_patch16_224": 64,
    "deit3_small_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "vit_srelpos_small_patch16_224": 64,
    "vit_relpos_small_patch16_224": 64,
    "vit_tiny_r_s16_p8_224": 64,
    "swin_tiny_patch4_window7_224": 112,
    "swin_s3_tiny_224": 112,
    "swinv2_tiny_window8_256": 128,
    "swinv2_cr_tiny_224": 112,
    "maxvit_pico_rw_256": 128,
    "maxvit_rmlp_pico_rw_256": 128,
    "coatnet_pico_rw_224": 128,
    "coatnext_nano_rw_224": 128,
    "crossvit_tiny_240": 120,
    "cait_xxs24_224": 64,
    "xcit_nano_12_p16_224": 64,
    "pit_ti_224": 128,
    "nest_tiny": 64,
    "hiera_tiny_224": 64,
    "beit_base_patch16_224": 64,
    "eva02_tiny_patch14_224": 56,
    "vit_tiny_patch16_dinov3_qkvb": 64,
    "volo_d1_224": 64,
    "mixer_s32_224": 64,
    "gmlp_ti16_224": 64,
    "gmixer_12_224": 64,
    "resmlp_12_224": 64,
    "sequencer2d_s": 56,
    "visformer_tiny": 64,
    "tnt_s_patch16_224": 64,
    "convit_tiny": 64,
    "coat_lite_tiny": 64,
    "coat_tiny": 64,
    "twins_svt_small": 64,
    "twins_pcpvt_small": 64,
    "vitamin_small_224": 64,
    "mvitv2_tiny": 64,
    "samvit_base_patch16_224": 64,
    "efficientformerv2_s0": 64,
    "botnet26t_256": 64,
    "gcvit_xxtiny": 64,
    "efficientvit_m0": 64,
}
# Bound to the size in their name, or not told of it.
_FIXED = {
    "sam2_hiera_tiny": 64,
    "tiny_vit_5m_224": 224,
    "nasnetalarge": 96,
    "pnasnet5large": 96,
    "efficientformer_l1": 224,
    "levit_128s": 224,
    "levit_conv_128s": 224,
    "halonet26t": 256,
    "lambda_resnet26rpt_256": 256,
    "davit_tiny": 64,
    "naflexvit_base_patch16_gap": 64,
    "swiftformer_xs": 64,
    "efficientvim_m1": 224,
    "caformer_s18": 64,
    "mobilenetv4_hybrid_medium": 64,
    "bat_resnext26ts": 256,
    "mobilenetv5_base": 64,
}
_WITH_OPTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "gemma4_vit_167m": (64, {"depth": 2, "img_size": 64}),
    "qwen3_vit_88m": (64, {"depth": 2, "img_size": 64}),
    "deepseek_vit_412m": (56, {"depth": 2, "img_size": 56}),
    "aimv2_large_patch14_224": (56, {"depth": 2, "img_size": 56}),
}
