"""Proves on a throw-away probe that every dendrite is reached: that an error at the output moves its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from graftkit.core.errors import PlanError
from graftkit.model import GraftedModel

_SIZE = 0.1  # of what is put where strengths and gates are zero


def unreached(model: GraftedModel, sites: Iterable[str]) -> tuple[str, ...]:
    """The sites whose dendrites get no gradient at all from the output that feeds the loss, in training.

    A dendrite at zero strength has no gradient by construction, and neither has one behind a gate that is zero (a
    zero-initialised batch norm, a layer scale). So for the probe every parameter that is all zeros gets small random
    numbers; afterwards everything is as it was, buffers and generators included.
    """
    wanted = tuple(sites)
    training = model.training
    members = {site: [p for d in model.at(site).members() for p in d.parameters()] for site in wanted}
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), _kept(model.buffers()), _woken(model.parameters()):
            torch.manual_seed(0)
            gradients = _gradients(model, [p for ps in members.values() for p in ps])
    finally:
        model.train(training)
    return tuple(site for site, ps in members.items() if not any(_moves(gradients[id(p)]) for p in ps))


def check_unreached(model: GraftedModel, sites: Iterable[str]) -> None:
    """Raise PlanError, naming the sites, where dendrites get no gradient."""
    lost = unreached(model, sites)
    if lost:
        raise PlanError(
            f"no error at the output {model.traced.signature.output!r} reaches the dendrites at {', '.join(lost)};"
            f" leave them out with --sites {' '.join(f'!{site}' for site in lost[:3])}, or name another --output"
        )


def _gradients(model: GraftedModel, parameters: Sequence[nn.Parameter]) -> dict[int, Tensor | None]:
    with torch.enable_grad():
        output = model(*model.traced.inputs)
        # a fixed random direction: the plain sum of a softmax or a norm is constant
        loss = (output.float() * torch.randn_like(output.float())).sum()
        if not loss.requires_grad or not parameters:
            return dict.fromkeys(map(id, parameters))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {id(p): gradient for p, gradient in zip(parameters, found, strict=True)}


def _moves(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


@contextmanager
def _woken(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Random numbers, while inside, in every parameter that holds nothing but zeros."""
    silent = [p for p in parameters if p.is_floating_point() and p.numel() and not p.detach().any()]
    with torch.no_grad():
        for p in silent:
            p.normal_(0, _SIZE)
    try:
        yield
    finally:
        with torch.no_grad():
            for p in silent:
                p.zero_()


@contextmanager
def _kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    held = [(buffer, buffer.detach().clone()) for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in held:
                buffer.copy_(value)
