"""Rows of an index that are out of date: their files are gone, or their data set does not hold
them any more as they were embedded."""

from __future__ import annotations

import functools
import os

import numpy as np

from ..index import DATA, FILES, IDENTITY, Index


def stale_rows(index: Index, data: str, identities: np.ndarray | None) -> list[bytes]:
    """Return the identities of rows that are out of date.

    data: the data set that was embedded now, as rows name it. identities: the sorted ones of its
    rows; None for a stream, whose rows are not all known. Rows of other data sets are stale if a
    file or folder that they name is gone.
    """
    exists = functools.cache(os.path.exists)
    stale = []
    for row in index.where(None, [IDENTITY, DATA, FILES]):
        if row[DATA] == data and identities is not None:
            current = in_sorted(identities, row[IDENTITY])
        else:
            current = all(exists(path) for path in row[FILES] or ())
        if not current:
            stale.append(row[IDENTITY])
    return stale


def in_sorted(identities: np.ndarray, identity: bytes) -> bool:
    """Return whether a sorted array of 16 bytes each holds these."""
    value = np.frombuffer(identity, "S16")[0]
    at = int(np.searchsorted(identities, value))
    return at < len(identities) and identities[at] == value
