"""Options that name a file to write: what can be none is said before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class NewFile(click.Path):
    """A path whose last part is a name, and not that of a folder; with an ending, where there is but one.

    Args:
        suffix: the ending that it has to have, as ".svg".
    """

    def __init__(self, suffix: str = ""):
        super().__init__(dir_okay=False, path_type=Path)
        self.suffix = suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not Path(value).name:
            self.fail(f"{str(value)!r} names no file", param, ctx)
        if self.suffix and Path(value).suffix.lower() != self.suffix:
            self.fail(f"{str(value)!r} does not end in {self.suffix}", param, ctx)
        return super().convert(value, param, ctx)
