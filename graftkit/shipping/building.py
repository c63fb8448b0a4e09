"""From a live grafted model to a folded ONNX model with its facts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import onnx
import torch

from graftkit import folding, inspection, surgery, tracing
from graftkit.core.signature import Signature
from graftkit.folding import Written
from graftkit.model import GraftedModel


def to_onnx(
    model: GraftedModel, *, opset: int = folding.DEFAULT_OPSET, facts: Mapping[str, Any] | None = None
) -> onnx.ModelProto:
    """The folded ONNX model as one message, from a fresh evaluation graph of the trained weights.

    Raises ExportError, also where the model is too large for one message; `export` writes it all the same.
    """
    return build(model, opset=opset, facts=facts).whole()


def build(
    model: GraftedModel,
    *,
    opset: int = folding.DEFAULT_OPSET,
    facts: Mapping[str, Any] | None = None,
    signature: Signature | None = None,
    large: int = folding.LARGE,
    dendrites: bool = True,
) -> Written:
    """The folded ONNX model of any size, to be written with `staged`; until then its weights are the live model's.

    Args:
        model: with its trained weights.
        opset: 17 to 25.
        facts: written as JSON into the file's metadata, beside the plan.
        signature: the names and free sizes of inputs and outputs, where they are not to be those it was traced with.
        large: weights of more bytes are not copied before the file is written.
        dendrites: whether to write them; without, the network's own trained weights alone speak.

    Raises:
        ExportError: it has no ONNX form.
    """
    traced = model.traced
    ports = signature or traced.signature
    draft = folding.to_onnx(
        fresh_graph(model, dendrites=dendrites), traced.inputs, opset=opset, signature=ports, large=large
    )
    folded = folding.fold(draft, traced.sites, model.plan.sites() if dendrites else ())
    own = {
        "plan": model.plan.to_json(),
        "inspection": inspection.inspect_grafted(model, {}).to_json(),
        "signature": ports.to_json(),
    }
    told = {**own, **(facts or {})}
    folding.describe(folded.proto, version=version("graftkit"), facts=told, own=traced.metadata)
    return folded


def fresh_graph(model: GraftedModel, *, dendrites: bool = True) -> torch.fx.GraphModule:
    """A fresh evaluation graph of the live model with its dendrites inserted, or as it is without them."""
    graph = tracing.retrace(model.traced)
    if dendrites:
        surgery.insert_all(graph, model.plan, {site: model.at(site) for site in model.plan.sites()})
    graph.eval()
    return graph
