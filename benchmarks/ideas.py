"""A quick search among ideas for dendrites on spoken digits: ten folds trained at once, in plain torch.

Not graftkit's code but its arithmetic, as fast as a search needs it; what won here is measured properly elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from _arms import markdown
from _rows import spoken
from torch import Tensor
from torch.nn import functional

FOLDS, BATCH, HALVES = 10, 64, 2


@dataclass(frozen=True)
class Idea:
    """One net: channels of its two convolutions, a dendrite at each of them, and when it comes.

    Attributes:
        kind: a name in KINDS, several with `+`, or nothing.
        late: whether dendrites come after half of the epochs; the learning rate begins anew then in any case.
        units, rank, width: hidden units of context, channels and kernel of wide branches.
        shift: whether batches are moved by up to two frames.
    """

    channels: tuple[int, int]
    kind: str = ""
    late: bool = False
    units: int = 2
    rank: int = 2
    width: int = 9
    shift: bool = False


class Folds:
    """The same net once a fold, all with weights of their own: tensors begin with the fold."""

    def __init__(self, idea: Idea, draw: torch.Generator):
        self.idea, self.draw, self.weights, self.grown = idea, draw, {}, False
        self.channels = (16, *idea.channels)
        for layer in (1, 2):
            self.layer(f"conv{layer}", self.channels[layer], self.channels[layer - 1], 3)
        self.layer("head", 10, 12 * idea.channels[1])
        if not idea.late:
            self.grow()

    def layer(self, name: str, outputs: int, *inputs: int) -> None:
        """A layer's weights and bias, as torch draws them."""
        bound = 1 / math.sqrt(math.prod(inputs))
        for key, shape in ((name, (outputs, *inputs)), (f"{name}.bias", (outputs,))):
            drawn = (torch.rand((FOLDS, *shape), generator=self.draw) * 2 - 1) * bound
            self.weights[key] = drawn.requires_grad_()

    def silent(self, name: str, *shape: int) -> None:
        """Weights that are zero at first."""
        self.weights[name] = torch.zeros((FOLDS, *shape)).requires_grad_()

    def grow(self) -> None:
        """Dendrites at both convolutions."""
        self.grown = True
        for layer in (1, 2):
            for kind in filter(None, self.idea.kind.split("+")):
                KINDS[kind][0](self, f"{kind}{layer}", self.channels[layer - 1], self.channels[layer])

    def site(self, layer: int, inputs: Tensor) -> Tensor:
        """A convolution with its dendrites."""
        neuron = convolve(inputs, self.weights[f"conv{layer}"], self.weights[f"conv{layer}.bias"])
        for kind in filter(None, self.idea.kind.split("+")) if self.grown else ():
            neuron = KINDS[kind][1](self, f"{kind}{layer}", inputs, neuron)
        return neuron

    def __call__(self, inputs: Tensor) -> Tensor:
        """[folds, rows, 16, frames] to [folds, rows, 10]."""
        for layer in (1, 2):
            inputs = torch.relu(self.site(layer, inputs))
            inputs = functional.max_pool1d(inputs.flatten(0, 2), 2).unflatten(0, inputs.shape[:3])
        return self.linear("head", inputs.flatten(2))

    def linear(self, name: str, inputs: Tensor) -> Tensor:
        """A Linear of each fold."""
        return torch.einsum("fni,foi->fno", inputs, self.weights[name]) + self.weights[f"{name}.bias"].unsqueeze(1)

    def size(self) -> int:
        """Parameters of one fold."""
        return sum(weight[0].numel() for weight in self.weights.values())


