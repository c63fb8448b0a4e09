"""Where randomness comes from in training, kept and put back: torch, numpy, Python, and the order of the rows."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from graftkit import ranks
from graftkit.core.errors import TrainingError
from graftkit.training.batches import Batches, Shared


def random_states(*loaders: Batches | None) -> dict[str, Any]:
    """The states of all generators that a run draws from, those of the loaders' orders included."""
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": list(np.random.get_state(legacy=True)),
        "python": random.getstate(),
        "loaders": [generator.get_state() for generator in _generators(loaders)],
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def set_random_states(states: dict[str, Any], *loaders: Batches | None) -> None:
    """Draw on from where `random_states` was taken. Raises TrainingError for other loaders."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(tuple(states["numpy"]))
    random.setstate(states["python"])
    own = _generators(loaders)
    if len(own) != len(states["loaders"]):
        raise TrainingError(
            f"the loaders have {len(own)} generators, and had {len(states['loaders'])} when it was saved"
        )
    for generator, state in zip(own, states["loaders"], strict=True):
        generator.set_state(state)
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


def align(rows: object) -> None:
    """Where several processes are given a loader, whose order may be anyone's: draw on from where the first one is."""
    if not ranks.several() or not isinstance(rows, DataLoader | Shared):
        return
    states = ranks.told(random_states)
    states.pop("cuda", None)
    set_random_states({**states, "loaders": []})


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's, numpy's and Python's random numbers are those of `seed`; outside nothing changed."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """A context in which torch takes algorithms alone that give the same numbers each time; outside nothing changed.

    Raises TrainingError where an operation has no such algorithm.
    """
    if not on:
        yield
        return
    was, only_told = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    searches = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins; without it cuBLAS is refused
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise TrainingError(f"{str(error).partition('.')[0]}; leave deterministic mode out") from error
    finally:
        torch.use_deterministic_algorithms(was, warn_only=only_told)
        torch.backends.cudnn.benchmark = searches


def _generators(loaders: Iterable[Batches | None]) -> list[torch.Generator]:
    """The loaders' own generators and those of their samplers, each once."""
    found: list[torch.Generator] = []
    waiting: list[Any] = [*loaders]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        generator = getattr(one, "generator", None)
        if isinstance(generator, torch.Generator) and not any(generator is other for other in found):
            found.append(generator)
        waiting += [getattr(one, name, None) for name in ("batch_sampler", "sampler")]
    return found
