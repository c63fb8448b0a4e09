"""Makes a model smaller: pruned in steps, with dendrites where they are worth more than the channels they replace."""

from graftkit.compressing.asked import Asked
from graftkit.compressing.compress import compress, resume
from graftkit.compressing.target import Target, kept, parse_target

__all__ = ["Asked", "Target", "compress", "kept", "parse_target", "resume"]
