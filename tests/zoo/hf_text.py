"""transformers' architectures that read text: encoders, decoders, and both."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .case import keywords, tokens
from .hf_architecture import Architecture, Options, boxes, pair, text

_SHORT, _LONG = text(12), text(9)
_ENCODER: Options = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "num_labels": 3,
}
_DECODER: Options = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS: Options = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT: Options = {
    "vocab_size": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BART: Options = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
_T5: Options = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}


def architectures() -> Iterator[Architecture]:
    """Every architecture of the tables below."""
    for name, options in _ENCODERS.items():
        yield Architecture(name, {**_ENCODER, **options}, _SHORT, _LONG)
    for name, options in _OWN_NAMES.items():
        yield Architecture(name, options, _SHORT, _LONG)
    for name, options in _DECODERS.items():
        yield Architecture(name, {**_DECODER, **options}, _SHORT, _LONG)
    for name, options in _SEQ2SEQ.items():
        yield Architecture(name, options, pair(), pair(8, 5))
    yield from _special()


_ENCODERS: dict[str, Options] = {
    "BertForSequenceClassification": {},
    "BertForMaskedLM": {},
    "RobertaForTokenClassification": {},
    "CamembertForQuestionAnswering": {"num_labels": 2},
    "XLMRobertaForSequenceClassification": {},
    "RobertaPreLayerNormForMaskedLM": {},
    "AlbertForSequenceClassification": {"embedding_size": 16},
    "ElectraForSequenceClassification": {"embedding_size": 16},
    "ElectraForPreTraining": {"embedding_size": 16},
    "DebertaForSequenceClassification": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DebertaV2ForSequenceClassification": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "MPNetForSequenceClassification": {"pad_token_id": 1},
    "MobileBertForSequenceClassification": {
        "embedding_size": 32,
        "true_hidden_size": 32,
        "intra_bottleneck_size": 32,
        "num_feedforward_networks": 2,
    },
    "SqueezeBertForSequenceClassification": {"embedding_size": 32},
    "RoFormerForSequenceClassification": {"embedding_size": 32},
    "ConvBertForSequenceClassification": {"embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 5},
    "RemBertForSequenceClassification": {"input_embedding_size": 16, "output_embedding_size": 16},
    "ErnieForSequenceClassification": {},
    "Data2VecTextForSequenceClassification": {},
    "MegatronBertForSequenceClassification": {},
    "ModernBertForSequenceClassification": {"pad_token_id": 0, "local_attention": 6},
    "EsmForSequenceClassification": {"pad_token_id": 1, "mask_token_id": 3},
    "BigBirdForSequenceClassification": {"attention_type": "original_full"},
    "YosoForSequenceClassification": {"use_expectation": True},
    "SplinterForQuestionAnswering": {},
    "LukeForSequenceClassification": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "BertGenerationEncoder": {},
    "EuroBertForSequenceClassification": {"pad_token_id": 0},
    "NomicBertModel": {},
    "IBertForSequenceClassification": {"quant_mode": False},
    "XmodForSequenceClassification": {"default_language": "en_XX"},
}
_OWN_NAMES: dict[str, Options] = {
    "DistilBertForSequenceClassification": {
        "vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64,
    },
    "FunnelForSequenceClassification": {
        "vocab_size": 64, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "block_sizes": [1, 1],
        "num_decoder_layers": 1, "max_position_embeddings": 64,
    },
    "XLNetForSequenceClassification": {"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "XLMForSequenceClassification": {
        "vocab_size": 64, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_langs": 1, "max_position_embeddings": 64,
    },
    "FlaubertForSequenceClassification": {
        "vocab_size": 64, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_langs": 1, "max_position_embeddings": 64,
    },
    "PerceiverForMaskedLM": {
        "vocab_size": 64, "d_model": 16, "d_latents": 16, "num_latents": 8, "num_blocks": 1,
        "num_self_attends_per_block": 2, "num_self_attention_heads": 2, "num_cross_attention_heads": 2,
        "qk_channels": 16, "v_channels": 16, "max_position_embeddings": 12,
    },
    "CanineForSequenceClassification": {
        **_ENCODER, "downsampling_rate": 4, "num_hash_buckets": 32, "local_transformer_stride": 4,
        "type_vocab_size": 2, "bos_token_id": 1, "eos_token_id": 2,
    },
    "GPT2LMHeadModel": _GPT,
    "GPT2ForSequenceClassification": {**_GPT, "pad_token_id": 0},
    "GPTJForCausalLM": {**_GPT, "rotary_dim": 4},
    "CodeGenForCausalLM": {**_GPT, "rotary_dim": 4, "n_ctx": 64},
    "GPTBigCodeForCausalLM": _GPT,
    "OpenAIGPTLMHeadModel": _GPT,
    "CTRLLMHeadModel": {**_GPT, "dff": 48},
    "BloomForCausalLM": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "MptForCausalLM": {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "OPTForCausalLM": {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16,
    },
    "GPTNeoForCausalLM": {
        "vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]], "window_size": 4, "intermediate_size": 48,
    },
    "XGLMForCausalLM": {
        "vocab_size": 64, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48,
        "max_position_embeddings": 64,
    },
}  # fmt: skip
_DECODERS: dict[str, Options] = {
    "LlamaForCausalLM": {},
    "LlamaForSequenceClassification": {"num_labels": 3},
    "MistralForCausalLM": {"sliding_window": 6},
    "MixtralForCausalLM": {"num_local_experts": 4},
    "Qwen2ForCausalLM": {},
    "Qwen2MoeForCausalLM": {**_EXPERTS, "shared_expert_intermediate_size": 24},
    "Qwen3ForCausalLM": {"head_dim": 8},
    "GemmaForCausalLM": {"head_dim": 8},
    "Gemma2ForCausalLM": {"head_dim": 8},
    "Gemma3ForCausalLM": {"head_dim": 8, "sliding_window": 6},
    "PhiForCausalLM": {},
    "Phi3ForCausalLM": {},
    "StableLmForCausalLM": {},
    "Starcoder2ForCausalLM": {},
    "OlmoForCausalLM": {},
    "Olmo2ForCausalLM": {},
    "CohereForCausalLM": {},
    "GraniteForCausalLM": {},
    "NemotronForCausalLM": {},
    "SmolLM3ForCausalLM": {},
    "PersimmonForCausalLM": {},
    "GPTNeoXForCausalLM": {},
    "FalconForCausalLM": {},
    "BioGptForCausalLM": {},
    "GptOssForCausalLM": {"num_local_experts": 4, "head_dim": 8, "sliding_window": 6},
    "DeepseekV3ForCausalLM": {
        "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "num_key_value_heads": 4,
    },
    "JambaForCausalLM": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "num_experts": 2, "use_mamba_kernels": False, "mamba_d_state": 4, "mamba_dt_rank": 4,
    },
}  # fmt: skip
_SEQ2SEQ: dict[str, Options] = {
    "T5ForConditionalGeneration": _T5,
    "MT5ForConditionalGeneration": {**_T5, "feed_forward_proj": "gated-gelu"},
    "UMT5ForConditionalGeneration": _T5,
    "SwitchTransformersForConditionalGeneration": {**_T5, "num_experts": 4, "expert_capacity": 16},
    "LongT5ForConditionalGeneration": {**_T5, "local_radius": 4},
    "BartForConditionalGeneration": _BART,
    "MBartForConditionalGeneration": _BART,
    "PegasusForConditionalGeneration": _BART,
    "MarianMTModel": {**_BART, "decoder_vocab_size": 64},
    "BlenderbotForConditionalGeneration": _BART,
    "BlenderbotSmallForConditionalGeneration": _BART,
    "PLBartForConditionalGeneration": _BART,
    "M2M100ForConditionalGeneration": {**_BART, "encoder_layerdrop": 0.3, "decoder_layerdrop": 0.3},
    "FSMTForConditionalGeneration": {
        **_BART, "src_vocab_size": 64, "tgt_vocab_size": 64, "langs": ["en", "de"], "vocab_size": 64,
    },
    "ProphetNetForConditionalGeneration": {
        "vocab_size": 64, "hidden_size": 32, "num_encoder_layers": 2, "num_decoder_layers": 2, "ngram": 2,
        "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    },
}  # fmt: skip


def _special() -> Iterator[Architecture]:
    """Those with inputs of their own, or without a mask."""
    ids = keywords(lambda rows: {"input_ids": tokens(rows, 12)})
    shorter = keywords(lambda rows: {"input_ids": tokens(rows, 9)})
    landmarks = {**_ENCODER, "num_landmarks": 4, "segment_means_seq_len": 12}
    mask = "makes a mask of ones where there is none; traced, that counts as a mask, and the model fails with any"
    words = ("modeling_nystromformer.py", "line", "attention_mask")
    yield Architecture("NystromformerForSequenceClassification", landmarks, ids, notes=mask, words=words)
    ended = keywords(lambda rows: {"input_ids": torch.cat([tokens(rows, 9), torch.full((rows, 1), 2)], 1)})
    note = "picks the last hidden state by the end token's place in the data"
    yield Architecture("BartForSequenceClassification", _BART, ended, notes=note)
    state: Options = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    yield Architecture("FNetForSequenceClassification", {**_ENCODER, "use_tpu_fourier_optimizations": False}, ids)
    yield Architecture("MambaForCausalLM", state, ids, shorter)
    heads = {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4}
    yield Architecture("Mamba2ForCausalLM", {**state, **heads}, ids, shorter)
    yield Architecture("RwkvForCausalLM", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}, ids)
    long = {**_ENCODER, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}
    yield Architecture("BigBirdForMaskedLM", {**long, "max_position_embeddings": 128}, text(64))
    reformer = {
        **_ENCODER, "attention_head_size": 8, "attn_layers": ["local", "local"], "feed_forward_size": 48,
        "local_attn_chunk_length": 4, "axial_pos_embds": False, "is_decoder": False, "pad_token_id": 0,
    }  # fmt: skip
    note = "its reversible layers run without autograd, so nothing in them could learn"
    words = ("no error reaches",)
    yield Architecture("ReformerForSequenceClassification", reformer, _SHORT, _LONG, note, words)
    note, words = "asks the mask's values which tokens look at all others", ("decides by the values of a tensor",)
    windows = {"attention_window": [4, 4]}
    sliding = {**_ENCODER, **windows, "pad_token_id": 1}
    yield Architecture("LongformerForSequenceClassification", sliding, _SHORT, _LONG, note, words)
    sliding = {**_BART, **windows, "max_encoder_position_embeddings": 64}
    yield Architecture("LEDForConditionalGeneration", sliding, pair(), pair(8, 5), note, words)
    layout = {**_ENCODER, "max_2d_position_embeddings": 64}
    yield Architecture("LayoutLMForTokenClassification", layout, text(12, bbox=boxes), text(9, bbox=boxes))
    lilt = {**layout, "hidden_size": 48, "channel_shrink_ratio": 2}
    yield Architecture("LiltForTokenClassification", lilt, text(12, bbox=boxes))
    kinds = text(10, token_type_ids=lambda rows, length: torch.zeros(rows, length, 7, dtype=torch.int64))
    table = {**_ENCODER, "type_vocab_sizes": [3] * 7}
    yield Architecture("TapasForSequenceClassification", table, kinds)
    yield Architecture("DPRQuestionEncoder", _ENCODER, _SHORT, _LONG)
    choices = keywords(lambda rows: {"input_ids": tokens(rows * 3, 8).view(rows, 3, 8)})
    yield Architecture("BertForMultipleChoice", _ENCODER, choices)
