"""The `node` runtime: onnxruntime-web, compiled to WebAssembly, in node."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftkit.core.errors import RuntimeMissingError
from graftkit.runtimes.channel import Elsewhere, opened
from graftkit.runtimes.described import described
from graftkit.runtimes.worker import Worker

WORKERS = Path(__file__).with_name("workers")
VARIABLE = "GRAFTKIT_ONNXRUNTIME_WEB"


@dataclass(frozen=True)
class Node:
    """onnxruntime-web on the CPU; one thread where none are asked for."""

    name: ClassVar[str] = "node"

    def version(self) -> str:
        _node()
        return web_version(web_package(self.name))

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Elsewhere:
        node, package = _node(), web_package(self.name)
        file = described(model, self.name)
        return opened(Worker([node, str(WORKERS / "with_node.mjs"), str(package)]), file, threads)


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        raise RuntimeMissingError("node is not installed: install Node.js 20 or newer")
    return found


def web_package(runtime: str) -> Path:
    """The folder of the npm package onnxruntime-web. Raises RuntimeMissingError."""
    named = os.environ.get(VARIABLE)
    if not named:
        raise RuntimeMissingError(
            f"{runtime} needs onnxruntime-web: npm install onnxruntime-web, and set {VARIABLE} to"
            " node_modules/onnxruntime-web, as `make runtimes` does"
        )
    folder = Path(named).absolute()
    if not (folder / "dist" / "ort.node.min.mjs").is_file():
        raise RuntimeMissingError(f"{VARIABLE} names {named}, which is no folder of onnxruntime-web")
    return folder


def web_version(package: Path) -> str:
    """The version of the package in this folder. Raises RuntimeMissingError."""
    try:
        return str(json.loads((package / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RuntimeMissingError(f"{package}/package.json tells no version of onnxruntime-web") from None
