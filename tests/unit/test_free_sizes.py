"""Which sizes stay free: those that the model leaves open, under names that mean something; never a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftkit import api as gk
from graftkit import tracing
from graftkit.core.errors import TraceError
from graftkit.model import TracedModel


def trace(module: nn.Module, *inputs: Tensor, free: Any = "auto") -> TracedModel:
    return tracing.trace_module(module, inputs, name="net", free=free)


def shapes(traced: TracedModel) -> list[tuple[int | str, ...]]:
    return [port.shape for port in traced.signature.inputs]


def assert_same(module: nn.Module, traced: TracedModel, *inputs: Tensor) -> None:
    """Both graphs give what the module gives in both modes."""
    for graph, training in ((traced.train_graph, True), (traced.eval_graph, False)):
        with torch.no_grad():
            expected, found = module.train(training)(*inputs), graph(*inputs)
        torch.testing.assert_close(found, expected)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).amax((2, 3, 4))


class Pointwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@dataclass(frozen=True)
class Open:
    make: Callable[[], nn.Module]
    example: tuple[int, ...]
    shape: tuple[int | str, ...]
    others: tuple[tuple[int, ...], ...]


OPEN = {
    "image": Open(Image, (2, 3, 8, 8), ("batch", 3, "height", "width"), ((3, 3, 5, 11), (1, 3, 16, 16))),
    "signal": Open(Signal, (2, 2, 9), ("batch", 2, "length"), ((4, 2, 30),)),
    "volume": Open(Volume, (2, 1, 4, 5, 6), ("batch", 1, "depth", "height", "width"), ((3, 1, 6, 3, 9),)),
    "tokens": Open(Pointwise, (2, 2, 4), ("batch", "length", 4), ((5, 3, 4),)),  # as many rows as positions
}


@pytest.mark.parametrize("name", OPEN)
def test_what_a_model_leaves_open_stays_free(name: str) -> None:
    case = OPEN[name]
    torch.manual_seed(0)
    module = case.make()
    traced = trace(module, torch.randn(case.example))
    assert shapes(traced) == [case.shape] and traced.notes == ()
    for other in case.others:
        assert_same(module, traced, torch.randn(other))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2 * 4 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


class Positions(nn.Module):
    """A learned embedding for each of six positions, no more and no less."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.positions = nn.Linear(4, 4), nn.Parameter(torch.randn(1, 6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.positions)


class Table(nn.Module):
    """Position embeddings for up to 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions, self.layer = nn.Embedding(9, 4), nn.Embedding(16, 4), nn.Linear(4, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device)))


@pytest.mark.parametrize(
    ("make", "example", "shape"),
    [
        (Flat, (2, 1, 6, 6), ("batch", 1, 6, 6)),
        (Positions, (2, 6, 4), ("batch", 6, 4)),
        (Recurrent, (2, 6, 3), ("batch", 6, 3)),  # torch.export writes the steps out
    ],
)
def test_what_a_model_fixes_is_a_number(
    make: type[nn.Module], example: tuple[int, ...], shape: tuple[Any, ...]
) -> None:
    module = make()
    traced = trace(module, torch.randn(example))
    assert shapes(traced) == [shape]
    assert_same(module, traced, torch.randn(5, *example[1:]))


def test_a_table_of_positions_is_free_up_to_its_end() -> None:
    module = Table()
    traced = trace(module, torch.randint(9, (2, 5)))
    assert shapes(traced) == [("batch", "length")]
    for length in (1, 2, 9, 16):
        assert_same(module, traced, torch.randint(9, (3, length)))


# ── names ────────────────────────────────────────────────────────────────────────────────────────


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.layer((self.embed(ids) * mask.unsqueeze(-1)).sum(1))


class Translator(nn.Module):
    """The memory and the target have lengths of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(9, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 9)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, x = self.embed(source), self.embed(target)
        return self.head(x + self.attend(x, memory, memory)[0])


