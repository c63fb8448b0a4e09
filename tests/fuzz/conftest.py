"""One worker for all tests: starting one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .pool import Worker


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """It runs as the long run's workers do."""
    made = Worker(tmp_path_factory.mktemp("fuzz").resolve())
    yield made
    made.close()
