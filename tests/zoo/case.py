"""What a case of the zoo is: how to make a model, what to feed it, and what is expected of graftkit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Call = tuple[tuple[Any, ...], Mapping[str, Any]]  # positional and keyword arguments of `forward`
Inputs = Callable[[int], Call]  # how many rows -> fresh arguments, drawn from torch's own generator


@dataclass(frozen=True)
class Case:
    """One architecture.

    Attributes:
        name: unique within the zoo, `family/model`.
        family: "timm", "hf", "torchvision" or "classic".
        make: builds the model; called under `torch.manual_seed(0)`.
        inputs: arguments for a number of rows.
        expect: whether graftkit has to take it, or to refuse it.
        words: what a refusal has to say.
        parts: whether the largest part that can be traced will do.
        output: which output feeds the loss, where it is not the one that graftkit finds.
        other: arguments at another size (image, sequence length), to try where that dimension stays free.
        notes: what a reader of the table has to know.
    """

    name: str
    family: Literal["timm", "hf", "torchvision", "classic"]
    make: Callable[[], nn.Module]
    inputs: Inputs
    expect: Literal["works", "refused"] = "works"
    words: tuple[str, ...] = ()
    parts: bool = False
    output: str | None = None
    other: Inputs | None = None
    notes: str = ""

    def build(self) -> nn.Module:
        """The model, the same one every time; what its own code is warned of is none of graftkit's business."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.make()


def example_of(call: Call) -> Any:
    """Arguments as `gk.trace` takes them: a tuple of positional ones, or a dict of keyword ones."""
    args, keywords = call
    if args and keywords:
        raise ValueError("a case gives positional or keyword arguments, not both")
    return dict(keywords) if keywords else args


def floats(*shape: int) -> Inputs:
    """One positional float32 tensor [rows, *shape]."""
    return lambda rows: ((torch.randn(rows, *shape),), {})


def image(size: int = 64, channels: int = 3) -> Inputs:
    """One positional image [rows, channels, size, size]."""
    return floats(channels, size, size)


def positional(make: Callable[[int], tuple[Any, ...]]) -> Inputs:
    """Positional arguments from a function of the number of rows."""
    return lambda rows: (make(rows), {})


def keywords(make: Callable[[int], Mapping[str, Any]]) -> Inputs:
    """Keyword arguments from a function of the number of rows."""
    return lambda rows: ((), make(rows))


def tokens(rows: int, length: int, vocabulary: int = 64) -> Tensor:
    """Token ids int64 [rows, length], none of them a special one (0 to 3)."""
    return torch.randint(4, vocabulary, (rows, length))


def padding(rows: int, length: int) -> Tensor:
    """An attention mask int64 [rows, length] that leaves out the last tokens of every other row."""
    mask = torch.ones(rows, length, dtype=torch.int64)
    mask[1::2, -2:] = 0
    return mask
