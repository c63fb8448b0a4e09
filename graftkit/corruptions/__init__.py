"""Corruptions of inputs: the table of kinds."""

from graftkit.core.errors import DataError
from graftkit.core.table import Table
from graftkit.corruptions.blur import Blur
from graftkit.corruptions.contrast import Contrast
from graftkit.corruptions.corruption import Corruption, Form, Scale
from graftkit.corruptions.gain import Gain
from graftkit.corruptions.gaussian_noise import GaussianNoise
from graftkit.corruptions.impulse_noise import ImpulseNoise
from graftkit.corruptions.noise import Noise
from graftkit.corruptions.occlusion import Occlusion
from graftkit.corruptions.shift import Shift

_KINDS: tuple[Corruption, ...] = (
    GaussianNoise(), ImpulseNoise(), Blur(), Contrast(), Occlusion(), Noise(), Shift(), Gain(),
)  # fmt: skip
CORRUPTIONS: Table[Corruption] = Table("corruption", {kind.name: kind for kind in _KINDS}, DataError)

__all__ = ["CORRUPTIONS", "Corruption", "Form", "Scale"]
