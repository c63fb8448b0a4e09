"""What a transformers architecture of the zoo is: a model class, the options of a tiny configuration, its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .case import Case, Inputs, keywords, padding, tokens
from .torchvision_ops import prepare

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A model class and the options of its configuration.

    Attributes:
        model: the class's name in transformers; its configuration class is what the class itself says.
        options: of the configuration; a value that is a pair (configuration class, options) is built first.
        inputs, other, notes, words: see `Case`; with words, it is to be refused.
    """

    model: str
    options: Options
    inputs: Inputs
    other: Inputs | None = None
    notes: str = ""
    words: tuple[str, ...] = ()

    def make(self) -> nn.Module:
        """The model with random weights."""
        prepare()
        import transformers

        transformers.logging.set_verbosity_error()
        kind = getattr(transformers, self.model)
        options = {name: _built(value) for name, value in self.options.items()}
        return kind(kind.config_class(**options))

    def cases(self) -> Iterator[Case]:
        """The case of the zoo."""
        expect: Literal["works", "refused"] = "refused" if self.words else "works"
        yield Case(
            f"hf/{self.model}", "hf", self.make, self.inputs, expect, self.words, other=self.other, notes=self.notes
        )


def _built(value: Any) -> Any:
    import transformers

    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping):
        return getattr(transformers, value[0])(**{name: _built(inner) for name, inner in value[1].items()})
    return value


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────


def text(length: int = 12, **more: Any) -> Inputs:
    """Token ids and an attention mask; `more` are further inputs as functions of (rows, length)."""
    return keywords(
        lambda rows: {
            "input_ids": tokens(rows, length),
            "attention_mask": padding(rows, length),
            **{name: make(rows, length) for name, make in more.items()},
        }
    )


def pair(length: int = 10, target: int = 7) -> Inputs:
    """A source with its mask, and the target's tokens."""
    return keywords(
        lambda rows: {
            "input_ids": tokens(rows, length),
            "attention_mask": padding(rows, length),
            "decoder_input_ids": tokens(rows, target),
        }
    )


def pixels(size: int = 32, channels: int = 3) -> Inputs:
    """Images [rows, channels, size, size] as `pixel_values`."""
    return keywords(lambda rows: {"pixel_values": torch.randn(rows, channels, size, size)})


def waves(length: int = 1600) -> Inputs:
    """Raw audio [rows, length] as `input_values`."""
    return keywords(lambda rows: {"input_values": torch.randn(rows, length)})


def boxes(rows: int, length: int) -> Tensor:
    """A box [left, top, right, bottom] for every token."""
    first = torch.randint(0, 40, (rows, length, 2))
    return torch.cat([first, first + torch.randint(1, 20, (rows, length, 2))], -1)
