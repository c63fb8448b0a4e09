"""Lets `python -m graftkit` do what `graftkit` does."""

from graftkit.cli import main

main()