def convolve(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution over time for each fold, of the length it was given."""
    taps = weight.shape[-1]
    padded = functional.pad(inputs, (taps // 2, taps - 1 - taps // 2))
    columns = padded.unfold(-1, taps, 1).permute(0, 1, 2, 4, 3).flatten(2, 3)  # [folds, rows, channels * taps, frames]
    found = torch.matmul(weight.flatten(2).unsqueeze(1), columns)
    return found if bias is None else found + bias[:, None, :, None]


# ── kinds: what they have, and what they make of (inputs, neuron) ────────────────────────────────

Grow = Callable[[Folds, str, int, int], None]
Join = Callable[[Folds, str, Tensor, Tensor], Tensor]


def _hidden(reads: Callable[[int, int], int]) -> Grow:
    def grow(net: Folds, name: str, inputs: int, outputs: int) -> None:
        net.layer(f"{name}.read", net.idea.units, reads(inputs, outputs))
        net.silent(f"{name}.answer", outputs, net.idea.units)
        net.silent(f"{name}.answer.bias", outputs)

    return grow


def _answered(summary: Callable[[Tensor, Tensor], Tensor], *, gates: bool) -> Join:
    def join(net: Folds, name: str, inputs: Tensor, neuron: Tensor) -> Tensor:
        told = torch.tanh(net.linear(f"{name}.read", summary(inputs, neuron)))
        answer = net.linear(f"{name}.answer", told).unsqueeze(-1)
        return neuron * (1 + torch.tanh(answer)) if gates else neuron + answer

    return join


def _mean(inputs: Tensor, neuron: Tensor) -> Tensor:
    return torch.relu(neuron).mean(-1)


def _thirds(inputs: Tensor, neuron: Tensor) -> Tensor:
    return torch.cat([part.mean(-1) for part in torch.relu(neuron).tensor_split(3, -1)], -1)


def _statistics(inputs: Tensor, neuron: Tensor) -> Tensor:
    heard = torch.relu(neuron)
    return torch.cat([heard.mean(-1), heard.amax(-1), neuron.std(-1)], -1)


def _heard(inputs: Tensor, neuron: Tensor) -> Tensor:
    return inputs.mean(-1)


def _branch(net: Folds, name: str, inputs: int, outputs: int) -> None:
    """A few channels of the inputs, each over many frames, told to all neurons."""
    net.layer(f"{name}.read", net.idea.rank, inputs, 1)
    net.layer(f"{name}.along", net.idea.rank, net.idea.width)
    net.silent(f"{name}.answer", outputs, net.idea.rank, 1)


def _along(net: Folds, name: str, inputs: Tensor) -> Tensor:
    read = convolve(inputs, net.weights[f"{name}.read"])
    width, kernel = net.idea.width, net.weights[f"{name}.along"]
    windows = functional.pad(read, (width // 2, width - 1 - width // 2)).unfold(-1, width, 1)
    heard = torch.einsum("fnrtk,frk->fnrt", windows, kernel) + net.weights[f"{name}.along.bias"][:, None, :, None]
    return convolve(torch.tanh(heard), net.weights[f"{name}.answer"])


def _wide(net: Folds, name: str, inputs: Tensor, neuron: Tensor) -> Tensor:
    return neuron + _along(net, name, inputs)


def _wide_gate(net: Folds, name: str, inputs: Tensor, neuron: Tensor) -> Tensor:
    return neuron * (1 + torch.tanh(_along(net, name, inputs)))


def _copy(net: Folds, name: str, inputs: int, outputs: int) -> None:
    net.layer(f"{name}.drive", outputs, inputs, 3)
    net.silent(f"{name}.strength", outputs)


def _copied(net: Folds, name: str, inputs: Tensor, neuron: Tensor) -> Tensor:
    told = torch.tanh(convolve(inputs, net.weights[f"{name}.drive"], net.weights[f"{name}.drive.bias"]))
    return neuron + net.weights[f"{name}.strength"][:, None, :, None] * told


KINDS: Mapping[str, tuple[Grow, Join]] = {
    "gate": (_hidden(lambda inputs, outputs: outputs), _answered(_mean, gates=True)),
    "add": (_hidden(lambda inputs, outputs: outputs), _answered(_mean, gates=False)),
    "gate-thirds": (_hidden(lambda inputs, outputs: 3 * outputs), _answered(_thirds, gates=True)),
    "gate-statistics": (_hidden(lambda inputs, outputs: 3 * outputs), _answered(_statistics, gates=True)),
    "gate-inputs": (_hidden(lambda inputs, outputs: inputs), _answered(_heard, gates=True)),
    "add-inputs": (_hidden(lambda inputs, outputs: inputs), _answered(_heard, gates=False)),
    "wide": (_branch, _wide),
    "wide-gate": (_branch, _wide_gate),
    "full": (_copy, _copied),
}


# ── training ─────────────────────────────────────────────────────────────────────────────────────


def measure(idea: Idea, path: Path, epochs: int, seed: int) -> tuple[int, Tensor, Tensor]:
    """(size, validation accuracy of each fold, test accuracy of each fold) after the last epoch, in percent."""
    draw = torch.Generator().manual_seed(seed)
    folds = [spoken(path, fold) for fold in range(FOLDS)]
    (x, y), validation, test = (
        tuple(torch.stack(tensors) for tensors in zip(*(rows.tensors for rows in part), strict=True))  # type: ignore[union-attr]
        for part in zip(*((data.train, data.validation, data.test) for data in folds), strict=True)
    )
    net, each = Folds(idea, draw), torch.arange(FOLDS).unsqueeze(1)
    for half in range(HALVES):
        if half and not net.grown:
            net.grow()
        steps = epochs // HALVES * (x.shape[1] // BATCH)
        optimizer = torch.optim.AdamW(net.weights.values(), lr=5e-3)
        course = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.05)
        for _epoch in range(epochs // HALVES):
            order = torch.stack([torch.randperm(x.shape[1], generator=draw) for _fold in range(FOLDS)])
            for rows in order[:, : order.shape[1] // BATCH * BATCH].split(BATCH, 1):
                inputs = x[each, rows]
                if idea.shift:
                    inputs = inputs.roll(int(torch.randint(-2, 3, (), generator=draw)), -1)
                loss = functional.cross_entropy(net(inputs).flatten(0, 1), y[each, rows].flatten())
                optimizer.zero_grad()
                (FOLDS * loss).backward()
                optimizer.step()
                course.step()
    with torch.no_grad():
        found = [100 * (net(part[0]).argmax(-1) == part[1]).float().mean(1) for part in (validation, test)]
    return net.size(), found[0], found[1]


def main() -> None:
    """Print one table."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("--path", type=Path, required=True, help="fsdd.npz")
    made.add_argument("--shapes", nargs="+", default=("6-6", "6-8", "8-8"))
    made.add_argument("--kinds", nargs="+", default=("", *KINDS))
    made.add_argument("--late", action="store_true", help="dendrites after half of the epochs")
    made.add_argument("--still", action="store_true", help="batches are not moved")
    made.add_argument("--epochs", type=int, default=140)
    made.add_argument("--seed", type=int, default=0)
    options = made.parse_args()
    torch.set_num_threads(1)
    shapes = [(int(first), int(second)) for first, second in (shape.split("-") for shape in options.shapes)]
    lines = []
    for shape, kind in itertools.product(shapes, options.kinds):
        idea = Idea(shape, kind, late=options.late, shift=not options.still)
        size, validation, test = measure(idea, options.path, options.epochs, options.seed)
        error = float(test.std()) / math.sqrt(FOLDS)
        name = f"{idea.channels[0]}-{idea.channels[1]} {idea.kind or 'plain'}"
        lines.append([name, f"{size:,}", f"{float(validation.mean()):.2f}", f"{float(test.mean()):.2f} ± {error:.2f}"])
        print(*lines[-1], file=sys.stderr)
    print(markdown(("", "parameters", "validation", "test"), lines))


if __name__ == "__main__":
    main()
