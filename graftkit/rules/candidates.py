"""A pool of candidate dendrites that learn to correlate with the errors of a network that stands still."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graftkit import ranks, surgery
from graftkit.contracts import Build, Criterion, Dendrite, Inputs
from graftkit.core.sites import Site
from graftkit.model import GraftedModel, SiteDendrites
from graftkit.plan import Graft
from graftkit.rules.cache import SHARE, Cache
from graftkit.rules.points import Points, fewer, point_of
from graftkit.rules.statistics import PairedSums, correlations, each_neuron
from graftkit.training.criteria import counted


@dataclass(frozen=True)
class Study:
    """How candidates learn.

    Attributes:
        size: candidates for each graft.
        rows: rows that the network is shown at most.
        positions: of each row's maps, where they have more than fit into that room.
        batch: rows in one step of the candidates.
        memory: bytes of what they learn from that are held in memory; more goes to disk.
        false_positives: the chance at which a candidate that is none better than noise is installed.
    """

    size: int
    rows: int
    positions: int
    batch: int
    memory: int
    false_positives: float


@dataclass
class _Seen:
    """What one site's call saw in one batch."""

    input: Tensor
    neuron: Tensor
    earlier: list[Tensor]
    joined: Tensor
    mask: Tensor | None


@dataclass
class Lesson:
    """What one site's candidates learn from: what they read, earlier activities, and the error that they should tell.

    The error is that at the activity, in its shape.
    """

    read: Tensor
    earlier: list[Tensor]
    felt: Tensor


Lessons = dict[str, Lesson]  # of each site


