"""Gives every reader broken and hostile files; `python -m tests.fuzz --help`."""
