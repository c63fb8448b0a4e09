"""Several sets of dendrites over one base, of which one speaks: how a model switches between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import fx, nn

from graftkit.core.errors import PlanError, did_you_mean
from graftkit.plan import GraftPlan

DENDRITES = "graftkit_dendrites"  # under which a graph holds them; a model's own module may be called `dendrites`
_UNNAMED, _NONE = "default", ""  # what dendrites are called that nobody named, and the set that has none


@dataclass(frozen=True, eq=False)
class DendriteSet:
    """Dendrites that learned together, and the graphs that call them: what a model switches to as a whole.

    Attributes:
        plan: their grafts.
        dendrites: the modules by slot.
        graphs: of (training, evaluation), over the base's own parameters and buffers.
    """

    plan: GraftPlan
    dendrites: nn.ModuleDict
    graphs: tuple[fx.GraphModule, fx.GraphModule]


class Switching(nn.Module):
    """A model of which one set of dendrites is active: `plan`, `dendrites` and `graphs` are that one's.

    So it alone is called, trained and exported; the others stand aside, out of `parameters()` and `state_dict()`.
    """

    plan: GraftPlan
    dendrites: nn.ModuleDict
    graphs: tuple[fx.GraphModule, fx.GraphModule]

    @property
    def dendrite_sets(self) -> tuple[str, ...]:
        """The names of the sets of dendrites, first added first."""
        plans = {**{name: held.plan for name, held in self._sets.items()}, self._active: self.plan}
        return tuple(name for name, plan in plans.items() if plan.grafts and name != _NONE)

    @property
    def active_dendrites(self) -> str | None:
        """The name of the set that speaks; None where none does."""
        return self._active if self._active in self.dendrite_sets else None

    def add_dendrites(self, name: str, added: DendriteSet) -> None:
        """Add a set over this model's own base. It speaks where none does so far; else it stands aside until it is set.

        `graftkit.load_dendrites` makes one of a file. Raises PlanError for a name that is taken.
        """
        if name in (*self.dendrite_sets, _NONE):
            raise PlanError(f"the model has dendrites called {name!r} already; give these another name")
        self._put_aside()
        self._sets[name] = added
        if not self.plan.grafts:
            self._take(name, added)

    def set_dendrites(self, name: str) -> None:
        """Let this set of dendrites speak, and no other. Raises PlanError where there is none of that name."""
        there = self.dendrite_sets
        if name not in there:
            known = ", ".join(there) or "none"
            raise PlanError(
                f"the model has no dendrites called {name!r}; there are {known}.{did_you_mean(name, there)}"
            )
        self._put_aside()
        self._take(name, self._sets[name])

    @contextmanager
    def without_dendrites(self) -> Iterator[None]:
        """The base as it stands, while inside; afterwards the set that was active is so again."""
        name, held = self._active, self._put_aside()
        if held.plan.grafts:
            silent = self._sets.get(_NONE)
            self._take(_NONE, silent if silent and not silent.plan.grafts else without_any(self.fresh_graphs()))
        try:
            yield
        finally:
            self._put_aside()
            self._take(name, held)

    def held(self) -> tuple[DendriteSet, ...]:
        """The sets that have stood aside, and do or speak again now."""
        return tuple(self._sets.values())

    def fresh_graphs(self) -> tuple[fx.GraphModule, fx.GraphModule]:
        """The base's graphs anew, without a dendrite."""
        raise NotImplementedError

    def _begin(self, graphs: tuple[fx.GraphModule, fx.GraphModule]) -> None:
        self._sets: dict[str, DendriteSet] = {}  # the active one as it was when it last stood aside
        self._take(_UNNAMED, without_any(graphs))

    def _put_aside(self) -> DendriteSet:
        held = DendriteSet(self.plan, self.dendrites, self.graphs)
        self._sets[self._active] = held
        return held

    def _take(self, name: str, taken: DendriteSet) -> None:
        self._active, self.plan = name, taken.plan
        self.graphs = taken.graphs  # a tuple keeps them from being registered: their parameters are those of the base
        self.dendrites = taken.dendrites.train(self.training)


def without_any(graphs: tuple[fx.GraphModule, fx.GraphModule]) -> DendriteSet:
    """A set that has no dendrites so far, over fresh graphs."""
    dendrites = nn.ModuleDict()
    for graph in graphs:
        graph.add_module(DENDRITES, dendrites)
    return DendriteSet(GraftPlan(), dendrites, graphs)
