"""Examples of what each repair of a graph is for, and of what it has to let alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from complex_examples import COMPLEX_APPLIES, COMPLEX_SPARES, without_a_form
from repair_example import Example, Inputs
from torch import Tensor, fx, nn
from torch.nn import functional


class Body(nn.Module):
    """Two layers, a buffer and a function of them."""

    def __init__(self, body: Callable[[Body, Tensor], Tensor]):
        super().__init__()
        self.one, self.two, self.body = nn.Linear(4, 4), nn.Linear(4, 4), body
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def _frozen(self: Body, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = self.one(x)
    return self.two(h) + x


def _several(self: Body, x: Tensor) -> Tensor:
    h = self.one(x)
    with torch.no_grad():
        a, b = self.one(x).chunk(2, 1)
    return self.two(h) + torch.cat([b, a], 1)


def _nested(self: Body, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = self.one(x)
        with torch.enable_grad():
            y = self.two(h)
        z = self.one(h) * 2
    k = self.two(y + 0.5)
    with torch.no_grad():
        late = self.one(k) * 3
        with torch.enable_grad(), torch.no_grad():
            later = self.one(late)
    return y * z + k + late - later


def _running_average(self: Body, x: Tensor) -> Tensor:
    h = self.one(x)
    with torch.no_grad():
        self.average.mul_(0.9).add_(h.mean(0), alpha=0.1)
    return self.two(h - self.average)


def _read_then_assigned(self: Body, x: Tensor) -> Tensor:
    h = self.one(x) * (self.average + 1).cos() + self.two(x) * self.average
    self.average = 0.9 * self.average + h.detach().mean(0)
    return h * self.average


def _clamped_weight(self: Body, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.two.weight.clamp_(-0.2, 0.2)
    return self.two(self.one(x))


def _written_afterwards_used(self: Body, x: Tensor) -> Tensor:
    h = self.one(x) * 1.5
    with torch.no_grad():
        h.add_(self.two(x))
    return self.two(h + 1)


def _full_precision(self: Body, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        h = self.one(x)
    return self.two(h)


def _half_precision(self: Body, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = self.one(x)
    return self.two(h.float())


def _detach(self: Body, x: Tensor) -> Tensor:
    return self.two(self.one(x).detach()) + self.one(x)


class Attention(nn.Module):
    """Attention over `dims` dimensions: heads within windows for five, one head for three."""

    def __init__(self, dims: int = 5, dropout: float = 0.0, **how: Any):
        super().__init__()
        self.qkv, self.out, self.dims, self.dropout, self.how = nn.Linear(4, 12), nn.Linear(4, 4), dims, dropout, how

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        heads = {3: (), 4: (2,), 5: (1, 2)}[self.dims]
        parts = [self._split(part, heads) for part in self.qkv(x).chunk(3, -1)]
        dropout = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(*parts, attn_mask=mask, dropout_p=dropout, **self.how)
        return self.out(y.flatten(1, -3).transpose(1, 2).flatten(2) if heads else y)

    def _split(self, part: Tensor, heads: tuple[int, ...]) -> Tensor:
        return part if not heads else part.unflatten(-1, (*heads, 4 // heads[-1])).movedim(1, -2)


def mask_of(kind: str) -> Tensor:
    """For two rows of five tokens, to spread over the heads of five dimensions."""
    torch.manual_seed(1)
    seen = (torch.rand(2, 1, 1, 5, 5) > 0.4) | torch.eye(5, dtype=torch.bool)
    if "dead" in kind:
        seen[0, ..., 2, :] = False  # a query that may look at nothing
    return torch.where(seen, torch.randn(2, 1, 1, 5, 5), -torch.inf) if "float" in kind else seen


def tokens(*masks: str) -> Callable[[], Inputs]:
    return lambda: (torch.randn(2, 5, 4), *map(mask_of, masks))


class Pools(nn.Module):
    """Pools what two convolutions give, over one dimension or two."""

    def __init__(self, pool: nn.Module, dims: int = 2):
        super().__init__()
        self.layer, self.pool, self.dims = nn.Conv2d(1, 3, 3, padding=1), pool, dims

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x.unsqueeze(1)).relu()  # with many zeros, so that the largest is not one alone
        return self.pool(h if self.dims == 2 else h.flatten(2))


class Places(nn.Module):
    """The largest, with the place where it was found."""

    def forward(self, x: Tensor) -> Tensor:
        largest, place = functional.adaptive_max_pool2d(x, 1, return_indices=True)
        return largest + place


class Distances(nn.Module):
    def __init__(self, power: float):
        super().__init__()
        self.layer, self.codes, self.power = nn.Linear(4, 4), nn.Parameter(torch.randn(3, 4)), power

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return torch.cat([torch.cdist(h, self.codes, self.power), torch.cdist(h, h, self.power)], -1)


class Subtracts(nn.Module):
    """A number minus whole numbers, as masks are turned round."""

    def __init__(self, number: float, factor: float = 1):
        super().__init__()
        self.embed, self.layer, self.number, self.factor = nn.Embedding(9, 4), nn.Linear(4, 4), number, factor

    def forward(self, ids: Tensor) -> Tensor:
        turned = torch.rsub(ids, self.number, alpha=self.factor)
        return self.layer(self.embed(ids)) * turned.unsqueeze(-1)


class Remembers(nn.Module):
    """An LSTM over the numbers of a row, and all that it gives."""

    def __init__(self, width: int = 3, given: bool = False, **how: Any):
        super().__init__()
        how = {"batch_first": True, **how}
        self.recurrent, self.given = nn.LSTM(4, 6, proj_size=width, **how), given
        self.cells, self.rows_first = (
            how.get("num_layers", 1) * (2 if how.get("bidirectional") else 1),
            how["batch_first"],
        )

    def forward(self, x: Tensor) -> Tensor:
        cell = x[:, 0].sum(-1, keepdim=True).expand(self.cells, -1, 6)
        state = (x.new_zeros(self.cells, x.shape[0], self.recurrent.proj_size or 6), cell) if self.given else None
        steps, (hidden, cell) = self.recurrent(x if self.rows_first else x.transpose(0, 1), state)
        steps = steps if self.rows_first else steps.transpose(0, 1)
        return torch.cat([part.flatten(1) for part in (steps, hidden.transpose(0, 1), cell.transpose(0, 1))], 1)


def ids() -> Inputs:
    return (torch.randint(9, (2, 5)),)


def body(function: Callable[[Body, Tensor], Tensor]) -> Example:
    return Example(lambda: Body(function), lambda: (torch.randn(2, 4),))


def _both_ways(self: Body, x: Tensor) -> Tensor:
    one, two, _ = torch.cat([self.one(x), self.two(x), x]).chunk(3)
    three, four = torch.stack([one, two], 1).flatten(0, 1).chunk(2, dim=0)
    return one * two + three - four.tanh()


def _unequal(self: Body, x: Tensor) -> Tensor:
    both = torch.cat([self.one(x), x[:1]])
    first, last = both.chunk(2, 0)
    return self.two(x) + first.mean(0) - last.sum(0)


def _parted(self: Body, x: Tensor) -> Tensor:
    first, second = torch.cat([self.one(x), self.two(x)]).split(x.shape[0])
    return first * second.tanh()


def _halves(self: Body, x: Tensor) -> Tensor:
    one, two = self.one(x).chunk(2, 1)
    return self.two(torch.cat([two, one], 1))


def _turned_weights(self: Body, x: Tensor) -> Tensor:
    h = x @ self.one.weight.T
    h = torch.matmul(h.unsqueeze(1), self.two.weight.t()).squeeze(1) + self.two.bias
    return h @ self.one.weight.transpose(0, 1) + h @ self.two.weight.permute(1, 0)


def _weights_as_they_are(self: Body, x: Tensor) -> Tensor:
    return x @ self.one.weight + (x @ x.t()) @ self.two(x) + x @ (2 * self.two.weight).t()


APPLIES: dict[str, dict[str, Example]] = {
    "no_grad_regions": {
        "frozen layer": body(_frozen),
        "several results": body(_several),
        "nested, with enable_grad": body(_nested),
        "running average": body(_running_average),
        "clamped weight": body(_clamped_weight),
        "written to, then used": body(_written_afterwards_used),
        "no autocast": body(_full_precision),
    },
    "kept_reads": {"computed with, then assigned": body(_read_then_assigned)},
    "products": {"turned weights": body(_turned_weights)},
    "attention": {
        "five dimensions": Example(Attention, tokens()),
        "three dimensions": Example(lambda: Attention(3), tokens()),
        "causal": Example(lambda: Attention(is_causal=True), tokens()),
        "scale": Example(lambda: Attention(scale=0.3), tokens()),
        "bool mask": Example(Attention, tokens("bool")),
        "float mask": Example(Attention, tokens("float")),
        "nothing to look at": Example(Attention, tokens("dead")),
        "nothing to look at, in floats": Example(Attention, tokens("dead float")),
        "dropout": Example(lambda: Attention(dropout=0.5), tokens()),
    },
    "distances": {
        "euclidean": Example(lambda: Distances(2.0), tokens()),
        "city block": Example(lambda: Distances(1.0), tokens()),
        "third power": Example(lambda: Distances(3.0), tokens()),
        "largest": Example(lambda: Distances(torch.inf), tokens()),
    },
    "subtraction": {
        "from a number": Example(lambda: Subtracts(1.5), ids),
        "several times": Example(lambda: Subtracts(0.5, 3), ids),
    },
    "pooling": {
        "mean": Example(lambda: Pools(nn.AdaptiveAvgPool2d(1)), tokens()),
        "mean of a row": Example(lambda: Pools(nn.AdaptiveAvgPool1d(1), 1), tokens()),
        "largest, several": Example(lambda: Pools(nn.AdaptiveMaxPool2d(1)), tokens()),
        "largest of a row": Example(lambda: Pools(nn.AdaptiveMaxPool1d(1), 1), tokens()),
    },
    "complex": COMPLEX_APPLIES,
    "chunks": {"of what stays free": body(_both_ways), "of two sizes": body(_unequal), "split": body(_parted)},
    "projected_lstm": {
        "one layer": Example(Remembers, tokens()),
        "time first, without biases": Example(lambda: Remembers(batch_first=False, bias=False), tokens()),
        "both ways": Example(lambda: Remembers(bidirectional=True), tokens()),
        "two layers": Example(lambda: Remembers(num_layers=2, dropout=0.5), tokens()),
        "two layers both ways": Example(lambda: Remembers(num_layers=2, bidirectional=True, dropout=0.5), tokens()),
        "a cell to start from": Example(lambda: Remembers(given=True, num_layers=2), tokens()),
    },
}
SPARES: dict[str, dict[str, Example]] = {
    "products": {"as they are": body(_weights_as_they_are)},
    "no_grad_regions": {"detach": body(_detach), "autocast": body(_half_precision)},
    "kept_reads": {"written in steps": body(_running_average), "a buffer that stays": body(_frozen)},
    "attention": {"four dimensions": Example(lambda: Attention(4, is_causal=True), tokens())},
    "distances": {"none": Example(lambda: nn.Linear(4, 4), tokens())},
    "subtraction": {"whole from whole": Example(lambda: Subtracts(2), ids)},
    "pooling": {
        "to other sizes": Example(lambda: Pools(nn.AdaptiveAvgPool2d((1, 2))), tokens()),
        "where the largest is": Example(lambda: Pools(Places()), tokens()),
    },
    "chunks": {"of a fixed size": body(_halves)},
    "complex": COMPLEX_SPARES,
    "projected_lstm": {"without": Example(lambda: Remembers(0, num_layers=2, bidirectional=True), tokens())},
}
TAKEN_OUT: dict[str, Callable[[fx.Node], bool]] = {  # what must be left of it nowhere
    "products": lambda node: "matmul" in str(node.target),
    "no_grad_regions": lambda node: "wrap_with" in str(node.target),
    "kept_reads": lambda node: (
        "aten.mul" in str(node.target) and any(str(read.target) == "average" for read in node.all_input_nodes)
    ),
    "attention": lambda node: "scaled_dot_product_attention" in str(node.target),
    "distances": lambda node: "dist" in str(node.target),
    "subtraction": lambda node: "rsub" in str(node.target),
    "pooling": lambda node: "adaptive" in str(node.target),
    "chunks": lambda node: "chunk" in str(node.target) or "split" in str(node.target),
    "complex": without_a_form,
    "projected_lstm": lambda node: "lstm" in str(node.target) and len(node.args[2]) in (3, 5, 6, 10, 20),
}
