"""A slice of the zoo that needs nothing but torch: each case goes all the way, in this process."""

from __future__ import annotations

import pytest

from .cases import find
from .runner import examine

SLICE = (
    "lstm_cell_loop",
    "transformer_encoder",
    "unet",
    "called_twice",
    "weight_norm",
    "auxiliary_head",
    "nested_inputs",
    "variational",
    "scripted_if",
    "stochastic_depth",
    "numpy_inside",
)


@pytest.mark.parametrize("name", SLICE)
def test_a_case_of_the_zoo_goes_all_the_way(name: str):
    case = find(f"classic/{name}")
    row = examine(case)
    expected = "pass" if case.expect == "works" else "refused"
    assert row.status == expected, f"while {row.stage}: {row.cause}\n{row.traceback}"
