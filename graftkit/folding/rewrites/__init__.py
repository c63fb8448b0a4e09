"""ONNX rewrites, each a function that changes a graphsurgeon graph in place; the table gives their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.batch_norm import fold_batch_norm
from graftkit.folding.rewrites.constants import fold_constants
from graftkit.folding.rewrites.empty_rows import drop_empty_rows
from graftkit.folding.rewrites.flat_mean import flatten_mean
from graftkit.folding.rewrites.gate import share_gate
from graftkit.folding.rewrites.gelu import spell_gelu
from graftkit.folding.rewrites.idle import drop_idle
from graftkit.folding.rewrites.known_sizes import write_sizes
from graftkit.folding.rewrites.lstm_outputs import name_lstm_outputs
from graftkit.folding.rewrites.neurons import drop_neurons
from graftkit.folding.rewrites.norms import spell_norms
from graftkit.folding.rewrites.own_places import keep_places
from graftkit.folding.rewrites.resizes import write_factors
from graftkit.folding.rewrites.scale import fold_scale
from graftkit.folding.rewrites.shared import share_equal
from graftkit.folding.rewrites.silent import drop_silent
from graftkit.folding.rewrites.strength import fold_strength
from graftkit.folding.rewrites.turns import merge_turns
from graftkit.folding.rewrites.zero_padding import keep_zero_padding
from graftkit.folding.rewrites.zero_state import drop_zero_state

Rewrite = Callable[[gs.Graph], int]  # returns how many places it changed

REWRITES: Mapping[str, Rewrite] = {
    "constants": fold_constants,
    "batch_norm": fold_batch_norm,
    "silent": drop_silent,
    "strength": fold_strength,
    "scale": fold_scale,
    "gate": share_gate,
    "shared": share_equal,
    "own_places": keep_places,
    "turns": merge_turns,
    "known_sizes": write_sizes,
    "resizes": write_factors,
    "flat_mean": flatten_mean,
    "zero_state": drop_zero_state,
    "idle": drop_idle,
    "neurons": drop_neurons,
    "empty_rows": drop_empty_rows,
    "gelu": spell_gelu,
    "norms": spell_norms,
    "lstm_outputs": name_lstm_outputs,
    "zero_padding": keep_zero_padding,
}
