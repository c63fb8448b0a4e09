"""What was found of a case, and the file in which that is kept: one JSON object a line, the last of a name counts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """What graftkit made of a case; filled in as far as it came.

    Attributes:
        calls: Linear and Conv calls in the evaluation graph.
        sites, grafts: where dendrites can be grafted, and where the default plan grafts them.
        skipped: how many calls are no site, by reason.
        trained: whether five steps went as they should.
        batch: "free" or "fixed".
        free: the other sizes that stay free.
        other: what became of another size than the traced one: "right", "fixed", or empty where none was tried.
        parity: onnxruntime against the trained model, the largest difference relative to the output's scale.
        live: the silenced graph against the module itself with the trained weights, likewise.
        effect: how much the trained dendrites change the outputs, likewise.
        status: "pass", "refused" (as expected), "fail".
        cause: why not, in a line, with the line of code.
    """

    name: str
    family: str
    status: str = "fail"
    stage: str = ""
    cause: str = ""
    calls: int = 0
    sites: int = 0
    grafts: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    trained: bool = False
    batch: str = ""
    free: list[str] = field(default_factory=list)
    other: str = ""
    parity: float | None = None
    live: float | None = None
    effect: float | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    traceback: str = ""


@dataclass
class Base:
    """What `torch.onnx.export` alone makes of a case.

    Attributes:
        exports: "dynamic" (with a free batch), "static" (at the example's sizes alone) or "no".
        parity: onnxruntime against the module, None where it does not run.
    """

    name: str
    family: str
    exports: str = "no"
    parity: float | None = None
    cause: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether what it exports computes the same."""
        return self.parity is not None and self.parity <= 1e-3


KINDS = {"row": Row, "base": Base}


class Results:
    """Rows and bases by name, read from a file and appended to it."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[tuple[str, str], Any] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            record = json.loads(line)
            kind = KINDS[record.pop("kind")]
            known = {f.name for f in fields(kind)}
            self.found[kind.__name__, record["name"]] = kind(**{k: v for k, v in record.items() if k in known})

    def row(self, name: str) -> Row | None:
        return self.found.get(("Row", name))

    def base(self, name: str) -> Base | None:
        return self.found.get(("Base", name))

    def add(self, result: Row | Base) -> None:
        """Remember and append it."""
        self.found[type(result).__name__, result.name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": type(result).__name__.lower(), **asdict(result)}) + "\n")
