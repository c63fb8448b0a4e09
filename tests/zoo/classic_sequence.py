"""Plain torch.nn networks over sequences: recurrent, convolutional, attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Recurrent(nn.Module):
    """Any of torch's recurrent layers, and a head on its last step."""

    def __init__(self, layer: nn.Module, width: int):
        super().__init__()
        self.recurrent = layer
        self.hidden = nn.Linear(width, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x)
        return self.head(torch.relu(self.hidden(out[:, -1])))


class CellLoop(nn.Module):
    """An LSTMCell called in a Python loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(6, 8)
        self.cell = nn.LSTMCell(8, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = (x.new_zeros(x.shape[0], 12), x.new_zeros(x.shape[0], 12))
        outputs = []
        for step in range(x.shape[1]):
            state = self.cell(torch.relu(self.read(x[:, step])), state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs, 1)


class ManualRnn(nn.Module):
    """A recurrent network written with Linear layers, called once for each step; it asks for the batch with `len`."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.again, self.head = nn.Linear(6, 10), nn.Linear(10, 10, bias=False), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 10)
        for step in range(x.shape[1]):
            state = torch.tanh(self.inward(x[:, step]) + self.again(state))
        return self.head(state)


class TimeFirst(nn.Module):
    """torch's default layout: [time, batch, features]."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(6, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x.transpose(0, 1))
        return self.head(torch.relu(out[-1]))


class AttentiveTranslator(nn.Module):
    """GRU encoder and GRU decoder with additive attention, teacher forced."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(64, 12), nn.Embedding(64, 12)
        self.encoder = nn.GRU(12, 16, batch_first=True, bidirectional=True)
        self.key, self.query, self.energy = nn.Linear(32, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        self.decoder = nn.GRUCell(12 + 32, 16)
        self.head = nn.Linear(16, 64)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, _ = self.encoder(self.source(source))
        keys, state, words = self.key(memory), memory.new_zeros(source.shape[0], 16), self.target(target)
        outputs = []
        for step in range(target.shape[1]):
            energy = self.energy(torch.tanh(keys + self.query(state).unsqueeze(1)))
            context = (torch.softmax(energy, 1) * memory).sum(1)
            state = self.decoder(torch.cat([words[:, step], context], 1), state)
            outputs.append(self.head(state))
        return torch.stack(outputs, 1)


class Packed(nn.Module):
    """An LSTM over packed sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.recurrent, self.head = nn.Embedding(64, 8), nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.words(words), lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.recurrent(packed)
        return self.head(torch.relu(state[-1]))


class CausalBlock(nn.Module):
    """A block of a temporal convolutional network: dilated, causal, with a shortcut."""

    def __init__(self, inward: int, outward: int, dilation: int):
        super().__init__()
        self.pad = 2 * dilation
        self.conv = nn.Conv1d(inward, outward, 3, padding=self.pad, dilation=dilation)
        self.norm, self.drop = nn.BatchNorm1d(outward), nn.Dropout(0.2)
        self.shortcut = nn.Conv1d(inward, outward, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(torch.relu(self.norm(self.conv(x)[..., : -self.pad]))) + self.shortcut(x)


def temporal_convolution() -> nn.Module:
    return nn.Sequential(
        CausalBlock(4, 8, 1),
        CausalBlock(8, 8, 2),
        CausalBlock(8, 8, 4),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class WaveNet(nn.Module):
    """Gated dilated convolutions with residual and skip paths."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 8, 1)
        self.filters = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**i) for i in range(3))
        self.gates = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**i) for i in range(3))
        self.residuals = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(8, 12, 1) for _ in range(3))
        self.end = nn.Conv1d(12, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), 0.0
        for dilation, (read, gate, residual, skip) in enumerate(
            zip(self.filters, self.gates, self.residuals, self.skips, strict=True)
        ):
            padded = functional.pad(x, (2**dilation, 0))
            gated = torch.tanh(read(padded)) * torch.sigmoid(gate(padded))
            total = total + skip(gated)
            x = x + residual(gated)
        return self.end(torch.relu(total))


