"""Tells at which sites the output looks at all positions alike, so that telling each of all shows it nothing new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from graftkit.core.sites import Site
from graftkit.model import SITE_MARK, TracedModel

_NUMBERS = 8  # of an output that are looked at: the first, the last, and some between


@dataclass(frozen=True)
class Views:
    """What the example shows of some sites.

    Attributes:
        alike: those of which every number of the output that is trained depends on the same positions. Of a causal
            model's the first number does not depend on the last position, nor does that of a network that tells
            something of each position from what is around it.
        shapes: the shape of what each says.
    """

    alike: frozenset[str] = frozenset()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def views(traced: TracedModel, sites: Sequence[Site]) -> Views:
    """How the example is seen at these sites, by the slopes of a few numbers of its output."""
    said: dict[str, Tensor] = {}
    device = next((p.device for p in traced.eval_graph.parameters()), torch.device("cpu"))
    inputs = [tensor.to(device) for tensor in traced.inputs]
    try:
        with torch.enable_grad():
            outputs = _Listening(traced.eval_graph, {site.key for site in sites}, said).run(*inputs)
            output = outputs[traced.output_at[1]] if isinstance(outputs, tuple) else outputs
            seen = _seen(_numbers(output, rows=len(inputs[0]) if inputs[0].ndim else 1), said, sites)
    except (IndexError, RuntimeError, ValueError):  # an operation without a slope, or no number: nothing is known
        seen = {}
    alike = frozenset(key for key, each in seen.items() if _same(each))
    return Views(alike, {key: tuple(tensor.shape) for key, tensor in said.items()})


def _numbers(output: Tensor, *, rows: int) -> Sequence[Tensor]:
    """Some numbers of each row's output, all rows together, or of the whole where it has no rows."""
    each = output.reshape(rows, -1).sum(0) if output.ndim and len(output) == rows else output.flatten()
    places = torch.linspace(0, len(each) - 1, min(_NUMBERS, len(each))).round().long().tolist()
    return [each[place] for place in places]


def _seen(numbers: Sequence[Tensor], said: dict[str, Tensor], sites: Sequence[Site]) -> dict[str, list[Tensor]]:
    """For each site the positions on which a number depends, as truth values, number by number."""
    known = {site.key: site for site in sites}
    found: dict[str, list[Tensor]] = {key: [] for key in said}
    for number in numbers:
        slopes = torch.autograd.grad(
            number, list(said.values()), retain_graph=True, materialize_grads=True, allow_unused=True
        )
        for key, slope in zip(said, slopes, strict=True):
            found[key].append(_positions(slope != 0, known[key]))
    return found


def _positions(truths: Tensor, site: Site) -> Tensor:
    """Whether any is true at a position, over rows and neurons."""
    positions = [dim for dim in range(truths.ndim) if dim not in (site.batch_dim, site.channel_dim)]
    return truths.movedim(positions, list(range(len(positions)))).flatten(len(positions)).any(-1)


def _same(each: Sequence[Tensor]) -> bool:
    return bool(each) and bool(each[0].any()) and all(torch.equal(one, each[0]) for one in each)


class _Listening(fx.Interpreter):
    """Runs a graph and keeps what its sites say."""

    def __init__(self, graph: fx.GraphModule, wanted: set[str], said: dict[str, Tensor]):
        super().__init__(graph)
        self.wanted, self.said = wanted, said

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        key = n.meta.get(SITE_MARK)
        if key not in self.wanted:
            return found
        self.said[key] = found if found.requires_grad else found.detach().requires_grad_()
        return self.said[key].clone()  # what is done to it in place is not done to what was kept
