"""Proves on a throw-away probe that every dendrite is reached: that an error at the output moves its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from graftkit.core.errors import PlanError
from graftkit.model import GraftedModel, learning

_SIZE = 0.1  # of what is put where strengths and gates are zero
_ATTEMPTS = 4  # with other signs and draws: a choice among several branches may leave one out now and then


def unreached(model: GraftedModel, sites: Iterable[str]) -> tuple[str, ...]:
    """The sites whose dendrites get no gradient at all from the output that feeds the loss, in training.

    A dendrite at zero strength has no gradient by construction, and neither has one behind a gate that is zero (a
    zero-initialised batch norm, a layer scale). So for the probe every parameter that is all zeros gets small random
    numbers; and where a gradient is zero all the same, as behind a rectifier that the example leaves silent, half of
    all numbers change their sign and the inputs get noise, four times at most. Afterwards everything is as it was to
    the bit.
    """
    members = {site: [p for d in model.at(site).members() for p in d.parameters()] for site in sites}
    training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), _kept(model.buffers()), _woken(model.parameters()):
            torch.manual_seed(0)
            lost = _without_gradient(model, members, model.traced.inputs)
            for attempt in range(_ATTEMPTS if lost else 0):
                with _turned(model.parameters(), seed=attempt):
                    noisy = tuple(x + torch.randn_like(x) if x.is_floating_point() else x for x in model.traced.inputs)
                    lost = _without_gradient(model, {site: members[site] for site in lost}, noisy)
                if not lost:
                    break
    finally:
        model.train(training)
    return lost


def _without_gradient(
    model: GraftedModel, members: Mapping[str, Sequence[nn.Parameter]], inputs: tuple[Tensor, ...]
) -> tuple[str, ...]:
    every = [p for ps in members.values() for p in ps]
    with learning(every, on=True):
        gradients = _gradients(model, every, inputs)
    return tuple(site for site, ps in members.items() if not any(_moves(gradients[id(p)]) for p in ps))


@contextmanager
def _turned(parameters: Iterable[nn.Parameter], *, seed: int) -> Iterator[None]:
    """Random signs, while inside, on every parameter: undone by the same signs again, without a copy."""
    floating = [p for p in parameters if p.is_floating_point()]
    _turn(floating, seed)
    try:
        yield
    finally:
        _turn(floating, seed)


def _turn(parameters: Iterable[nn.Parameter], seed: int) -> None:
    generators = {p.device: torch.Generator(p.device).manual_seed(seed) for p in parameters}
    with torch.no_grad():
        for p in parameters:
            draw = torch.rand(p.shape, generator=generators[p.device], device=p.device)
            p.mul_(torch.where(draw < 0.5, -1, 1).to(p.dtype))


def _gradients(
    model: GraftedModel, parameters: Sequence[nn.Parameter], inputs: tuple[Tensor, ...]
) -> dict[int, Tensor | None]:
    with torch.enable_grad():
        try:
            output = model(*inputs)
            # a fixed random direction: the plain sum of a softmax or a norm is constant
            loss = (output.float() * torch.randn_like(output.float())).sum()
            if not loss.requires_grad or not parameters:
                return dict.fromkeys(map(id, parameters))
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        except RuntimeError as error:  # of the model's own operations
            reason = str(error).splitlines()[0]
            raise PlanError(f"{model.traced.name} cannot be trained, it fails in training mode: {reason}") from error
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
def _kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    held = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in held:
                if not torch.equal(tensor, value):  # an expanded one cannot be written to
                    tensor.copy_(value)
