"""Proves on a throw-away probe that every dendrite is reached: that an error at the output moves its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from graftkit.model import GraftedModel

_SIZE = 0.1  # of what is put where strengths and gates are zero


def unreached(model: GraftedModel, sites: Iterable[str]) -> tuple[str, ...]:
    """The sites whose dendrites get no gradient at all from the output that feeds the loss, in training.

    A dendrite at zero strength has no gradient by construction, and neither has one behind a gate that is zero (a
    zero-initialised batch norm, a layer scale). So for the probe every parameter that is all zeros gets small random
    numbers; and where a gradient is zero all the same, as behind a rectifier that the example leaves silent, all
    parameters and the inputs are shaken once. Afterwards everything is as it was, buffers and generators included.
    """
    members = {site: [p for d in model.at(site).members() for p in d.parameters()] for site in sites}
    training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), _kept(model.buffers()), _woken(model.parameters()):
            torch.manual_seed(0)
            lost = _without_gradient(model, members, model.traced.inputs)
            if lost:
                with _kept(model.parameters()):
                    _shake(model.parameters())
                    noisy = tuple(x + torch.randn_like(x) if x.is_floating_point() else x for x in model.traced.inputs)
                    lost = _without_gradient(model, {site: members[site] for site in lost}, noisy)
    finally:
        model.train(training)
    return lost


def _without_gradient(
    model: GraftedModel, members: Mapping[str, Sequence[nn.Parameter]], inputs: tuple[Tensor, ...]
) -> tuple[str, ...]:
    gradients = _gradients(model, [p for ps in members.values() for p in ps], inputs)
    return tuple(site for site, ps in members.items() if not any(_moves(gradients[id(p)]) for p in ps))


def _shake(parameters: Iterable[nn.Parameter]) -> None:
    with torch.no_grad():
        for p in parameters:
            if p.is_floating_point():
                p.add_(torch.randn_like(p) * (_SIZE + p.abs().mean()))


def _gradients(
    model: GraftedModel, parameters: Sequence[nn.Parameter], inputs: tuple[Tensor, ...]
) -> dict[int, Tensor | None]:
    with torch.enable_grad():
        output = model(*inputs)
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
def _kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    held = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in held:
                if not torch.equal(tensor, value):  # an expanded one cannot be written to
                    tensor.copy_(value)
