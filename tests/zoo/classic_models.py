"""Plain torch.nn shapes: what people write themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from . import classic_calls as calls
from . import classic_control as control
from . import classic_sequence as sequence
from . import classic_vision as vision
from . import classic_weights as weights
from .case import Case, Inputs, floats, image, keywords, padding, positional, tokens


def cases() -> Iterator[Case]:
    """Every shape of the tables below."""
    for table in (_sequences(), _visions(), _weights(), _calls(), _control()):
        for name, (make, inputs, other) in table.items():
            yield Case(f"classic/{name}", "classic", make, inputs, other=other, output=_OUTPUTS.get(name))
    yield from _refused()


_Row = tuple[Callable[[], nn.Module], Inputs, Inputs | None]


def _recurrent(kind: Callable[..., nn.Module], width: int, **options: object) -> Callable[[], nn.Module]:
    return lambda: sequence.Recurrent(kind(6, 12, batch_first=True, **options), width)


def _sequences() -> dict[str, _Row]:
    both = {"num_layers": 2, "bidirectional": True, "dropout": 0.2}
    series, longer, embedded = floats(9, 6), floats(13, 6), floats(10, 16)
    return {
        "rnn": (_recurrent(nn.RNN, 12), series, longer),
        "lstm": (_recurrent(nn.LSTM, 12), series, longer),
        "gru": (_recurrent(nn.GRU, 12), series, longer),
        "lstm_stacked_both_ways": (_recurrent(nn.LSTM, 24, **both), series, longer),
        "gru_stacked_both_ways": (_recurrent(nn.GRU, 24, **both), series, longer),
        "lstm_projected": (_recurrent(nn.LSTM, 5, proj_size=5), series, longer),
        "lstm_cell_loop": (sequence.CellLoop, floats(5, 6), None),
        "linear_recurrence": (sequence.ManualRnn, series, None),
        "gru_time_first": (sequence.TimeFirst, series, longer),
        "attentive_translator": (
            sequence.AttentiveTranslator,
            positional(lambda rows: (tokens(rows, 7), tokens(rows, 5))),
            None,
        ),
        "temporal_convolution": (sequence.temporal_convolution, floats(4, 24), floats(4, 40)),
        "wavenet": (sequence.WaveNet, floats(1, 20), floats(1, 32)),
        "self_attention": (sequence.SelfAttention, series, longer),
        "transformer_encoder": (sequence.Encoder, _masked(12), _masked(8)),
        "transformer_encoder_norm_first": (_norm_first, _masked(12), _masked(8)),
        "transformer_decoder": (
            sequence.CausalDecoder,
            positional(lambda rows: (tokens(rows, 7), torch.randn(rows, 5, 16))),
            positional(lambda rows: (tokens(rows, 9), torch.randn(rows, 6, 16))),
        ),
        "transformer": (sequence.WholeTransformer, _pair((7, 16), (5, 16)), _pair((9, 16), (6, 16))),
        "rotary_attention": (sequence.Rotary, embedded, floats(6, 16)),
        "selective_scan": (sequence.SelectiveScan, floats(6, 8), None),
        "conv_lstm": (sequence.ConvLstm, floats(4, 1, 12, 12), None),
    }


def _visions() -> dict[str, _Row]:
    return {
        "cnn": (vision.small_cnn, image(16), image(20)),
        "lenet": (vision.lenet, image(28, 1), None),
        "separable_cnn": (vision.separable_cnn, image(16), image(24)),
        "conv1d": (vision.conv1d_net, floats(2, 48), floats(2, 64)),
        "conv3d": (vision.conv3d_net, floats(1, 8, 10, 10), floats(1, 8, 12, 12)),
        "gan_generator": (vision.generator, floats(16), None),
        "gan_discriminator": (vision.discriminator, image(16, 1), None),
        "unet": (vision.UNet, image(16), image(24)),
        "feature_pyramid": (vision.PyramidSegmenter, image(16), image(24)),
        "super_resolution": (vision.SuperResolution, image(10, 1), image(14, 1)),
        "squeeze_excite": (vision.SqueezeExcite, image(12), image(16)),
        "capsules": (vision.Capsules, image(16, 1), None),
        "spatial_transformer": (vision.SpatialTransformer, image(16, 1), None),
        "patches": (vision.Patches, image(16), None),
        "unpooling": (vision.Unpooling, image(12, 1), None),
        "graph_convolution": (vision.GraphNet, _graph(6), _graph(9)),
        "deep_sets": (vision.DeepSets, floats(7, 4), floats(11, 4)),
        "pointnet": (vision.PointNet, floats(3, 20), floats(3, 28)),
    }


def _weights() -> dict[str, _Row]:
    vector = floats(8)
    return {
        "tied_language_model": (weights.TiedLanguageModel, positional(lambda rows: (tokens(rows, 8),)), None),
        "tied_autoencoder": (weights.TiedAutoencoder, floats(20), None),
        "called_twice": (weights.CalledTwice, floats(12), None),
        "siamese": (weights.Siamese, _pair((1, 12, 12), (1, 12, 12)), None),
        "weight_norm_hooks": (weights.weight_normed_old, floats(3, 16), None),
        "weight_norm": (weights.weight_normed, floats(3, 16), None),
        "spectral_norm": (weights.spectrally_normed, floats(10), None),
        "orthogonal": (weights.orthogonal, vector, None),
        "own_parametrization": (weights.symmetric, vector, None),
        "hypernetwork": (weights.Hypernetwork, _pair((3, 10, 10), (6,)), None),
        "standardised_weights": (weights.standardised, image(12), None),
        "bfloat16": (lambda: weights.of_type(torch.bfloat16), _typed(torch.bfloat16), None),
        "float16": (lambda: weights.of_type(torch.float16), _typed(torch.float16), None),
        "float64": (lambda: weights.of_type(torch.float64), _typed(torch.float64), None),
        "complex_linear": (weights.ComplexPerceptron, floats(16), None),
        "half_frozen": (weights.half_frozen, image(12), None),
        "codebook": (weights.Codebook, floats(12), None),
        "neural_arithmetic": (weights.Arithmetic, floats(4), None),
    }


def _calls() -> dict[str, _Row]:
    vector = floats(6)
    return {
        "perceptron": (lambda: calls.perceptron(6, 3), vector, None),
        "dict_output": (calls.DictOutput, vector, None),
        "dataclass_output": (calls.DataclassOutput, vector, None),
        "tuple_output": (calls.TupleOutput, vector, None),
        "auxiliary_head": (calls.AuxiliaryHead, image(12), None),
        "keyword_inputs": (
            calls.KeywordInputs,
            keywords(lambda rows: {"left": torch.randn(rows, 5), "right": torch.randn(rows, 7)}),
            None,
        ),
        "masked_tokens": (calls.MaskedTokens, positional(lambda rows: (tokens(rows, 9), padding(rows, 9) > 0)), None),
        "nested_inputs": (calls.NestedInputs, keywords(_nested), None),
        "recommender": (calls.Recommender, positional(_categories), None),
        "embedding_bag": (calls.Bag, positional(lambda rows: (tokens(rows, 6),)), None),
        "bilinear": (calls.Pairing, _pair((5,), (7,)), None),
        "denoiser": (
            calls.Denoiser,
            positional(lambda rows: (torch.randn(rows, 1, 12, 12), torch.randint(0, 100, (rows,)))),
            None,
        ),
    }


def _control() -> dict[str, _Row]:
    vector, wider = floats(6), floats(8)
    return {
        "scripted_if": (control.ScriptedIf, vector, None),
        "scripted_module": (lambda: torch.jit.script(vision.small_cnn()), image(16), image(20)),
        "jit_traced_module": (lambda: torch.jit.trace(vision.lenet(), torch.randn(2, 1, 28, 28)), image(28, 1), None),
        "checkpointed": (control.Checkpointed, vector, None),
        "stochastic_depth": (control.StochasticDepth, vector, None),
        "layer_drop": (control.LayerDrop, wider, None),
        "variational": (lambda: control.Variational(always=False), floats(20), None),
        "variational_always": (lambda: control.Variational(always=True), floats(20), None),
        "dense_experts": (control.DenseExperts, wider, None),
        "routed_experts": (control.RoutedExperts, wider, None),
        "global_filter": (control.Spectral, floats(16, 6), None),
        "fourier_mixing": (control.Mixing, floats(8, 6), None),
        "ode": (control.OdeNet, floats(4), None),
        "python_if": (control.PythonIf, vector, None),
    }


# What a user would name: the first output is not the one that a loss is taken of.
_OUTPUTS = {"variational": "rebuilt", "variational_always": "rebuilt"}


def _refused() -> Iterator[Case]:
    yield Case("classic/no_layer", "classic", control.Bare, floats(6), "refused", ("no Linear or Conv",))
    packed, words = positional(lambda rows: (tokens(rows, 6), _lengths(rows))), ("packs sequences", ".py, line")
    yield Case("classic/lstm_packed", "classic", sequence.Packed, packed, "refused", words)
    decides = ("decides by the values of a tensor", ".py, line")
    yield Case("classic/early_exit", "classic", control.EarlyExit, floats(8), "refused", decides)
    yield Case("classic/numpy_inside", "classic", control.NumpyInside, floats(6), "refused", ("numpy", ".py"))


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────


def _norm_first() -> nn.Module:
    return sequence.Encoder(norm_first=True, activation="gelu")


def _lengths(rows: int) -> torch.Tensor:
    return torch.arange(rows) % 3 + 4


def _masked(length: int) -> Inputs:
    return keywords(lambda rows: {"words": tokens(rows, length), "mask": padding(rows, length)})


def _pair(left: tuple[int, ...], right: tuple[int, ...]) -> Inputs:
    return positional(lambda rows: (torch.randn(rows, *left), torch.randn(rows, *right)))


def _graph(nodes: int) -> Inputs:
    return positional(lambda rows: (torch.randn(rows, nodes, 5), (torch.rand(rows, nodes, nodes) < 0.4).float()))


def _typed(dtype: torch.dtype) -> Inputs:
    return positional(lambda rows: (torch.randn(rows, 8).to(dtype),))


def _nested(rows: int) -> dict[str, object]:
    facts = {"facts": torch.randn(rows, 4), "weight": torch.rand(rows, 1)}
    return {"images": [torch.randn(rows, 1, 8, 8) for _ in range(3)], "extra": facts}


def _categories(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 5), torch.randint(0, 10, (rows, 3))
