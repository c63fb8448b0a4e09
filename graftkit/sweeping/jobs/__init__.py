"""What the trials of a sweep are runs of: one command a file, and the table of all."""

from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.sweeping.jobs.augmentation import Augmentation
from graftkit.sweeping.jobs.compression import Compression
from graftkit.sweeping.jobs.job import Job

JOBS: Table[type[Job]] = Table("command", {job.name: job for job in (Augmentation, Compression)}, PlanError)

__all__ = ["JOBS", "Augmentation", "Compression", "Job"]
