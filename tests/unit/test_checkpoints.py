"""Checkpoints: whatever state comes back as it was, a broken one is found, and the one before it counts."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from graftkit import training
from graftkit.core.errors import RunError
from graftkit.core.locking import locked
from graftkit.training.checkpoints import Checkpoints
from graftkit.training.packing import pack, unpack

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    found = torch.randn(shape, generator=generator) * 9
    if draw(st.booleans()) and found.ndim > 1:
        found = found.transpose(0, 1)
    return found.to(draw(st.sampled_from(DTYPES)))


numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), tensors())
keys = st.one_of(st.text(max_size=4), st.integers(), st.sampled_from(["$tensor", "$items", "$x"]))
states = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def alike(value: Any, other: Any) -> bool:
    if type(value) is not type(other):
        return False
    if isinstance(value, Tensor):
        same = value.dtype == other.dtype and value.shape == other.shape
        return same and torch.equal(value.nan_to_num(), other.nan_to_num())
    if isinstance(value, dict):
        return list(value) == list(other) and all(alike(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(alike, value, other))
    return bool(value == other) or (isinstance(value, float) and math.isnan(value) and math.isnan(other))


@given(state=states)
def test_any_state_comes_back_as_it_was(state: Any) -> None:
    plain, stored = pack(state)
    assert alike(unpack(json.loads(json.dumps(plain)), stored), state)


def test_a_tensor_is_stored_once_and_views_get_memory_of_their_own() -> None:
    whole = torch.arange(6.0)
    state = {"a": whole, "again": whole, "part": whole[:3], "turned": whole.view(2, 3).T}
    plain, stored = pack(state)
    assert len(stored) == 3
    assert len({tensor.untyped_storage().data_ptr() for tensor in stored.values()}) == 3
    assert alike(unpack(plain, stored), state)


def test_the_state_of_an_optimizer_and_its_schedule() -> None:
    parameter = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, amsgrad=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    for _ in range(2):
        parameter.grad = torch.ones(3)
        optimizer.step()
        schedule.step()
    for part in (optimizer, schedule):
        assert alike(unpack(*pack(part.state_dict())), part.state_dict())


def test_a_counter_stays_one() -> None:
    found = unpack(*pack(Counter({3: 2, 5: 1})))
    assert isinstance(found, Counter) and found == {3: 2, 5: 1}


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(TypeError, match="a function cannot be kept in a checkpoint"):
        pack({"what": lambda: 0})


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def fail(text: str) -> None:
    raise AssertionError(text)


def test_the_last_ones_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "deep" / "er", "net", keep=2)
    assert kept.read(fail) is None
    for number in range(12):
        kept.write({"number": number, "tensor": torch.full((3,), float(number))})
        assert kept.read(fail)["number"] == number
    assert sorted(path.name for path in kept.folder.iterdir()) == [
        f"net.{number:06d}.{ending}" for number in (11, 12) for ending in ("json", "safetensors")
    ]
    other = Checkpoints(kept.folder, "net-other")
    assert other.read(fail) is None
    kept.clear()
    assert not list(kept.folder.iterdir())


@pytest.mark.parametrize("ending", ["json", "safetensors"])
@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "gone"])
def test_a_broken_one_is_found_and_the_one_before_it_counts(tmp_path: Path, ending: str, harm: str) -> None:
    kept = Checkpoints(tmp_path, "net")
    for number in (1, 2):
        kept.write({"number": number, "tensor": torch.randn(50)})
    path = tmp_path / f"net.000002.{ending}"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-20] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-9], "flip": bytes(flipped), "empty": b""}[harm])
    told: list[str] = []
    assert kept.read(told.append)["number"] == 1
    assert len(told) == (not (ending == "json" and harm == "gone")) and all("is broken" in line for line in told)
    (tmp_path / "net.000001.json").write_text("{}")
    told.clear()
    assert kept.read(told.append) is None


def test_tensors_of_another_checkpoint_are_found(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "net")
    for number in (1, 2):
        kept.write({"number": number, "tensor": torch.randn(50)})
    (tmp_path / "net.000002.safetensors").write_bytes((tmp_path / "net.000001.safetensors").read_bytes())
    told: list[str] = []
    assert kept.read(told.append)["number"] == 1 and "other checksums" in told[0]


def test_a_full_disk_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path, "net")
    kept.write({"number": 1})

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        kept.write({"number": 2})
    assert kept.read(fail)["number"] == 1 and len(list(tmp_path.iterdir())) == 2


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="another process works in"), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert not list(tmp_path.iterdir())


# ── randomness ───────────────────────────────────────────────────────────────────────────────────


def drawn(loaders: list[DataLoader[Any]]) -> list[Any]:
    """Numbers from everywhere, the loaders' orders among them."""
    orders = [torch.cat([batch[0] for batch in loader]).tolist() for loader in loaders]
    return [*orders, torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random(), random.gauss(0, 1)]


def test_randomness_goes_on_from_where_it_was() -> None:
    rows = TensorDataset(torch.arange(20))
    own = RandomSampler(rows, generator=torch.Generator().manual_seed(3))
    loaders: list[DataLoader[Any]] = [
        DataLoader(rows, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(1)),
        DataLoader(rows, batch_size=4, sampler=own),
        training.batches(rows, 4, seed=5),
        DataLoader(rows, batch_size=4, shuffle=True),
    ]
    drawn(loaders)
    state = unpack(*pack(training.random_states(*loaders, None)))
    expected = drawn(loaders)
    assert drawn(loaders) != expected
    training.set_random_states(state, *loaders, None)
    assert drawn(loaders) == expected
