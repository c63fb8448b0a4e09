"""What `augment` was asked for, as JSON and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graftkit.contracts import SourceRequest
from graftkit.request import Request


@pytest.mark.parametrize("mask", [None, "attention_mask"])
def test_it_comes_back_from_json(mask: str | None, tmp_path: Path) -> None:
    asked = Request(SourceRequest("x.pt"), "digits", tmp_path, dendrites=("own+around",), mask=mask, told="digits")
    told = json.loads(json.dumps(asked.to_json()))
    again = Request.from_json(told, tmp_path, trust=False, allow=())
    assert replace(again, source=asked.source) == asked
    assert again.identity() == asked.identity()


def test_without_a_mask_it_is_what_it_was_before_there_were_masks(tmp_path: Path) -> None:
    """Sweeps and runs that were begun then compare what they were asked for with what they are asked for now."""
    asked = Request(SourceRequest("x.pt"), "digits", tmp_path)
    assert "mask" not in asked.identity() and "join" in asked.identity()
    assert replace(asked, mask="counts").identity() != asked.identity()