def test_ids_and_their_mask_share_a_length() -> None:
    module = Masked()
    traced = trace(module, torch.randint(9, (2, 5)), torch.ones(2, 5, dtype=torch.bool))
    assert shapes(traced) == [("batch", "length"), ("batch", "length")]
    assert_same(module, traced, torch.randint(9, (3, 8)), torch.rand(3, 8) > 0.3)


def test_source_and_target_have_lengths_of_their_own() -> None:
    module = Translator()
    traced = trace(module, torch.randint(9, (2, 7)), torch.randint(9, (2, 4)))
    assert shapes(traced) == [("batch", "length"), ("batch", "length_1")]
    assert traced.signature.outputs[0].shape == ("batch", "length_1", 9)
    assert_same(module, traced, torch.randint(9, (3, 5)), torch.randint(9, (3, 11)))


def test_sizes_of_outputs_are_told_in_the_names_of_the_inputs() -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.layer(x)
            return y, torch.cat([y, y], 1)

    outputs = trace(Strided(), torch.randn(2, 5, 4)).signature.outputs
    assert [port.shape for port in outputs] == [("batch", "length", 4), ("batch", "2*length", 4)]


def test_a_shorter_second_input_does_not_lend_its_batch() -> None:
    """A table beside the rows: its first size is no batch."""

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.layer(x) @ table.T

    module = Lookup()
    traced = trace(module, torch.randn(2, 4), torch.randn(5, 4))
    ((batch, _), (size, _)) = shapes(traced)
    assert batch == "batch" and size not in ("batch", 5)
    assert_same(module, traced, torch.randn(3, 4), torch.randn(9, 4))


# ── code that asks how large something is ────────────────────────────────────────────────────────


class Branching(nn.Module):
    """Computes something else for other lengths; `asks` says which."""

    def __init__(self, asks: Callable[[int], bool]) -> None:
        super().__init__()
        self.layer, self.asks = nn.Linear(4, 4), asks

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if self.asks(x.shape[1]) else -self.layer(x)


ASKS: dict[str, Callable[[int], bool]] = {
    "near": lambda length: length > 7,
    "far above": lambda length: length < 100,
    "far below": lambda length: length > 1,
    "that very length": lambda length: length == 8,
    "even": lambda length: length % 2 == 0,
}


@pytest.mark.parametrize("name", ASKS)
def test_a_branch_on_the_length_is_never_lost_without_a_word(name: str) -> None:
    torch.manual_seed(0)
    module = Branching(ASKS[name])
    traced = trace(module, torch.randn(2, 8, 4))
    if "length" in shapes(traced)[0]:
        told = any("length" in note for note in traced.notes)  # a size of one is a case of its own for torch.export
        for length in (*(() if told else (1,)), 2, 5, 7, 8, 9, 50, 99, 100, 101, 200):
            assert_same(module, traced, torch.randn(3, length, 4))
    else:
        assert shapes(traced) == [("batch", 8, 4)]
        if name != "that very length":  # there, torch.export itself knows that the length is a number
            assert any("fixed" in note and "length" in note for note in traced.notes)
    assert_same(module, traced, torch.randn(5, 8, 4))


def test_an_example_of_zeros_hides_nothing() -> None:
    """As the command line makes one of `--input`."""

    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x if x.shape[1] < 10 else 2 * x)

    module = Scales()
    traced = trace(module, torch.zeros(2, 8, 4))
    assert_same(module, traced, torch.randn(3, 20 if "length" in shapes(traced)[0] else 8, 4))


def test_a_branch_on_the_number_of_rows_is_refused() -> None:
    class Rows(nn.Module):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.layer, self.most = nn.Linear(4, 4), most

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.shape[0] < self.most else -self.layer(x)

    for most in (5, 50, 1000):
        with pytest.raises(TraceError, match=r"batch size|rows"):
            trace(Rows(most), torch.randn(2, 4))


