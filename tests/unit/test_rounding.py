"""Numbers that are compared with a file's are made in whole float32, whatever the user allows torch otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import graftkit as gk
from graftkit import training
from graftkit.rounding import whole_numbers


@pytest.fixture
def coarse() -> Iterator[None]:
    """A user who lets matrix products round."""
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def told() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


class Telling(nn.Module):
    """Notes how it may round each time it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.heard = nn.Linear(3, 2), set[tuple[str, str]]()

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.heard.add(told())
        return self.layer(x)


@pytest.mark.usefixtures("coarse")
def test_everything_is_as_it_was_afterwards_and_after_an_error() -> None:
    with pytest.raises(KeyError), whole_numbers():
        assert told() == ("ieee", "ieee")
        raise KeyError
    assert told() == ("tf32", "tf32") and torch.get_float32_matmul_precision() == "high"
    with whole_numbers(), whole_numbers(), torch.backends.cudnn.flags(enabled=False):
        pass
    assert told() == ("tf32", "tf32") and torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_model_may_read_and_set_the_older_settings_meanwhile(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    try:
        with whole_numbers():
            assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
            with torch.backends.cudnn.flags(enabled=False):
                assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("coarse")
def test_scores_are_of_whole_numbers() -> None:
    model, heard = nn.Linear(3, 2), []

    def forward(rows: Tensor) -> Tensor:
        heard.append(told())
        return model(rows)

    training.predict(forward, TensorDataset(torch.randn(5, 3), torch.zeros(5, dtype=torch.long)))
    assert heard == [("ieee", "ieee")] and told() == ("tf32", "tf32")


@pytest.mark.usefixtures("coarse")
def test_a_file_is_compared_with_whole_numbers(tmp_path: Path) -> None:
    net = Telling()
    traced = gk.trace(net, torch.randn(2, 3))
    model = gk.graft(traced, gk.make_plan(traced, dendrites="full", sites="*"))
    file = gk.export(model, tmp_path / "model.onnx")
    net.heard.clear()
    gk.verify(file, model)
    assert net.heard == {("ieee", "ieee")} and told() == ("tf32", "tf32")