class CandidatePool:
    """Candidates for each graft; the network is in `eval()`, none of its weights move, and it sees each row once.

    The objective, to be made small, is minus the mean over neurons of |r|, r the correlation over the batch and all
    positions between a candidate's activity and the error there: dL/d(neuron), or for a gate dL/d(neuron) * neuron.
    """

    def __init__(
        self,
        model: GraftedModel,
        grafts: Sequence[Graft],
        build: Build,
        criterion: Criterion,
        study: Study,
        *,
        seed: int,
    ):
        self.model, self.grafts, self.criterion, self.study, self.seed = model, tuple(grafts), criterion, study, seed
        self.sites = {graft.site: model.traced.site(graft.site) for graft in grafts}
        self.build = build
        surgery.open_sites(model, grafts)
        self.like = next(p for p in model.base.parameters() if p.is_floating_point())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.points = {graft.site: self._points(graft) for graft in grafts}
            self.pools = {graft.site: [self._candidate(graft) for _ in range(study.size)] for graft in grafts}
        self.seen = self._rows_of_last = 0
        self.full = False
        self._cache = Cache(study.memory // ranks.here(), share=SHARE / ranks.here())
        self._order, self._draw = (torch.Generator().manual_seed(seed + each) for each in (0, 1))

    def parameters(self) -> list[nn.Parameter]:
        return [p for pool in self.pools.values() for dendrite in pool for p in dendrite.parameters()]

    def watch(self, inputs: tuple[Tensor, ...], targets: Tensor) -> bool:
        left = self.study.rows - self.seen
        if self.full or left <= 0:
            return False
        all_rows = round(ranks.total(len(targets), self.like.device))  # over all processes, of which each has a share
        rows = min(left, all_rows)
        if rows < ranks.count():  # there is not one for each
            return False
        # the first rows of the batch, of which each process has one in so many
        own = len(targets) if rows == all_rows else len(range(ranks.number(), rows, ranks.count()))
        lessons = self.lessons(tuple(tensor[:own] for tensor in inputs), targets[:own])
        begin = not self.seen or self._rows_of_last >= self.study.batch
        labels = counted(targets[:own])
        share = labels / max(1.0, ranks.total(labels, self.like.device))  # the loss is the mean over all of them
        if not share:
            lessons = {key: replace(one, felt=torch.zeros_like(one.felt)) for key, one in lessons.items()}
        tensors = [tensor for one in lessons.values() for tensor in (one.read, one.felt * share, *one.earlier)]
        kept = self._cache.add(tensors, begin=begin)
        self.full = ranks.total(not kept, self.like.device) > 0
        if self.full and kept:  # where another process has no room
            self._cache.take_back(len(tensors))
        if not self.full:
            self.seen += rows
            self._rows_of_last = rows if begin else self._rows_of_last + rows
        return not self.full

    def steps(self) -> int:
        if len(self._cache) > 1 and self._rows_of_last < self.study.batch / 2:
            self._cache.join_last()  # what so few rows correlate with is mostly noise
            self._rows_of_last += self.study.batch
        return len(self._cache)

    def losses(self) -> Iterator[Tensor]:
        for index in torch.randperm(self.steps(), generator=self._order).tolist():
            yield self.loss(self._unpack(self._cache[index]))

    def loss(self, batch: Sequence[Lessons]) -> Tensor:
        """Minus the mean |r| of all candidates on one batch, which may be in parts."""
        pairs = []
        for key, pool in self.pools.items():
            neurons = (self.points[key] or self.sites[key]).channel_dim
            felt = torch.cat([each_neuron(part[key].felt, neurons) for part in batch], 1)
            for dendrite in pool:
                said = [each_neuron(dendrite.activity(part[key].read, part[key].earlier), neurons) for part in batch]
                pairs.append((torch.cat(said, 1), felt))
        return -torch.stack([r.abs().mean() for r in correlations(pairs)]).mean()

    def lessons(self, inputs: tuple[Tensor, ...], targets: Tensor, *, whole: bool = False) -> Lessons:
        """What the candidates of each site learn from in one batch, with the network as it stands.

        With `whole`, of all positions.
        """
        seen, errors = self._watch(inputs, targets)
        found = {}
        with torch.no_grad():
            for key, pool in self.pools.items():
                own, one, site = seen[key], pool[0], self.sites[key]
                felt = one.felt(own.joined.detach(), errors[key])  # it joins behind the earlier ones
                if self.points[key] is None or whole:
                    read = one.reads(own.input, own.neuron, own.mask)
                    summed = felt if one.local else felt.sum_to_size(one.activity(read, own.earlier).shape)
                    found[key] = Lesson(read, own.earlier, summed)
                    continue
                sizes = tuple(size for d, size in enumerate(felt.shape) if d not in (site.batch_dim, site.channel_dim))
                points = Points.draw(site, sizes, self.study.positions, self._draw)
                earlier = [points.values(activity.expand_as(own.neuron)) for activity in own.earlier]
                found[key] = Lesson(points.inputs(own.input), earlier, points.values(felt))
        return found

    def install(self, held_out: Iterable[tuple[Inputs, Tensor]]) -> str:
        """Half of the held-out rows choose one candidate a site, the other half tests each of its neurons.

        A neuron is served if its |r| is above what 1 / false_positives - 1 pairings of its activities with other rows'
        errors give at most (a permutation test), and none is unless the mean |r| over all neurons passes the same
        test: among many neurons some always look good.
        """
        self.close()
        with torch.random.fork_rng(devices=[]):  # whose fresh weights are replaced at once
            joining = self._all_joining()
        shuffles = math.ceil(1 / self.study.false_positives - 1e-9) - 1
        choosing, testing = (
            {key: [PairedSums(self.sites[key], shuffles=count) for _ in pool] for key, pool in joining.items()}
            for count in (0, shuffles)
        )
        for inputs, targets in held_out:
            half = len(targets) // 2
            if half <= shuffles:
                continue
            for sums, part in ((choosing, slice(0, half)), (testing, slice(half, 2 * half))):
                rows = tuple(tensor[part].to(self.like.device) for tensor in self.model.arrange(inputs))
                lessons = self.lessons(rows, targets[part].to(self.like.device), whole=True)
                for key, pool in joining.items():
                    lesson = lessons[key]
                    for dendrite, own in zip(pool, sums[key], strict=True):
                        with torch.no_grad():
                            own.add(dendrite.activity(lesson.read, lesson.earlier), lesson.felt, rows=half)
        if not any(each.count for pool in testing.values() for each in pool):
            return f"too few held-out rows to test anything: {2 * shuffles + 2} are needed at such a rate of chance"
        winners: dict[str, Dendrite] = {}
        grafts, lines = [], []
        found = ranks.told(
            lambda: {graft.site: self._chosen(choosing[graft.site], testing[graft.site]) for graft in self.grafts}
        )
        for graft in self.grafts:
            best, served, told = found[graft.site]
            lines.append(f"{graft.site} {len(served)}/{self.sites[graft.site].out_channels} {told}")
            if served:
                winners[graft.site] = _silent(joining[graft.site][best])
                grafts.append(replace(graft, neurons=served))
        surgery.graft(self.model, grafts, lambda graft, site, index: winners[graft.site], seed=self.seed)
        room = ", for which there was room" if self.full else ""
        return f"learned from {self.seen:,} rows{room}; neurons that beat chance: " + ", ".join(lines)

    def close(self) -> None:
        self._cache.close()

    @staticmethod
    def _chosen(choosing: Sequence[PairedSums], testing: Sequence[PairedSums]) -> tuple[int, tuple[int, ...], str]:
        """Which candidate of a site is best, the neurons that it serves, and what tells that, in words."""
        best = max(range(len(choosing)), key=lambda index: choosing[index].strength())
        test = testing[best]
        served = tuple(torch.nonzero(test.beats_chance()).flatten().tolist())
        return best, served, f"(r {test.strength():.3f}, chance {test.chance():.3f})"

    def _points(self, graft: Graft) -> Site | None:
        """The site as one position sees it, where positions are taken; None where all are."""
        site = self.sites[graft.site]
        point = point_of(site) if fewer(site, self.study.positions) else None
        return point if point is not None and self._built(graft, site).local else None

    def _candidate(self, graft: Graft) -> Dendrite:
        candidate = self._built(graft, self.points[graft.site] or self.sites[graft.site])
        candidate.wake()
        return candidate.to(device=self.like.device, dtype=self.like.dtype)

    def _all_joining(self) -> dict[str, list[Dendrite]]:
        return {graft.site: [self._joining(graft, each) for each in self.pools[graft.site]] for graft in self.grafts}

    def _joining(self, graft: Graft, candidate: Dendrite) -> Dendrite:
        """The candidate as it joins the site: over all positions."""
        if self.points[graft.site] is None:
            return candidate
        whole = self._built(graft, self.sites[graft.site])
        whole.load_state_dict(candidate.state_dict())
        return whole.to(device=self.like.device, dtype=self.like.dtype)

    def _built(self, graft: Graft, site: Site) -> Dendrite:
        return self.build(graft, site, len(self.model.plan.at(graft.site)))

    def _unpack(self, tensors: Sequence[Tensor]) -> list[Lessons]:
        waiting = [tensor.to(self.like.device) for tensor in tensors]
        batch: list[Lessons] = []
        while waiting:
            batch.append({})
            for key in self.pools:
                count = 2 + len(self.model.plan.at(key))
                (read, felt, *earlier), waiting = waiting[:count], waiting[count:]
                batch[-1][key] = Lesson(read, earlier, felt)
        return batch

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


def _silent(dendrite: Dendrite) -> Dendrite:
    with torch.no_grad():
        for strength in dendrite.strengths():
            strength.zero_()
    return dendrite


def _recorder(members: SiteDendrites, seen: dict[str, _Seen]) -> Callable[..., Tensor]:
    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # copies: an activation that works in place, behind the site, would change what was recorded
        input, neuron = args[0].detach().clone(), args[1].detach().clone()
        mask = args[2] if len(args) > 2 else None
        earlier: list[Tensor] = []
        with torch.no_grad():
            for dendrite in members.members():
                earlier.append(dendrite(input, neuron, list(earlier), mask))
        # a network whose parameters are all frozen has no graph of its own to differentiate
        joined = output if output.requires_grad else output.detach().requires_grad_()
        seen[members.site] = _Seen(input, neuron, earlier, joined, mask)
        return joined.clone()

    return record
