"""What a dendrite might be, in plain torch: tried in `ideas.py` before any of it becomes a kind of graftkit's.

Each is a module at one convolution. Its forward takes what that reads, [batch, inputs, positions...], what its neurons
make of it, [batch, outputs, positions...], and a list to which sites of the net may add what they know; it gives the
neurons as they are with it. All change nothing at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd

import torch
from torch import Tensor, nn

Said = list[Tensor]  # hidden units of earlier sites, [batch, units] each
Sizes = tuple[int, int, int]  # inputs, outputs, dimensions of positions
Summary = Callable[[Tensor, Tensor], Tensor]  # from inputs and neurons to [batch, numbers]


def silent(layer: nn.Module) -> nn.Module:
    """The layer, saying nothing yet."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


def conv(dims: int, *given: int, **more: int | bool) -> nn.Module:
    """A convolution over one or two dimensions."""
    return (nn.Conv1d, nn.Conv2d)[dims - 1](*given, **more)


def joined(neuron: Tensor, answer: Tensor, gates: bool) -> Tensor:
    """Neurons with what a dendrite says, which is of their shape or one value for all positions."""
    while answer.ndim < neuron.ndim:
        answer = answer.unsqueeze(-1)
    return neuron * (1 + torch.tanh(answer)) if gates else neuron + answer


# ── one answer for all positions ─────────────────────────────────────────────────────────────────


def mean(input: Tensor, neuron: Tensor) -> Tensor:
    """The mean of what the layer says."""
    return torch.relu(neuron).flatten(2).mean(-1)


def statistics(input: Tensor, neuron: Tensor) -> Tensor:
    """Its mean, maximum and spread."""
    heard = torch.relu(neuron).flatten(2)
    return torch.cat([heard.mean(-1), heard.amax(-1), neuron.flatten(2).std(-1)], -1)


def spread(input: Tensor, neuron: Tensor) -> Tensor:
    """Its mean and spread."""
    return torch.cat([mean(input, neuron), neuron.flatten(2).std(-1)], -1)


def halves(input: Tensor, neuron: Tensor) -> Tensor:
    """The means of its halves in every direction: two of a sequence, four of a picture."""
    parts = [torch.relu(neuron)]
    for dim in range(2, neuron.ndim):
        parts = [half for part in parts for half in part.tensor_split(2, dim)]
    return torch.cat([part.flatten(2).mean(-1) for part in parts], -1)


def inputs(input: Tensor, neuron: Tensor) -> Tensor:
    """The mean of what the layer reads."""
    return input.flatten(2).mean(-1)


class Context(nn.Module):
    """A few hidden units over a summary of the layer, answering each neuron: `context`, from other summaries.

    With `shares`, the units are not the site's alone: the `first` site's answer everywhere, each site's add what those
    before say (`running`), or read it, too (`earlier`).
    """

    SEEN: Mapping[Summary, Callable[[int, int, int], int]] = {
        mean: lambda inputs, outputs, dims: outputs,
        statistics: lambda inputs, outputs, dims: 3 * outputs,
        spread: lambda inputs, outputs, dims: 2 * outputs,
        halves: lambda inputs, outputs, dims: 2**dims * outputs,
        inputs: lambda inputs, outputs, dims: inputs,
    }

    def __init__(self, sizes: Sizes, units: int, before: int, summary: Summary, gates: bool, shares: str):
        super().__init__()
        self.summary, self.gates, self.shares = summary, gates, shares
        heard = self.SEEN[summary](*sizes) + (units * before if shares == "earlier" else 0)
        self.read = nn.Linear(heard, units) if not (before and shares == "first") else None
        self.answer = silent(nn.Linear(units, sizes[1]))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        if self.read is None:
            return joined(neuron, self.answer(said[0]), self.gates)
        seen = self.summary(input, neuron)
        drive = self.read(torch.cat([seen, *said], -1) if self.shares == "earlier" else seen)
        said.append(torch.tanh(drive + said[-1] if said and self.shares == "running" else drive))
        return joined(neuron, self.answer(said[-1]), self.gates)


class Own(nn.Module):
    """Each neuron answered by a summary of itself alone; gated by its mean and spread: Lee et al. 2019, SRM."""

    def __init__(self, sizes: Sizes, summary: Summary, gates: bool):
        super().__init__()
        self.summary, self.gates, self.each = summary, gates, Context.SEEN[summary](*sizes) // sizes[1]
        self.answer = silent(nn.Conv1d(sizes[1], sizes[1], self.each, groups=sizes[1]))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        heard = self.summary(input, neuron).unflatten(-1, (self.each, -1)).mT
        return joined(neuron, self.answer(heard).squeeze(-1), self.gates)