def test_a_branch_of_training_alone_on_the_length_is_not_lost_either() -> None:
    class Crops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x[:, :20] if self.training and x.shape[1] > 20 else x).mean(1)

    module = Crops()
    traced = trace(module, torch.randn(2, 8, 4))
    assert_same(module, traced, torch.randn(3, 30 if "length" in shapes(traced)[0] else 8, 4))


def test_a_size_that_training_alone_fixes_is_not_free() -> None:
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.noise = nn.Linear(4, 4), nn.Parameter(torch.randn(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.noise if self.training else self.layer(x)

    module = Noise()
    traced = trace(module, torch.randn(2, 6, 4))
    assert shapes(traced) == [("batch", 6, 4)]
    assert_same(module, traced, torch.randn(3, 6, 4))


def test_a_branch_on_a_single_row_is_told() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return y - y.mean(0) if x.shape[0] > 1 else y

    try:
        notes = trace(Centred(), torch.randn(2, 4)).notes
    except TraceError as error:  # a refusal says it, too
        notes = (str(error),)
    assert any("row" in note or "batch" in note for note in notes)


def test_a_length_that_has_to_be_a_multiple() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.view(x.shape[0], x.shape[1] // 4, 4, 4)).mean(2)

    module = Windows()
    traced = trace(module, torch.randn(2, 8, 4))
    for length in (4, 8, 20) if "length" in shapes(traced)[0] else (8,):
        assert_same(module, traced, torch.randn(3, length, 4))


class Rounding(nn.Module):
    """Pads its rows to whole windows of many widths, one after the other, as shifted-window transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for width in (3, 4, 5, 7, 9, 11):
            length = x.shape[1]
            x = nn.functional.pad(x, (0, 0, 0, (width - length % width) % width))
            x = torch.cat([x, x[:, : length // 2]], 1)
        return self.mix(x).mean(1)


def test_sizes_that_become_endless_formulas_are_fixed_with_a_note() -> None:
    module, rows = Rounding(), torch.randn(2, 10, 4)
    traced = trace(module, rows)
    assert shapes(traced) == [("batch", 10, 4)]
    assert any("formulas of over 100 terms" in note for note in traced.notes)
    assert_same(module, traced, torch.randn(5, 10, 4))


# ── what the user asks for ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("dynamic", "shape"),
    [("auto", ("batch", 3, "height", "width")), ("batch", ("batch", 3, 8, 6)), ("none", (2, 3, 8, 6))],
)
def test_what_is_asked_for(dynamic: str, shape: tuple[int | str, ...]) -> None:
    module = Image()
    traced = gk.trace(module, torch.randn(2, 3, 8, 6), dynamic=dynamic)
    assert shapes(traced) == [shape]
    assert_same(module, traced, torch.randn(2 if dynamic == "none" else 5, 3, 8, 6))
    assert any("fixed sizes" in note for note in traced.notes) == (dynamic == "none")


def test_an_unknown_wish_is_refused() -> None:
    with pytest.raises(TraceError, match="choose auto, batch or none"):
        gk.trace(Image(), torch.randn(2, 3, 8, 8), dynamic="length")


def test_macs_and_positions_are_those_of_the_example() -> None:
    for free in ("auto", "batch"):
        (site,) = trace(Pointwise(), torch.randn(3, 6, 4), free=free).sites
        assert (site.positions, site.macs) == (6, 6 * 16)
        assert site.input_shape[0] == -1 and site.batch_dim == 0


def test_a_fresh_graph_has_the_same_free_sizes() -> None:
    module = Image()
    traced = trace(module, torch.randn(2, 3, 8, 8))
    fresh = tracing.retrace(traced)
    for size in ((3, 3, 5, 11), (7, 3, 16, 4)):
        x = torch.randn(size)
        with torch.no_grad():
            torch.testing.assert_close(fresh(x), module.eval()(x))
