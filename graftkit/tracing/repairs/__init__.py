"""Repairs for what tracing trips on: on the module before it is captured, and on the graph afterwards; two tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from torch import fx, nn

from graftkit.tracing.repairs.attention import plain_attention
from graftkit.tracing.repairs.causal_hint import without_causal_hint
from graftkit.tracing.repairs.chunks import plain_chunks
from graftkit.tracing.repairs.complex_numbers import plain_complex
from graftkit.tracing.repairs.data import data_as_detached, unchecked_distributions
from graftkit.tracing.repairs.distances import plain_distances
from graftkit.tracing.repairs.experts import batched_experts
from graftkit.tracing.repairs.kept_reads import read_before_written
from graftkit.tracing.repairs.layerdrop import without_layerdrop
from graftkit.tracing.repairs.length import free_length
from graftkit.tracing.repairs.modes import inference_as_no_grad, without_recomputing
from graftkit.tracing.repairs.needless_mask import without_needless_mask
from graftkit.tracing.repairs.no_grad_regions import inline_regions
from graftkit.tracing.repairs.pooling import plain_pooling
from graftkit.tracing.repairs.products import plain_products
from graftkit.tracing.repairs.projected_lstm import plain_lstm
from graftkit.tracing.repairs.reassigned_buffers import buffers_in_place
from graftkit.tracing.repairs.subtraction import plain_subtraction

# Each changes the module while it is captured; gives a line for the user where it applied, else None.
MODULE_REPAIRS: Mapping[str, Callable[[nn.Module, bool], AbstractContextManager[str | None]]] = {
    "layerdrop": without_layerdrop,
    "length": free_length,
    "experts": batched_experts,
    "causal_hint": without_causal_hint,
    "needless_mask": without_needless_mask,
    "inference_mode": inference_as_no_grad,
    "checkpoint": without_recomputing,
    "data": data_as_detached,
    "distributions": unchecked_distributions,
    "reassigned_buffers": buffers_in_place,
}
# Each changes a graph in place; gives a line for the user where that has to be known, else None.
GRAPH_REPAIRS: Mapping[str, Callable[[fx.GraphModule], str | None]] = {
    "no_grad_regions": inline_regions,
    "kept_reads": read_before_written,
    "attention": plain_attention,
    "distances": plain_distances,
    "subtraction": plain_subtraction,
    "pooling": plain_pooling,
    "products": plain_products,
    "complex": plain_complex,
    "projected_lstm": plain_lstm,
    "chunks": plain_chunks,
}
