"""Every corruption: five strengths, each worse; shapes and types stay, rows are corrupted alone, and seeds decide."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graftkit.corruptions import CORRUPTIONS, Corruption, Scale

KINDS = pytest.mark.parametrize("kind", CORRUPTIONS.values(), ids=CORRUPTIONS)
SHAPES = {"image": (64, 3, 16, 12), "series": (64, 2, 40), "values": (64, 10)}


def rows_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Smooth along the last dimension, so that what shifts and blurs changes little at first."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.cumsum(-1) / shape[-1] ** 0.5


def scale_of(rows: Tensor, time: int = -1) -> Scale:
    dims = [dim for dim in range(rows.ndim) if rows.ndim < 4 or dim != 1]
    return Scale(rows.amin(dims, True), rows.amax(dims, True), rows.mean(dims, True), rows.std(correction=0), time)


def corrupted(kind: Corruption, rows: Tensor, level: float, seed: int = 0) -> Tensor:
    return kind.apply(rows, level, scale_of(rows), torch.Generator().manual_seed(seed))


@KINDS
def test_each_strength_is_worse_than_the_one_before(kind: Corruption) -> None:
    assert len(kind.levels) == 5 and kind.forms and kind.summary and kind.unit
    for form in kind.forms:
        rows = rows_of(SHAPES[form])
        away = [float((corrupted(kind, rows, level) - rows).square().mean().sqrt()) for level in kind.levels]
        assert away[0] > 0 and all(a < b for a, b in itertools.pairwise(away)), away


@KINDS
def test_rows_stay_as_they_are_and_the_seed_decides(kind: Corruption) -> None:
    for form in kind.forms:
        for dtype in (torch.float32, torch.float64, torch.float16):
            rows = rows_of(SHAPES[form]).to(dtype)
            before = rows.clone()
            found = corrupted(kind, rows, kind.levels[-1])
            assert torch.equal(rows, before) and found.shape == rows.shape and found.dtype == dtype
            assert torch.isfinite(found).all()
            assert torch.equal(found, corrupted(kind, rows, kind.levels[-1]))


@KINDS
def test_a_row_does_not_depend_on_its_neighbours(kind: Corruption) -> None:
    for form in kind.forms:
        rows = rows_of(SHAPES[form])
        others = rows_of(SHAPES[form], seed=9)
        mixed = torch.cat([rows[:5], others[5:]])
        scale = scale_of(rows)
        ours, theirs = (
            kind.apply(given, kind.levels[2], scale, torch.Generator().manual_seed(1)) for given in (rows, mixed)
        )
        assert torch.equal(ours[:5], theirs[:5])


@KINDS
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_size_will_do(kind: Corruption, data: st.DataObject) -> None:
    size = st.integers(1, 9)
    form = data.draw(st.sampled_from(kind.forms))
    dims = {"image": (2, 3), "series": (1, 3), "values": (1, 1)}[form]
    shape = tuple(data.draw(st.lists(size, min_size=dims[0], max_size=dims[1])))
    rows = rows_of((data.draw(size), *shape))
    for level in kind.levels:
        assert corrupted(kind, rows, level).shape == rows.shape


def test_images_keep_to_their_range() -> None:
    rows = rows_of(SHAPES["image"])
    scale = scale_of(rows)
    for name in ("gaussian-noise", "impulse-noise", "blur", "contrast", "occlusion"):
        found = corrupted(CORRUPTIONS[name], rows, CORRUPTIONS[name].levels[-1])
        assert (found >= scale.low - 1e-5).all() and (found <= scale.high + 1e-5).all(), name


def test_impulses_are_as_many_as_asked_and_lie_at_both_ends() -> None:
    rows = torch.full((200, 1, 20, 20), 0.5)
    rows[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    found = corrupted(CORRUPTIONS["impulse-noise"], rows, 0.1)
    assert {*found[1:].unique().tolist()} == {0.0, 0.5, 1.0}
    shares = [float((found == value).double().mean()) for value in (0.0, 1.0)]
    assert shares == pytest.approx([0.05, 0.05], abs=0.005)


def test_noise_is_at_the_ratio_it_says() -> None:
    rows = 3 * torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    noise = corrupted(CORRUPTIONS["noise"], rows, 10.0) - rows
    assert 20 * torch.log10(rows.std() / noise.std()) == pytest.approx(10, abs=0.1)


def test_a_shift_moves_along_time_one_way_or_the_other_and_holds_the_edge() -> None:
    rows = torch.arange(10.0).expand(50, 3, 10)
    found = corrupted(CORRUPTIONS["shift"], rows, 0.2)
    later, earlier = torch.tensor([0.0, 0, 0, 1, 2, 3, 4, 5, 6, 7]), torch.tensor([2.0, 3, 4, 5, 6, 7, 8, 9, 9, 9])
    kinds = [torch.equal(row, later.expand(3, 10)) - torch.equal(row, earlier.expand(3, 10)) for row in found]
    assert {*kinds} == {1, -1}
    across = CORRUPTIONS["shift"].apply(rows.mT, 0.2, scale_of(rows, time=1), torch.Generator().manual_seed(0))
    assert torch.equal(across.mT, found)


def test_a_gain_multiplies_or_divides_whole_rows() -> None:
    rows = torch.rand(64, 12) + 1
    found = corrupted(CORRUPTIONS["gain"], rows, 6.0) / rows
    assert torch.allclose(found, found[:, :1].expand_as(found))
    assert {*(round(float(factor), 3) for factor in found[:, 0])} == {0.501, 1.995}


def test_an_occlusion_covers_a_square_with_the_mean() -> None:
    rows = rows_of((30, 2, 16, 12))
    found = corrupted(CORRUPTIONS["occlusion"], rows, 0.5)
    covered = (found == scale_of(rows).mean).all(1)
    assert (covered.sum((1, 2)) == 36).all()
    assert all(len(row.any(0).nonzero()) == 6 and len(row.any(1).nonzero()) == 6 for row in covered)
    assert len({tuple(row.nonzero()[0].tolist()) for row in covered}) > 5


def test_a_blurred_constant_is_that_constant() -> None:
    rows = torch.full((2, 1, 9, 7), 0.3)
    assert torch.allclose(corrupted(CORRUPTIONS["blur"], rows, 2.0), rows)
