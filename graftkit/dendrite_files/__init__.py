"""Dendrites without their base: one small safetensors file, written, read, shown, and loaded onto the base again."""

from graftkit.dendrite_files.hashes import base_sha256
from graftkit.dendrite_files.loading import Base, load_dendrites
from graftkit.dendrite_files.reading import DendriteFile, is_dendrite_file, opened
from graftkit.dendrite_files.records import record_of
from graftkit.dendrite_files.writing import save_dendrites

__all__ = [
    "Base",
    "DendriteFile",
    "base_sha256",
    "is_dendrite_file",
    "load_dendrites",
    "opened",
    "record_of",
    "save_dendrites",
]
