"""What `torch.onnx.export` alone makes of a model: a diagnosis beside graftkit's own result."""

from __future__ import annotations

import time
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .case import Call, Case
from .compare import Session, by_position, worst
from .results import Base

_ROWS, _OTHER_ROWS = 2, 5


def measure(case: Case) -> Base:
    """Export the bare model with a free batch, else with fixed sizes, and run it."""
    started = time.perf_counter()
    found = Base(case.name, case.family)
    model = case.build().eval()
    causes = []
    for exports, rows in (("dynamic", _OTHER_ROWS), ("static", _ROWS)):
        try:
            proto = _export(model, case.inputs(_ROWS), free=exports == "dynamic")
            found.exports, found.parity = exports, _parity(proto, model, case.inputs(rows))
            break
        except Exception as error:  # whatever a translation raises
            causes.append(f"{exports}: {cause(error)}")
    found.cause = causes[0] if causes else ""
    found.seconds = round(time.perf_counter() - started, 1)
    return found


def cause(error: BaseException) -> str:
    """The first telling line of an error, and of what it came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"


def _export(model: nn.Module, call: Call, *, free: bool) -> onnx.ModelProto:
    args, keywords = call
    shapes: Any = None
    if free:
        shapes = pytree.tree_map(_free, dict(keywords) if keywords else tuple(args))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, tuple(args), kwargs=dict(keywords), dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    assert program is not None
    return program.model_proto


def _free(leaf: Any) -> Any:
    return {0: torch.export.Dim.DYNAMIC} if isinstance(leaf, Tensor) and leaf.ndim else None


def _parity(proto: onnx.ModelProto, model: nn.Module, call: Call) -> float:
    """The largest difference over the outputs both have; the exporter flattens them in its own way."""
    args, keywords = call
    with torch.no_grad():
        torch.manual_seed(0)
        output = model(*args, **keywords)
    expected = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    session = Session(proto)
    given = list(session.run(_feed(session, call)).values())
    count = min(len(expected), len(given))
    ours = {str(index): value for index, value in enumerate(expected[:count])}
    return worst(ours, by_position(given[:count]))[0]


def _feed(session: Session, call: Call) -> dict[str, Tensor]:
    """The arguments by the file's names: keywords keep theirs, nested and positional ones go by their order."""
    args, keywords = call
    if all(name in keywords for name in session.types):
        return dict(keywords)
    tensors = [leaf for leaf in pytree.tree_leaves((args, dict(keywords))) if isinstance(leaf, Tensor)]
    return dict(zip(session.types, tensors, strict=False))
