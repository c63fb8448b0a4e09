"""Writes what the zoo found as a page: a summary, the failures with their causes, and every row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from .case import Case
from .cases import FAMILIES
from .results import Base, Results, Row

_PACKAGES = ("torch", "timm", "transformers", "torchvision", "onnx", "onnxscript", "onnxruntime")
_HEAD = ("family", "cases", "base exports", "pass", "of those whose base exports", "refused", "fail", "not run")
_ROW_HEAD = (
    "model", "calls", "sites", "no site because", "trained", "batch", "other sizes", "parity", "base", "s", "result",
)  # fmt: skip
_INTRODUCTION = """\
# What works: the zoo

Written by `python -m tests.zoo --write docs/coverage.md` (`make zoo`), with {packages}.

For each architecture, with random weights: trace it with two rows; graft the default plan; in training mode compare the
grafted model with the module itself (outputs, and the buffers that it moves, such as batch norm's statistics), see that
dropout draws where the module draws, train five steps on other rows and see that every dendrite and every parameter
that can learn gets a gradient; in evaluation mode silence the dendrites and compare with the module itself under the
trained weights; write ONNX and compare onnxruntime with the trained grafted model on five rows, and at a second
image size or sequence length where the model takes one. All within 1e-3 of an output's scale.

*base exports*: `torch.onnx.export(dynamo=True)` of the bare model, with a free batch if it can, gives a file that
onnxruntime computes the same with. *refused*: refused on purpose, with a message that says what stands in the way.
*calls*: Linear and Conv calls in the evaluation graph. *parity*: the largest difference relative to the scale. A row
*from an earlier run* was kept from the version before.
"""


def page(cases: Sequence[Case], results: Results) -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION.format(packages=", ".join(_versions()))]
    parts.append("## Summary\n\n" + _markdown(summary(cases, results)))
    parts.append("## Failures\n\n" + _failures(cases, results))
    parts.append("## Refused on purpose\n\n" + _refusals(cases, results))
    for family in FAMILIES:
        rows = [_row(case, results) for case in cases if case.family == family and results.row(case.name)]
        parts.append(f"## {family}\n\n" + _markdown([_ROW_HEAD, *rows]))
    return "\n".join(parts)


def summary(cases: Iterable[Case], results: Results) -> list[tuple[str, ...]]:
    """A line for each family and one for all, under a head."""
    known = list(cases)
    lines = [_summed(f, [c for c in known if c.family == f], results) for f in FAMILIES]
    return [_HEAD, *(line for line in lines if line[1] != "0"), _summed("all", known, results)]


def _summed(title: str, cases: Sequence[Case], results: Results) -> tuple[str, ...]:
    rows = {case.name: results.row(case.name) for case in cases}
    count = Counter(row.status for row in rows.values() if row)
    good = [c.name for c in cases if c.expect == "works" and (base := results.base(c.name)) and base.good]
    passed = sum(1 for name in good if (row := rows[name]) and row.status == "pass")
    wanted = len(cases) - count["refused"]
    share = f"{count['pass']} ({count['pass'] / wanted:.0%})" if wanted else "0"
    return (
        title, str(len(cases)), str(len(good)), share, f"{passed} of {len(good)}", str(count["refused"]),
        str(count["fail"]), str(sum(row is None for row in rows.values())),
    )  # fmt: skip


def _failures(cases: Sequence[Case], results: Results) -> str:
    found = [(c, row) for c in cases if (row := results.row(c.name)) and row.status == "fail"]
    if not found:
        return "None.\n"
    head = ("model", "while", "cause", "base")
    return _markdown([head, *((c.name, r.stage, r.cause, _base(results.base(c.name))) for c, r in found)])


def _refusals(cases: Sequence[Case], results: Results) -> str:
    found = [(c.name, row.cause) for c in cases if (row := results.row(c.name)) and row.status == "refused"]
    return _markdown([("model", "message"), *found]) if found else "None.\n"


def _row(case: Case, results: Results) -> tuple[str, ...]:
    row = results.row(case.name)
    assert row is not None
    result = row.status + (f": {'; '.join(row.notes)}" if row.notes and row.status == "pass" else "")
    return (
        case.name.partition("/")[2], str(row.calls), str(row.sites), _reasons(row), "yes" if row.trained else "",
        row.batch, _sizes(row), _number(row.parity), _base(results.base(case.name)), f"{row.seconds:.0f}", result,
    )  # fmt: skip


def _reasons(row: Row) -> str:
    return "; ".join(f"{count}: {reason}" for reason, count in row.skipped.items())


def _sizes(row: Row) -> str:
    """The sizes that stay free, with what became of another one."""
    free = ", ".join(row.free)
    return f"{free} ({row.other})" if free and row.other else free or row.other


def _base(base: Base | None) -> str:
    if base is None:
        return ""
    return base.exports if base.good or base.exports == "no" else f"{base.exports}, wrong"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def _versions() -> Iterable[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name).partition('+')[0]}"
        except PackageNotFoundError:
            continue


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = lines
    texts = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in texts)


def _cell(text: str) -> str:
    text = re.sub(r"/\S*/(site-packages|tests)/", r"", text)  # where packages lie is nobody's business
    return text.replace("|", r"\|").replace("\n", " ").replace("<", "&lt;")
