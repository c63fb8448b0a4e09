"""One worker for all tests: starting one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .pool import Worker


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """It finds a hang after three seconds."""
    made = Worker(tmp_path_factory.mktemp("fuzz").resolve(), seconds=3)
    yield made
    made.close()
