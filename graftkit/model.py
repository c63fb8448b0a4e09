"""The live objects: a traced model (two graphs that share their parameters) and a grafted one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from graftkit import moving
from graftkit.calling import Calling
from graftkit.contracts import Dendrite, Inputs
from graftkit.core.errors import DataError
from graftkit.core.records import EdgeRecord
from graftkit.core.signature import Signature
from graftkit.core.sites import Site, SkippedCall
from graftkit.switching import Switching

# Marks that tracing leaves on graph nodes, for surgery to find them: value is the site's key.
SITE_MARK = "graftkit_site"  # the Linear or Conv call itself
ACTIVATION_MARK = "graftkit_activation"  # what the neuron's activation reads: the batch norm behind it, if any

DENDRITES_MARK = "graftkit_dendrites"  # the call that surgery inserted, whose value is the joined neurons


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A model as two `torch.fx` graphs that share every parameter and buffer; neither is ever changed.

    Attributes:
        name: what the model is called in messages and titles.
        source: the live module it was traced from; None for an exported program.
        calling: how the live module takes its arguments; None where there is none.
        how: the way in which it was captured, for capturing it again.
        train_graph, eval_graph: the same network as it behaves in `train()` and in `eval()`.
        sites: every Linear and Conv call where a dendrite can be grafted, in the order of the graph.
        skipped: every other call with weights, with the reason.
        edges: data flow between sites.
        inputs: an example of the model's inputs, in the signature's order.
        signature: what goes in and what comes out.
        output_at: where the output that feeds the loss is among the outputs of (train_graph, eval_graph); a graph
            with one output returns it as it is, one with more returns a tuple.
        notes: what could not be had from this source, one line each.
        metadata: what an ONNX file that it came from said in its own metadata.
    """

    name: str
    source: nn.Module | None
    calling: Calling | None
    how: tuple[Any, ...]
    train_graph: fx.GraphModule
    eval_graph: fx.GraphModule
    sites: tuple[Site, ...]
    skipped: tuple[SkippedCall, ...]
    edges: tuple[EdgeRecord, ...]
    inputs: tuple[Tensor, ...]
    signature: Signature
    output_at: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def site(self, key: str) -> Site:
        """The site called `key`; raises KeyError."""
        return {site.key: site for site in self.sites}[key]

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers of both graphs by name."""
        found: dict[str, Tensor] = {}
        for graph in (self.train_graph, self.eval_graph):
            found.update(graph.named_parameters(remove_duplicate=False))
            found.update(graph.named_buffers(remove_duplicate=False))
        return found


class SiteDendrites(nn.Module):
    """All dendrites of one site, in cascade; with none, the neurons pass unchanged.

    `forward(input, neuron, mask)` takes what the site reads and what its neurons say, and returns the
    neurons after their dendrites, same shape.
    """

    def __init__(self, site: str, *, detach: bool):
        super().__init__()
        self.site = site
        self.detach = detach
        self.cascade = nn.ModuleList()

    def forward(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        seen, own = (input.detach(), neuron.detach()) if self.detach else (input, neuron)
        earlier: list[Tensor] = []
        for dendrite in self.members():
            activity = dendrite(seen, own, earlier, mask)
            neuron = dendrite.join(neuron, activity)
            earlier.append(activity)
        return neuron

    def members(self) -> tuple[Dendrite, ...]:
        """The dendrites, first grafted first."""
        return tuple(module for module in self.cascade if isinstance(module, Dendrite))


class GraftedModel(Switching):
    """A traced model with dendrites in both of its graphs; `forward` takes the graph of its own mode.

    Parameters keep their names under `base.`; dendrites lie under `dendrites.SLOT.cascade.INDEX.`, see
    `slot`. Dendrites are put in and taken out by `graftkit.surgery` alone, from the set that is active.
    """

    def __init__(self, traced: TracedModel, train_graph: fx.GraphModule, eval_graph: fx.GraphModule):
        super().__init__()
        self.traced = traced
        self.base = _tree(traced.tensors())
        self._begin((train_graph, eval_graph))

    def fresh_graphs(self) -> tuple[fx.GraphModule, fx.GraphModule]:
        return copied(self.traced.train_graph), copied(self.traced.eval_graph)

    def _apply(self, fn: moving.Convert, recurse: bool = True) -> Self:
        """What `to`, `cuda`, `double` and so on do: the graphs, the dendrites and the module that was traced move, too.

        Raises TraceError, before anything is moved, where one of them could not follow.
        """
        traced = self.traced
        own = [] if traced.source is None else [*traced.source.parameters(), *traced.source.buffers()]
        aside = [tensor for held in self.held() for tensor in (*held.dendrites.parameters(), *held.dendrites.buffers())]
        tensors = [*self.parameters(), *self.buffers(), *traced.tensors().values(), *aside, *own]
        others = (graph for held in self.held() for graph in held.graphs)
        roots = (*self.graphs, traced.train_graph, traced.eval_graph, *others)
        parts = {id(part): part for root in roots for part in root.modules()}
        graphs = [part for part in parts.values() if isinstance(part, fx.GraphModule)]
        move = moving.Move.of([*tensors, *traced.inputs], fn, traced.name)
        move.check(graphs, traced.name)
        moving.convert_in_place(tensors, fn)
        for graph in graphs:
            move.redirect(graph)
        ends = traced.signature
        signature = replace(ends, inputs=move.ports(ends.inputs), outputs=move.ports(ends.outputs))
        self.traced = replace(traced, inputs=tuple(map(fn, traced.inputs)), signature=signature)
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output that feeds the loss; inputs in the signature's order."""
        return self.outputs(*inputs)[self.traced.output_at[0 if self.training else 1]]

    def outputs(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs of the graph of its own mode, in evaluation those that the signature names."""
        found = self.graphs[0 if self.training else 1](*inputs)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    def arrange(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """A batch as data give it, in the order in which `forward` takes it. Raises DataError."""
        return arranged(inputs, self.traced.signature)

    def at(self, site: str) -> SiteDendrites:
        """The dendrites of a site; raises KeyError where there are none."""
        module = self.dendrites[slot(site)]
        assert isinstance(module, SiteDendrites)
        return module

    def members(self) -> tuple[Dendrite, ...]:
        """All dendrites, in the plan's order."""
        waiting = {site: list(self.at(site).members()) for site in self.plan.sites()}
        return tuple(waiting[graft.site].pop(0) for graft in self.plan.grafts)

    def parameter_count(self) -> int:
        """Numbers in all parameters, each counted once, dendrites included."""
        return sum(p.numel() for p in self.parameters())

    def macs(self) -> int:
        """Multiply-adds of all sites and dendrites for one row of data."""
        sites = sum(site.macs for site in self.traced.sites)
        return sites + sum(d.macs for key in self.plan.sites() for d in self.at(key).members())

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of every parameter and buffer by name."""
        return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put a snapshot back in place; the dendrites must be those it was taken with.

        A tensor that was expanded, whose elements share their place in memory, is as it was: nothing can write there.
        """
        fixed = {name for name, tensor in self.state_dict().items() if _expanded(tensor)}
        found = self.load_state_dict({name: state[name] for name in state if name not in fixed}, strict=False)
        wrong = {*found.missing_keys, *found.unexpected_keys} - fixed
        if wrong:
            raise RuntimeError(f"the snapshot is of another model or plan: {', '.join(sorted(wrong))}")

    def silence(self, site: str) -> list[Tensor]:
        """Set a site's strengths to zero; returns what `unsilence` needs."""
        strengths = [p for dendrite in self.at(site).members() for p in dendrite.strengths()]
        kept = [p.detach().clone() for p in strengths]
        with torch.no_grad():
            for p in strengths:
                p.zero_()
        return kept

    def unsilence(self, site: str, kept: list[Tensor]) -> None:
        """Undo `silence`."""
        strengths = [p for dendrite in self.at(site).members() for p in dendrite.strengths()]
        with torch.no_grad():
            for p, value in zip(strengths, kept, strict=True):
                p.copy_(value)


def arranged(inputs: Inputs, signature: Signature) -> tuple[Tensor, ...]:
    """A batch as data give it, in the order of the signature's inputs. Raises DataError where one is missing."""
    names = signature.input_names
    if isinstance(inputs, Mapping):
        missing = [name for name in names if name not in inputs]
        if missing:
            there = ", ".join(map(str, inputs)) or "none"
            raise DataError(f"the model takes {', '.join(names)}, but the rows have no {missing[0]}; they have {there}")
        return tuple(inputs[name] for name in names)
    found = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if len(found) != len(names):
        raise DataError(f"the model takes {len(names)} inputs ({', '.join(names)}), but the rows have {len(found)}")
    return found


@contextmanager
def learning(parameters: Iterable[nn.Parameter], *, on: bool) -> Iterator[None]:
    """Gradients for these parameters, or none, while inside.

    Unlike `torch.no_grad()` this leaves a model's own regions without gradients to be seen.
    """
    changed = [p for p in parameters if p.requires_grad != on]
    for p in changed:
        p.requires_grad_(on)
    try:
        yield
    finally:
        for p in changed:
            p.requires_grad_(not on)


def slot(site: str) -> str:
    """The name under which a site's dendrites lie: its key, `/` for dots, and `/` behind a word of ModuleDict's."""
    name = site.replace(".", "/")
    return f"{name}/" if hasattr(nn.ModuleDict, name) else name


def copied(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph anew, marks and the graphs within it included, over the same parameters and buffers."""
    new = fx.Graph()
    output = new.graph_copy(graph.graph, {})
    new.output(output)
    new.set_codegen(graph.graph._codegen)
    module = fx.GraphModule(graph, new)
    for name, part in list(module.named_children()):
        if isinstance(part, fx.GraphModule):
            setattr(module, name, copied(part))
    return module


def _tree(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Plain nested modules that hold these very tensors under their dotted names."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_buffer(leaf, tensor)
    return root


def _expanded(tensor: Tensor) -> bool:
    return any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))
