"""Runs a ScriptModule's code in Python, operator by operator: what `torch.export` can follow, it can capture."""

from graftkit.tracing.replay.module import Replay

__all__ = ["Replay"]