class Neighbours(nn.Module):
    """Each neuron gated by the means of three neighbouring ones, with the same four numbers (Wang et al. 2020, ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = silent(nn.Conv1d(1, 1, 3, padding=1))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        return joined(neuron, self.answer(mean(input, neuron).unsqueeze(1)).squeeze(1), gates=True)


# ── an answer for each position ──────────────────────────────────────────────────────────────────


class Wide(nn.Module):
    """A few channels of what the layer reads, each seen around by three taps so far `apart`, told to all neurons."""

    def __init__(self, sizes: Sizes, units: int, apart: int, gates: bool):
        super().__init__()
        (inputs, outputs, dims), self.gates = sizes, gates
        self.read = conv(dims, inputs, units, 1, bias=False)
        self.around = conv(dims, units, units, 3, padding=apart, dilation=apart, groups=units)
        self.answer = silent(conv(dims, units, outputs, 1))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        return joined(neuron, self.answer(torch.tanh(self.around(self.read(input)))), self.gates)


class Dilated(nn.Module):
    """Each neuron sees its own share of what the layer reads, three taps so far `apart`: `depthwise`, dilated."""

    def __init__(self, sizes: Sizes, apart: int, gates: bool):
        super().__init__()
        (inputs, outputs, dims), self.gates = sizes, gates
        self.around = conv(dims, inputs, outputs, 3, padding=apart, dilation=apart, groups=gcd(inputs, outputs))
        self.strength = nn.Parameter(torch.zeros(outputs, *[1] * dims))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        return joined(neuron, self.strength * torch.tanh(self.around(input)), self.gates)


class Around(nn.Module):
    """Each neuron gated at each position by what it says around there, three taps `apart` (Hu et al. 2018, GENet)."""

    def __init__(self, sizes: Sizes, apart: int):
        super().__init__()
        outputs, dims = sizes[1:]
        self.answer = silent(conv(dims, outputs, outputs, 3, padding=apart, dilation=apart, groups=outputs))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        return joined(neuron, self.answer(torch.relu(neuron)), gates=True)


class Copy(nn.Module):
    """Another convolution like the layer's, of kernel 3: `full`."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        inputs, outputs, dims = sizes
        self.drive = conv(dims, inputs, outputs, 3, padding=1)
        self.strength = nn.Parameter(torch.zeros(outputs, *[1] * dims))

    def forward(self, input: Tensor, neuron: Tensor, said: Said) -> Tensor:
        return neuron + self.strength * torch.tanh(self.drive(input))


def _context(summary: Summary = mean, gates: bool = True, shares: str = "") -> Callable[[Sizes, int, int], nn.Module]:
    return lambda sizes, units, before: Context(sizes, units, before, summary, gates, shares)


# From a name to what makes the module at a site, from its (inputs, outputs, dimensions), units, and the sites before.
IDEAS: Mapping[str, Callable[[Sizes, int, int], nn.Module]] = {
    "gate": _context(),
    "add": _context(gates=False),
    "gate, statistics": _context(statistics),
    "gate, spread": _context(spread),
    "gate, halves": _context(halves),
    "gate, inputs": _context(inputs),
    "add, inputs": _context(inputs, gates=False),
    "gate, first site's units": _context(shares="first"),
    "gate, running units": _context(shares="running"),
    "gate, earlier units": _context(shares="earlier"),
    "gate, own": lambda sizes, units, before: Own(sizes, spread, gates=True),
    "gate, own mean": lambda sizes, units, before: Own(sizes, mean, gates=True),
    "gate, own halves": lambda sizes, units, before: Own(sizes, halves, gates=True),
    "add, own": lambda sizes, units, before: Own(sizes, spread, gates=False),
    "gate, neighbours": lambda sizes, units, before: Neighbours(),
    **{
        f"{'gate' if gates else 'add'}, wide {apart}": (
            lambda sizes, units, before, apart=apart, gates=gates: Wide(sizes, units, apart, gates)
        )
        for gates in (False, True)
        for apart in (1, 2, 4)
    },
    **{
        f"{'gate' if gates else 'add'}, dilated {apart}": (
            lambda sizes, units, before, apart=apart, gates=gates: Dilated(sizes, apart, gates)
        )
        for gates in (False, True)
        for apart in (1, 2, 4)
    },
    **{
        f"gate, around {apart}": (lambda sizes, units, before, apart=apart: Around(sizes, apart)) for apart in (1, 2, 4)
    },
    "full": lambda sizes, units, before: Copy(sizes),
}


class Site(nn.Module):
    """A convolution and its dendrites, which may come later."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.dendrites = layer, nn.ModuleList()

    def grow(self, names: str, units: int, before: int) -> None:
        """Dendrites of these names, `+` between them."""
        sizes = (self.layer.in_channels, self.layer.out_channels, len(self.layer.kernel_size))
        self.dendrites.extend(IDEAS[name](sizes, units, before) for name in names.split(" + "))

    def forward(self, input: Tensor, said: list[Said]) -> Tensor:
        neuron = self.layer(input)
        for dendrite, heard in zip(self.dendrites, said, strict=False):
            neuron = dendrite(input, neuron, heard)
        return neuron


class Thinking(nn.Module):
    """A net of `_nets` whose convolutions have become sites."""

    def __init__(self, net: nn.Sequential):
        super().__init__()
        convolutions = (nn.Conv1d, nn.Conv2d)
        self.layers = nn.ModuleList(Site(m) if isinstance(m, convolutions) else m for m in net)
        self.count = 0

    def grow(self, names: str, units: int) -> None:
        """Dendrites at every site."""
        sites = [layer for layer in self.layers if isinstance(layer, Site)]
        for before, site in enumerate(sites):
            site.grow(names, units, before)
        self.count = len(sites[0].dendrites)

    def forward(self, x: Tensor) -> Tensor:
        said: list[Said] = [[] for _ in range(self.count)]
        for layer in self.layers:
            x = layer(x, said) if isinstance(layer, Site) else layer(x)
        return x
