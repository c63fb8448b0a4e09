"""Growth in a training loop of one's own: `Grower`."""

from graftkit.growing.grower import Grower

__all__ = ["Grower"]