class SelfAttention(nn.Module):
    """nn.MultiheadAttention between Linear layers, its weights returned as well."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.attention = nn.Linear(6, 16), nn.MultiheadAttention(16, 4, dropout=0.1, batch_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inward(x)
        attended, weights = self.attention(x, x, x)
        return self.head(torch.relu(self.norm(x + attended)).mean(1)), weights


class Encoder(nn.Module):
    """nn.TransformerEncoder over tokens with a padding mask given by keyword."""

    def __init__(self, **options: object):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True, **options)  # type: ignore[arg-type]
        self.words, self.places = nn.Embedding(64, 16), nn.Parameter(torch.randn(1, 12, 16) * 0.02)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(16, 4)

    def forward(self, words: Tensor, *, mask: Tensor) -> Tensor:
        x = self.words(words) + self.places[:, : words.shape[1]]
        x = self.encoder(x, src_key_padding_mask=mask == 0)
        return self.head((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


class CausalDecoder(nn.Module):
    """nn.TransformerDecoder that reads a memory and must not see ahead."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.words, self.decoder, self.head = nn.Embedding(64, 16), nn.TransformerDecoder(layer, 1), nn.Linear(16, 64)

    def forward(self, words: Tensor, memory: Tensor) -> Tensor:
        ahead = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        return self.head(self.decoder(self.words(words), memory, tgt_mask=ahead))


class WholeTransformer(nn.Module):
    """nn.Transformer from source and target sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(16, 4, 1, 1, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.transformer(source, target))


class Rotary(nn.Module):
    """Attention with rotary positions through complex numbers, as the first LLaMA wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 4)
        angles = torch.outer(torch.arange(10.0), 1e4 ** (-torch.arange(0, 8, 2) / 8))
        self.register_buffer("turns", torch.view_as_real(torch.polar(torch.ones_like(angles), angles)))

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 4, 2))
        turns = torch.view_as_complex(self.turns)[: x.shape[1]].unsqueeze(1)
        return torch.view_as_real(pairs * turns).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(x.shape[0], -1, 3, 2, 8).unbind(2)
        q, k = self.turned(q), self.turned(k)
        attended = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        return self.head(torch.relu(self.out(attended.transpose(1, 2).flatten(2))))


class SelectiveScan(nn.Module):
    """A small state space model: a recurrence whose gates are read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.conv = nn.Linear(8, 32), nn.Conv1d(16, 16, 3, padding=2, groups=16)
        self.gates, self.outward = nn.Linear(16, 16 + 8), nn.Linear(16, 8)
        self.decay = nn.Parameter(-torch.rand(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.inward(x).chunk(2, -1)
        x = functional.silu(self.conv(x.transpose(1, 2))[..., :-2].transpose(1, 2))
        step, into, out = self.gates(x).split([16, 4, 4], -1)
        step, state, outputs = functional.softplus(step), x.new_zeros(x.shape[0], 16, 4), []
        for i in range(x.shape[1]):
            keep = torch.exp(step[:, i].unsqueeze(-1) * self.decay)
            state = keep * state + (step[:, i] * x[:, i]).unsqueeze(-1) * into[:, i].unsqueeze(1)
            outputs.append((state * out[:, i].unsqueeze(1)).sum(-1))
        return self.outward(torch.stack(outputs, 1) * functional.silu(gate))


class ConvLstm(nn.Module):
    """A convolutional LSTM over frames [rows, time, channels, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Conv2d(1 + 6, 24, 3, padding=1), nn.Conv2d(6, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = cell = frames.new_zeros(frames.shape[0], 6, *frames.shape[-2:])
        for step in range(frames.shape[1]):
            i, f, o, g = self.gates(torch.cat([frames[:, step], hidden], 1)).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return self.head(hidden)
