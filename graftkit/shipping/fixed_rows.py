"""Files that take a fixed number of rows, asked about any number."""

from __future__ import annotations

import numpy as np

from graftkit.contracts import Feed, Run


def any_rows(run: Run, rows: int | None) -> Run:
    """A session for batches of any size, from one that takes so many rows; itself where their number is free.

    A batch goes in parts, the last filled up with its last row.
    """
    if rows is None:
        return run

    def parted(feed: Feed) -> list[np.ndarray]:
        count = next(len(value) for value in feed.values() if value.ndim)
        parts = [run(_part(feed, start, rows, count)) for start in range(0, count, rows)]
        return [np.concatenate(each)[:count] if each[0].ndim else each[0] for each in zip(*parts, strict=True)]

    return parted


def _part(feed: Feed, start: int, rows: int, count: int) -> Feed:
    """So many rows from one on; what has no row for each of the batch goes in whole."""
    places = np.minimum(np.arange(start, start + rows), count - 1)
    return {name: value[places] if value.ndim and len(value) == count else value for name, value in feed.items()}
