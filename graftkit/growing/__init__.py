"""Growth in a training loop of one's own: `Grower`."""

from graftkit.growing.grower import Grower, growable

__all__ = ["Grower", "growable"]
