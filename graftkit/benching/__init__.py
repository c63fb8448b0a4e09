"""Measures files side by side: latency, memory, energy, size and arithmetic, in any runtime."""

from graftkit.benching.bench import bench
from graftkit.benching.files import File, of_run, read_file

__all__ = ["File", "bench", "of_run", "read_file"]
