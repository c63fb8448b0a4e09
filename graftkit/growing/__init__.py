"""Growth in a training loop of one's own: `Grower`."""

from graftkit.growing.grower import Grower
from graftkit.growing.making import growable
from graftkit.growing.telling import told

__all__ = ["Grower", "growable", "told"]
