"""The fixtures that all end-to-end tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_tools import RUNS, Finished, Lane, command_server, fill_workshop, run_cli, wanted


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "runs(*names): the runs of test_augment that a test looks at")
    config.addinivalue_line("markers", "lines(*names): the command lines of test_commands that a test looks at")


@pytest.fixture(scope="session", autouse=True)
def commands():
    """What `run_cli` forks."""
    command_server()
    yield
    command_server().close()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample models, models and data of our own, and what is wrong with either."""
    folder = tmp_path_factory.mktemp("workshop")
    fill_workshop(folder)
    return folder


@pytest.fixture(scope="session")
def runs(workshop: Path, request: pytest.FixtureRequest):
    """The runs of `RUNS`, each made once, and only those that a selected test asks for."""

    def augment(name: str) -> Finished:
        own = name == "weak_again"  # nothing may hang on what forks share
        return run_cli("augment", *RUNS[name], "--out", name, cwd=workshop, forked=not own)

    lane = Lane([name for name in RUNS if name in wanted(request, "run")], augment)
    yield lane
    lane.close()
