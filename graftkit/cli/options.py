"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

trust: Decorator = click.option(
    "--trust", is_flag=True, help="Run code the file brings along. Only if you trust whoever made it."
)
weights: Decorator = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="State dict or safetensors file for a package.module:factory.",
)
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
opset: Decorator = click.option(
    "--opset", type=click.IntRange(17, 25), default=20, show_default=True, help="ONNX opset."
)  # the limits are folding.OPSETS, which takes torch to import
