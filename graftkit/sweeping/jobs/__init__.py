"""What the trials of a sweep are runs of: one command a file."""

from graftkit.sweeping.jobs.augmentation import Augmentation
from graftkit.sweeping.jobs.compression import Compression
from graftkit.sweeping.jobs.job import Job

__all__ = ["Augmentation", "Compression", "Job"]
