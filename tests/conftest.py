"""What all tests share: one thread, and traced networks that are made once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftkit import tracing
from graftkit.model import TracedModel

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how many times test_resume kills a run (`make soak`: 50)")


class Zoo(nn.Module):
    """Every operator that can be a site, side by side: each branch reads the same 192 numbers in a shape of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(192, 6)
        self.tokens = nn.Linear(16, 6)  # over a sequence of 12
        self.conv1 = nn.Conv1d(6, 4, 3, stride=2, padding=1)
        self.plain = nn.Conv2d(4, 6, 3, padding=1)
        self.strided = nn.Conv2d(4, 6, 3, stride=2, padding=0, bias=False)
        self.dilated = nn.Conv2d(4, 6, (3, 2), padding=(2, 1), dilation=2)
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.same = nn.Conv2d(4, 6, (3, 4), padding="same", dilation=(1, 2))
        self.even = nn.Conv2d(4, 6, 4, stride=2, padding=1)
        self.valid = nn.Conv2d(4, 6, (2, 3), padding="valid")
        self.conv3 = nn.Conv3d(2, 4, (3, 2, 3), stride=(1, 2, 1), padding=(1, 0, 1))
        self.upward = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)
        self.upward1 = nn.ConvTranspose1d(6, 4, 4, stride=2, dilation=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 2 + 4 * 3 + 6 * 7 + 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.reshape(-1, 4, 6, 8)
        found = [
            torch.relu(self.dense(x)),
            torch.relu(self.tokens(x.reshape(-1, 12, 16))).mean(1),
            torch.tanh(self.conv1(x.reshape(-1, 6, 32))).mean(2),
            torch.relu(self.norm(self.plain(image))).mean((2, 3)),
            torch.relu(self.conv3(x.reshape(-1, 2, 4, 4, 6))).mean((2, 3, 4)),
            self.upward1(x.reshape(-1, 6, 32)).relu().mean(2),
        ]
        for name in ("strided", "dilated", "grouped", "same", "even", "valid", "upward"):
            found.append(torch.relu(getattr(self, name)(image)).mean((2, 3)))
        return self.head(torch.cat(found, 1))


@pytest.fixture(scope="session")
def zoo() -> TracedModel:
    """A traced `Zoo`. Its weights are shared by all tests: nothing may train them."""
    torch.manual_seed(0)
    return tracing.trace_module(Zoo(), (torch.randn(4, 192),), name="zoo")
