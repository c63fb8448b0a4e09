"""Trains a grafted model for five steps and checks that it trains as the module it came from does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from graftkit.calling import flat_outputs
from graftkit.model import GraftedModel

from .compare import Wrong, close
from .watching import in_mode, moved, moving, random_outputs

STEPS, ROWS = 5, 4
_HUGE = 1e20
_UNTRACED = ("its training mode cannot be traced", "buffers that the module moves in training stay")
Fresh = Callable[[int], tuple[Tensor, ...]]


def check_training(model: GraftedModel, fresh: Fresh) -> list[str]:
    """Five steps in training mode, and what there is to note. Raises Wrong.

    Checked are: before training the grafted model is the module it came from, in training mode; it moves the same
    buffers (running statistics) in training, and none in evaluation; it is random where the module is; losses are
    finite; every dendrite gets a gradient, and so does every parameter that gets one in the module itself.
    """
    inputs = fresh(ROWS)
    notes = _check_randomness(model, inputs)
    _check_first_pass(model, inputs, drawn=bool(notes) or bool(_random(model, inputs)))
    _check_steps(model, fresh)
    _check_evaluation(model, inputs)
    return notes


def _source_run(model: GraftedModel, inputs: tuple[Tensor, ...]) -> Callable[[], dict[str, Tensor]]:
    source, calling = model.traced.source, model.traced.calling
    assert source is not None and calling is not None
    return lambda: dict(calling.run(source, inputs).tensors)


def _run(model: GraftedModel, inputs: tuple[Tensor, ...]) -> Callable[[], dict[str, Tensor]]:
    return lambda: dict(flat_outputs(model.outputs(*inputs)).tensors)


def _random(model: GraftedModel, inputs: tuple[Tensor, ...]) -> set[str]:
    return random_outputs(model, _run(model, inputs), training=True)


def _check_randomness(model: GraftedModel, inputs: tuple[Tensor, ...]) -> list[str]:
    source = model.traced.source
    assert source is not None
    drawn = random_outputs(source, _source_run(model, inputs), training=True)
    ours = _random(model, inputs)
    if drawn and not ours:
        told = [note for note in model.traced.notes if "layer drop" in note]
        if not told:
            raise Wrong("dropout: two passes in training are equal, the module's own differ")
        return ["not random in training, which the notes say"]
    if ours and not drawn:
        raise Wrong("two passes in training differ, the module's own are equal")
    return []


def _check_first_pass(model: GraftedModel, inputs: tuple[Tensor, ...], *, drawn: bool) -> None:
    source = model.traced.source
    assert source is not None
    at = model.traced.output_at[0]
    with in_mode(source, True), torch.no_grad():
        theirs, their_buffers = moved(source, _source_run(model, inputs))
    with in_mode(source, True), torch.no_grad():
        _, again = moved(source, _source_run(model, inputs))
    with in_mode(model, True), torch.no_grad():
        ours, our_buffers = moved(model, _run(model, inputs))
    aliases = _aliases(source.named_buffers(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    our_buffers = {name: our_buffers[alias] for name, alias in aliases.items() if alias in our_buffers}
    still = sorted(set(their_buffers) - set(our_buffers))
    if still and not _told(model.traced.notes):
        raise Wrong(f"buffers that the module moves in training stay: {', '.join(still[:3])} ({len(still)} in all)")
    # what is drawn may leave outputs alone, as behind a norm whose weights begin at zero
    steady = {n for n, value in their_buffers.items() if n in our_buffers and torch.equal(value, again.get(n, value))}
    their_buffers = {name: value for name, value in their_buffers.items() if name in steady}
    if not drawn:
        chosen = (list(theirs.values())[at], list(ours.values())[at])
        close({"output": chosen[0]}, {"output": chosen[1]}, "silent, in training, against the module itself")
        close(their_buffers, our_buffers, "buffers after one pass in training")


def _told(notes: Iterable[str]) -> bool:
    """Whether the notes say that buffers stay, and why: training itself could not be traced."""
    return all(any(note.startswith(words) for note in notes) for words in _UNTRACED)


def _check_steps(model: GraftedModel, fresh: Fresh) -> None:
    model.train()
    dendrites = list(model.dendrites.parameters())
    known = {id(p) for p in dendrites}
    base = [p for p in model.parameters() if id(p) not in known and p.requires_grad]
    groups = [{"params": base, "lr": 1e-4}, {"params": dendrites, "lr": 1e-2}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=0.0)
    reached: set[str] = set()
    for step in range(STEPS):
        inputs = fresh(ROWS)
        output = model(*inputs)
        loss = _loss(output)
        if not torch.isfinite(loss):
            raise Wrong(f"the loss of step {step + 1} is {float(loss)}")
        optimizer.zero_grad()
        loss.backward()
        reached |= moving(model.named_parameters(remove_duplicate=False))
        optimizer.step()
    _check_gradients(model, reached, inputs)


def _loss(output: Tensor) -> Tensor:
    """The mean square against a random target of the output's scale; what a mask made huge does not count."""
    values = output.float().flatten()
    values = values[values.detach().abs() < _HUGE]
    scale = values.detach().std().clamp(min=1e-3) if values.numel() > 1 else torch.ones(())
    return ((values - torch.randn_like(values) * scale) / scale).square().mean()


def _check_gradients(model: GraftedModel, reached: set[str], inputs: tuple[Tensor, ...]) -> None:
    for site in model.plan.sites():
        for index, dendrite in enumerate(model.at(site).members()):
            names = [n for n, p in model.named_parameters() if any(p is own for own in dendrite.parameters())]
            if not any(name in reached for name in names):
                raise Wrong(f"dendrite {index} at {site!r} got no gradient in {STEPS} steps")
            if not any(bool(p.any()) for p in dendrite.strengths()):
                raise Wrong(f"dendrite {index} at {site!r} is still silent after {STEPS} steps")
    source = model.traced.source
    assert source is not None
    aliases = _aliases(source.named_parameters(), model.named_parameters(remove_duplicate=False))
    lost = sorted(name for name in _own_gradients(model, inputs) if aliases[name] not in reached)
    if lost:
        raise Wrong(f"parameters that learn in the module get no gradient: {', '.join(lost[:3])} ({len(lost)} in all)")


def _own_gradients(model: GraftedModel, inputs: tuple[Tensor, ...]) -> set[str]:
    """The parameters that get a gradient in the module itself, for the same output."""
    source, at = model.traced.source, model.traced.output_at[0]
    assert isinstance(source, nn.Module)
    source.zero_grad()
    with in_mode(source, True):
        _loss(list(_source_run(model, inputs)().values())[at]).backward()
    found = moving(source.named_parameters())
    source.zero_grad()
    return found


def _aliases(source: Iterable[tuple[str, Tensor]], model: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """What the grafted model calls each tensor of the module: by identity, else by name."""
    by_id: dict[int, str] = {}
    for name, tensor in model:
        by_id.setdefault(id(tensor), name)
    return {name: by_id.get(id(tensor), f"base.{name}") for name, tensor in source}


def _check_evaluation(model: GraftedModel, inputs: tuple[Tensor, ...]) -> None:
    """In evaluation nothing moves."""
    with in_mode(model, False), torch.no_grad():
        _, buffers = moved(model, _run(model, inputs))
    if buffers:
        raise Wrong(f"buffers move in evaluation: {', '.join(sorted(buffers)[:3])}")
