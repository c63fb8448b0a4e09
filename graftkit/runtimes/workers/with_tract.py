"""A worker for tract, which ends the whole process where it meets something that it did not think of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from serving import Run, serve


def _version() -> str:
    import tract  # noqa: F401

    return version("tract")


def _load(model: Path, asked: Mapping[str, Any]) -> Run:
    import tract

    try:
        plan = tract.onnx().load(model).into_model().into_runnable()
    except tract.TractError as error:
        raise ValueError(_caused(str(error))) from None
    names = [value["name"] for value in asked["inputs"]]

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            found = plan.run([arrays[name] for name in names])
        except tract.TractError as error:
            raise ValueError(_caused(str(error))) from None
        return {name: value.to_numpy() for name, value in zip(asked["outputs"], found, strict=True)}

    return run


def _caused(report: str) -> str:
    """What failed, and the innermost cause, without where in its code it was."""
    lines = [line.strip() for line in report.partition("Stack backtrace")[0].splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1].lstrip('0123456789: ')}"


if __name__ == "__main__":
    serve(_version, _load)
