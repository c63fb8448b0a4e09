"""Why the exporter could not write a graph, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch.export import ExportedProgram

_MISSING = re.compile(
    r"No ONNX function found for <OpOverload\(op='(?P<operator>[\w.]+)'.*?(?P<complex>complex-valued|$)"
)
_NODE = re.compile(r"translating node %(\w+)")


def reason(error: BaseException, program: ExportedProgram | None) -> str:
    """What was wrong in the first place, and in which of the model's modules, where that can be told."""
    chain = list(_causes(error))
    told = _words(chain[-1])
    found = next((match[1] for cause in chain if (match := _NODE.search(str(cause)))), None)
    place = _module_of(found, program) if found and program is not None else None
    return f"{told} (in the module {place!r})" if place else told


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = _MISSING.search(lines[0]) if lines else None
    if missing:
        what = " of complex numbers" if missing["complex"] else ""
        return f"the exporter has no ONNX form for {missing['operator']}{what}"
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _module_of(name: str, program: ExportedProgram) -> str | None:
    node = next((node for node in program.graph.nodes if node.name == name), None)
    stack = list((node.meta.get("nn_module_stack") or {}).values()) if node is not None else []
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("L['self'].") or None
