"""transformers' architectures that see, hear, read time series, or do several of these."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .case import Inputs, keywords, padding, tokens
from .hf_architecture import Architecture, Options, boxes, pixels, text, waves

_VIT: Options = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 3,
}
_TOWERS: Options = {
    "text_config": {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 32, "projection_dim": 16, "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "image_size": 32, "patch_size": 8, "projection_dim": 16,
    },
    "projection_dim": 16,
}  # fmt: skip
_WAVE: Options = {
    "vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2], "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 3, "apply_spec_augment": False, "num_labels": 3,
    "classifier_proj_size": 16, "pad_token_id": 0,
}  # fmt: skip
_FORECAST: Options = {
    "prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2, 3], "num_time_features": 2, "d_model": 16,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip
_RESNET = (
    "ResNetConfig",
    {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic",
     "out_features": ["stage4"]},
)  # fmt: skip
_RESNET3 = (_RESNET[0], {**_RESNET[1], "out_features": ["stage2", "stage3", "stage4"]})
_DETR: Options = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_queries": 6, "num_labels": 3, "use_timm_backbone": False,
    "backbone": None, "backbone_config": _RESNET,
}  # fmt: skip


def architectures() -> Iterator[Architecture]:
    """Every architecture of the tables below."""
    for name, (options, size) in _IMAGES.items():
        yield Architecture(name, options, pixels(size))
    for name, (options, size) in _ANY_SIZE.items():
        yield Architecture(name, options, pixels(size), pixels(size + 32))
    for name, options in _WAVES.items():
        yield Architecture(name, {**_WAVE, **options}, waves(), waves(2000))
    yield from _audio()
    yield from _several()
    yield from _series()


_IMAGES: dict[str, tuple[Options, int]] = {
    "ViTForImageClassification": (_VIT, 32),
    "ViTMSNForImageClassification": (_VIT, 32),
    "DeiTForImageClassification": (_VIT, 32),
    "BeitForImageClassification": ({**_VIT, "use_relative_position_bias": True}, 32),
    "Data2VecVisionForImageClassification": ({**_VIT, "use_relative_position_bias": True}, 32),
    "Dinov2ForImageClassification": (_VIT, 32),
    "Dinov2WithRegistersForImageClassification": (_VIT, 32),
    "DINOv3ViTModel": (_VIT, 32),
    "IJepaForImageClassification": (_VIT, 32),
    "YolosForObjectDetection": ({**_VIT, "num_detection_tokens": 5, "image_size": [32, 32]}, 32),
    "SwinForImageClassification": (
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        32,
    ),
    "Swinv2ForImageClassification": (
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        32,
    ),
    "LevitForImageClassification": (
        {"image_size": 64, "hidden_sizes": [32, 48, 64], "depths": [1, 1, 1], "num_attention_heads": [2, 3, 4],
         "key_dim": [8, 8, 8]},
        64,
    ),
    "MobileViTForImageClassification": (
        {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 48]},
        64,
    ),
    "HieraForImageClassification": (
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4],
         "masked_unit_size": [8, 8], "query_stride": [2, 2]},
        64,
    ),
    "DPTForDepthEstimation": (
        {**_VIT, "backbone_out_indices": [0, 1, 2, 3], "num_hidden_layers": 4, "neck_hidden_sizes": [8, 12, 16, 16],
         "fusion_hidden_size": 12, "is_hybrid": False, "initializer_range": 0.15},
        32,
    ),
    "DepthAnythingForDepthEstimation": (
        {"backbone_config": ("Dinov2Config", {**_VIT, "num_hidden_layers": 4, "out_indices": [1, 2, 3, 4],
                                              "reshape_hidden_states": False, "apply_layernorm": True}),
         "reassemble_hidden_size": 32, "patch_size": 8, "neck_hidden_sizes": [8, 12, 16, 16], "fusion_hidden_size": 12,
         "initializer_range": 0.5},  # smaller weights leave nothing of an image by the last rectifier
        32,
    ),
    "CLIPVisionModelWithProjection": ({**_VIT, "projection_dim": 16}, 32),
    "SiglipVisionModel": (_VIT, 32),
    "Swin2SRForImageSuperResolution": (
        {"image_size": 16, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4, "upscale": 2}, 16,
    ),
}  # fmt: skip
_ANY_SIZE: dict[str, tuple[Options, int]] = {
    "SegformerForSemanticSegmentation": (
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
         "decoder_hidden_size": 16, "num_labels": 3},
        64,
    ),
    "ConvNextForImageClassification": ({"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, 64),
    "ConvNextV2ForImageClassification": ({"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, 64),
    "ResNetForImageClassification": (_RESNET[1], 64),
    "RegNetForImageClassification": (
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "groups_width": 8}, 64,
    ),
    "BitForImageClassification": (
        {"embedding_size": 8, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1], "num_groups": 2}, 64,
    ),
    "MobileNetV1ForImageClassification": ({"depth_multiplier": 0.25}, 64),
    "MobileNetV2ForImageClassification": ({"depth_multiplier": 0.35}, 64),
    "MobileViTV2ForImageClassification": ({"width_multiplier": 0.25}, 64),
    "EfficientNetForImageClassification": (
        {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320, "image_size": 64}, 64,
    ),
    "PoolFormerForImageClassification": ({"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, 64),
    "PvtV2ForImageClassification": (
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}, 64,
    ),
    "CvtForImageClassification": ({"embed_dim": [8, 16, 32], "depth": [1, 2, 3], "num_heads": [1, 2, 2]}, 64),
    "FocalNetForImageClassification": ({"embed_dim": 16, "depths": [1, 1, 1, 1], "image_size": 64}, 64),
    "SwiftFormerForImageClassification": ({"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, 64),
    "GLPNForDepthEstimation": (
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
         "decoder_hidden_size": 16},
        64,
    ),
    "UperNetForSemanticSegmentation": (
        {"backbone_config": ("ConvNextConfig", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
                                                "out_features": ["stage1", "stage2", "stage3", "stage4"]}),
         "hidden_size": 16, "auxiliary_in_channels": 24, "num_labels": 3},
        64,
    ),
    "DetrForObjectDetection": (_DETR, 64),
    "ConditionalDetrForObjectDetection": (_DETR, 64),
    "DeformableDetrForObjectDetection": (
        {**_DETR, "num_feature_levels": 3, "backbone_config": _RESNET3, "decoder_layers": 2}, 64,
    ),
}  # fmt: skip
_WAVES: dict[str, Options] = {
    "Wav2Vec2ForSequenceClassification": {"layerdrop": 0.0},
    "Wav2Vec2ForCTC": {"layerdrop": 0.2, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "HubertForSequenceClassification": {},
    "WavLMForSequenceClassification": {},
    "UniSpeechForSequenceClassification": {},
    "UniSpeechSatForSequenceClassification": {},
    "SEWForSequenceClassification": {"squeeze_factor": 2},
    "Data2VecAudioForSequenceClassification": {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2},
    "Wav2Vec2ConformerForSequenceClassification": {"position_embeddings_type": "relative"},
}


def _mels(length: int, name: str = "input_features") -> Inputs:
    return keywords(lambda rows: {name: torch.randn(rows, 16, length), "decoder_input_ids": tokens(rows, 6)})


def _audio() -> Iterator[Architecture]:
    whisper: Options = {
        "vocab_size": 64, "num_mel_bins": 16, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "max_source_positions": 20, "max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 2,
    }  # fmt: skip
    yield Architecture("WhisperForConditionalGeneration", whisper, _mels(40))
    features = keywords(lambda rows: {"input_features": torch.randn(rows, 16, 40)})
    yield Architecture("WhisperForAudioClassification", {**whisper, "classifier_proj_size": 16}, features)
    spectrogram = {**_VIT, "num_mel_bins": 32, "max_length": 64}
    frames = keywords(lambda rows: {"input_values": torch.randn(rows, 64, 32)})
    yield Architecture("ASTForAudioClassification", spectrogram, frames)
    speech: Options = {
        "vocab_size": 64, "input_feat_per_channel": 16, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "conv_channels": 32, "max_source_positions": 100, "max_target_positions": 20, "decoder_start_token_id": 2,
    }  # fmt: skip
    heard = keywords(lambda rows: {"input_features": torch.randn(rows, 40, 16), "decoder_input_ids": tokens(rows, 6)})
    yield Architecture("Speech2TextForConditionalGeneration", speech, heard)
    moonshine: Options = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "encoder_num_hidden_layers": 1,
        "decoder_num_hidden_layers": 1, "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4,
        "max_position_embeddings": 64,
    }  # fmt: skip
    said = keywords(lambda rows: {"input_values": torch.randn(rows, 3000), "decoder_input_ids": tokens(rows, 6)})
    yield Architecture("MoonshineForConditionalGeneration", moonshine, said)


def _both(size: int = 32, length: int = 10) -> Inputs:
    return keywords(
        lambda rows: {
            "input_ids": tokens(rows, length),
            "pixel_values": torch.randn(rows, 3, size, size),
            "attention_mask": padding(rows, length),
        }
    )


def _several() -> Iterator[Architecture]:
    """Text and images together; videos; pictures of documents."""
    for name in ("CLIPModel", "SiglipModel", "AltCLIPModel", "ChineseCLIPModel"):
        yield Architecture(name, _TOWERS, _both())
    segments = {**_TOWERS, "extract_layers": [0, 1], "reduce_dim": 16, "decoder_intermediate_size": 32}
    yield Architecture("CLIPSegForImageSegmentation", segments, _both())
    yield Architecture("BlipForImageTextRetrieval", {**_TOWERS, "image_text_hidden_size": 16}, _both())
    vilt = {**_VIT, "vocab_size": 64, "max_position_embeddings": 32, "num_images": -1}
    note = "how large an image it takes is read from the pixel mask"
    words = ("by the values of a tensor", "modeling_vilt.py", "line", "interpolate")
    yield Architecture("ViltForQuestionAnswering", vilt, _both(), notes=note, words=words)
    layout: Options = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 64, "max_2d_position_embeddings": 64, "coordinate_size": 6, "shape_size": 4,
        "input_size": 32, "patch_size": 8, "num_labels": 3,
    }  # fmt: skip
    page = text(12, bbox=boxes, pixel_values=lambda rows, length: torch.randn(rows, 3, 32, 32))
    yield Architecture("LayoutLMv3ForTokenClassification", layout, page)
    video = keywords(lambda rows: {"pixel_values": torch.randn(rows, 4, 3, 32, 32)})
    yield Architecture("VideoMAEForVideoClassification", {**_VIT, "num_frames": 4, "tubelet_size": 2}, video)
    yield Architecture("TimesformerForVideoClassification", {**_VIT, "num_frames": 4}, video)
    yield Architecture("VivitForVideoClassification", {**_VIT, "num_frames": 4, "tubelet_size": [2, 8, 8]}, video)


def _past(rows: int) -> dict[str, torch.Tensor]:
    return {
        "past_values": torch.randn(rows, 15),
        "past_time_features": torch.randn(rows, 15, 2),
        "past_observed_mask": torch.ones(rows, 15),
        "future_values": torch.randn(rows, 4),
        "future_time_features": torch.randn(rows, 4, 2),
    }


def _steps(rows: int) -> dict[str, torch.Tensor]:
    return {
        "states": torch.randn(rows, 5, 6),
        "actions": torch.randn(rows, 5, 3),
        "rewards": torch.randn(rows, 5, 1),
        "returns_to_go": torch.randn(rows, 5, 1),
        "timesteps": torch.arange(5).repeat(rows, 1),
        "attention_mask": torch.ones(rows, 5),
    }


def _series() -> Iterator[Architecture]:
    """Time series and decisions."""
    yield Architecture("TimeSeriesTransformerForPrediction", _FORECAST, keywords(_past))
    yield Architecture("InformerForPrediction", _FORECAST, keywords(_past))
    yield Architecture("AutoformerForPrediction", _FORECAST, keywords(_past))
    values = keywords(lambda rows: {"past_values": torch.randn(rows, 16, 3)})
    patches: Options = {
        "num_input_channels": 3, "context_length": 16, "patch_length": 4, "patch_stride": 4, "prediction_length": 4,
        "d_model": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24,
    }  # fmt: skip
    yield Architecture("PatchTSTForPrediction", patches, values)
    yield Architecture("PatchTSMixerForPrediction", {**patches, "num_layers": 2}, values)
    decide = {"state_dim": 6, "act_dim": 3, "hidden_size": 32, "n_layer": 2, "n_head": 4, "max_ep_len": 20}
    yield Architecture("DecisionTransformerModel", decide, keywords(_steps))
