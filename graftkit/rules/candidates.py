"""A pool of candidate dendrites that learn to correlate with the errors of a network that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graftkit import surgery
from graftkit.contracts import Build, Criterion, Dendrite, Inputs
from graftkit.model import GraftedModel, SiteDendrites
from graftkit.plan import Graft
from graftkit.rules.statistics import PairedSums, correlation

MIN_ROWS = 20  # fewer rows cannot make 19 different pairings


@dataclass
class _Seen:
    """What one site's call saw in one batch."""

    input: Tensor
    neuron: Tensor
    earlier: list[Tensor]
    joined: Tensor


class CandidatePool:
    """`size` candidates for each graft; the network is in `eval()` and none of its weights move.

    The objective, to be made small, is minus the mean over neurons of |r|, r the correlation over the
    batch and all positions between a candidate's activity and its neuron's error, dL/d(neuron).
    """

    def __init__(
        self, model: GraftedModel, grafts: Sequence[Graft], build: Build, criterion: Criterion, *, size: int, seed: int
    ):
        self.model, self.grafts, self.criterion, self.seed = model, tuple(grafts), criterion, seed
        self.sites = {graft.site: model.traced.site(graft.site) for graft in grafts}
        surgery.open_sites(model, grafts)
        like = next(p for p in model.base.parameters() if p.is_floating_point())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pools = {
                graft.site: nn.ModuleList(
                    build(graft, self.sites[graft.site], len(model.plan.at(graft.site))) for _ in range(size)
                ).to(device=like.device, dtype=like.dtype)
                for graft in grafts
            }

    def parameters(self) -> list[nn.Parameter]:
        joined = {id(p) for _, _, dendrite in self._all() for p in dendrite.strengths()}
        every = [p for pool in self.pools.values() for p in pool.parameters()]
        return [p for p in every if id(p) not in joined]

    def loss(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        seen, errors = self._watch(inputs, targets)
        scores = [
            correlation(self._activity(dendrite, seen[key]), errors[key], self.sites[key].channel_dim).abs().mean()
            for key, _, dendrite in self._all()
        ]
        return -torch.stack(scores).mean()

    def install(self, held_out: Iterable[tuple[Inputs, Tensor]]) -> str:
        """Half of the held-out rows choose one candidate a site, the other half tests each of its neurons.

        A neuron is served if its |r| is above what 19 pairings of its activities with other rows' errors
        give at most (a permutation test at 5%), and none is unless the mean |r| over all neurons passes the same test:
        among many neurons some always look good.
        """
        choosing = {(key, index): PairedSums(self.sites[key], shuffles=0) for key, index, _ in self._all()}
        testing = {(key, index): PairedSums(self.sites[key], shuffles=19) for key, index, _ in self._all()}
        device = next(self.model.parameters()).device
        for inputs, targets in held_out:
            half = len(targets) // 2
            if half < MIN_ROWS:
                continue
            for sums, part in ((choosing, slice(0, half)), (testing, slice(half, 2 * half))):
                rows = tuple(tensor[part].to(device) for tensor in self.model.arrange(inputs))
                seen, errors = self._watch(rows, targets[part].to(device))
                for key, index, dendrite in self._all():
                    with torch.no_grad():
                        sums[key, index].add(self._activity(dendrite, seen[key]), errors[key])
        if not any(sums.count for sums in testing.values()):
            return f"too few held-out rows to test anything: {2 * MIN_ROWS} in a batch are needed"
        winners: dict[str, Dendrite] = {}
        grafts, lines = [], []
        for graft in self.grafts:
            best = max(range(len(self.pools[graft.site])), key=lambda i: choosing[graft.site, i].strength())
            test = testing[graft.site, best]
            served = tuple(torch.nonzero(test.beats_chance()).flatten().tolist())
            lines.append(f"{graft.site} {len(served)}/{self.sites[graft.site].out_channels} (r {test.strength():.3f}")
            lines[-1] += f", chance {test.chance():.3f})"
            if served:
                winners[graft.site] = self.pools[graft.site][best]  # type: ignore[assignment]
                grafts.append(replace(graft, neurons=served))
        surgery.graft(self.model, grafts, lambda graft, site, index: winners[graft.site], seed=self.seed)
        return "neurons that beat chance: " + ", ".join(lines)

    def _all(self) -> Iterator[tuple[str, int, Dendrite]]:
        for key, pool in self.pools.items():
            for index, dendrite in enumerate(pool):
                assert isinstance(dendrite, Dendrite)
                yield key, index, dendrite

    def _activity(self, dendrite: Dendrite, seen: _Seen) -> Tensor:
        activity: Tensor = dendrite(seen.input, seen.neuron, seen.earlier)
        return activity.expand_as(seen.neuron)

    def _watch(self, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[dict[str, _Seen], dict[str, Tensor]]:
        """What each site saw, and dL/d(neuron) there, with the network as it stands."""
        seen: dict[str, _Seen] = {}
        self.model.eval()
        with torch.enable_grad(), self._hooks(seen):
            loss = self.criterion(self.model(*inputs), targets)
        keys = list(seen)
        joined = [seen[key].joined for key in keys]
        errors = torch.autograd.grad(loss, joined, allow_unused=True, materialize_grads=True)
        return seen, dict(zip(keys, errors, strict=True))

    @contextmanager
    def _hooks(self, seen: dict[str, _Seen]) -> Iterator[None]:
        handles: list[RemovableHandle] = []
        for key in self.pools:
            members = self.model.at(key)
            handles.append(members.register_forward_hook(_recorder(members, seen)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _recorder(members: SiteDendrites, seen: dict[str, _Seen]) -> Callable[..., Tensor]:
    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # copies: an activation that works in place, behind the site, would change what was recorded
        input, neuron = args[0].detach().clone(), args[1].detach().clone()
        earlier: list[Tensor] = []
        with torch.no_grad():
            for dendrite in members.members():
                earlier.append(dendrite(input, neuron, list(earlier)))
        # a network whose parameters are all frozen has no graph of its own to differentiate
        joined = output if output.requires_grad else output.detach().requires_grad_()
        seen[members.site] = _Seen(input, neuron, earlier, joined)
        return joined.clone()

    return record
