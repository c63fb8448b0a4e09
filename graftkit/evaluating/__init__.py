"""A run's networks with few samples and with corrupted inputs."""

from graftkit.evaluating.asked import Asked, parse_shares
from graftkit.evaluating.evaluate import evaluate

__all__ = ["Asked", "evaluate", "parse_shares"]
