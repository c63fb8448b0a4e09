"""Whether an ONNX node has as many inputs and outputs as its operator takes, by the standard's own table."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, defs

_SINGLE = defs.OpSchema.FormalParameterOption.Single


def wrong_arity(node: NodeProto, opset: int) -> str | None:
    """What does not fit, in words; None where it fits, or where the standard does not know the operator."""
    if not defs.has(node.op_type, opset, ""):
        return None
    schema = defs.get_schema(node.op_type, opset, "")
    sides = (
        ("inputs", node.input, schema.min_input, schema.max_input, schema.inputs),
        ("outputs", node.output, schema.min_output, schema.max_output, schema.outputs),
    )
    for side, names, least, most, formal in sides:
        if not least <= len(names) <= most:
            return f"has {len(names)} {side}"
        if _leaves_out(names, formal):
            return f"leaves out one of its {side}"
    return None


def _leaves_out(names: Sequence[str], formal: Sequence[defs.OpSchema.FormalParameter]) -> bool:
    """Whether one that has to be there has no name."""
    return any(not name and each.option == _SINGLE for name, each in zip(names, formal, strict=False))
