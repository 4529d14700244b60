"""Time stamps of rows -> a regular axis of time, with NaN where rows are missing.

Legend: `N` rows, `C` channels, `M` samples.
"""

from __future__ import annotations

import numpy as np

from ..base import ReadError

TOLERANCE = 0.25
"""How far, in steps, two rows may lie from a whole number of steps apart."""

LARGEST = 100
"""Samples that gaps may add, as a multiple of the rows."""


def regular(
    seconds: np.ndarray, values: np.ndarray, source: object
) -> tuple[np.ndarray, float, float]:
    """Return values `[C, M]` with NaN in the gaps, the rate in Hz and the first time in s.

    seconds: `[N]` of each row. The step is the median one; a longer distance is a gap if it is a
    whole number of steps (months differ by less than `TOLERANCE`). Raise ReadError for times that
    do not grow, and for irregular ones.
    """
    if len(seconds) < 2:
        raise ReadError(source, "one sample", "at least two, or it is no series")
    if np.isnan(seconds).any():
        row = int(np.flatnonzero(np.isnan(seconds))[0])
        raise ReadError(source, f"row {row} has no time stamp", "one in each row")
    gaps = np.diff(seconds)
    if not (gaps > 0).all():
        row = int(np.flatnonzero(gaps <= 0)[0]) + 1
        wrong = f"the time of row {row} is {-gaps[row - 1]:.6g} s before that of the row above"
        wrong = wrong if gaps[row - 1] else f"rows {row - 1} and {row} have the same time"
        raise ReadError(source, wrong, "times that grow; sort the rows, each time once")
    step = float(np.quantile(gaps, 0.5, method="lower"))
    counts = np.round(gaps / step).astype(np.int64)
    late = np.flatnonzero((np.abs(gaps / step - counts) > TOLERANCE) | (counts < 1))
    if len(late):
        row = int(late[0]) + 1
        wrong = f"irregular time stamps: {gaps[row - 1]:.6g} s before row {row}, {step:.6g} s usual"
        raise ReadError(source, wrong, "one step, or whole multiples; resample it before")
    places = np.concatenate([[0], np.cumsum(counts)])
    if places[-1] + 1 > LARGEST * len(seconds):
        wrong = f"gaps of {places[-1] + 1 - len(seconds)} samples between {len(seconds)} rows"
        raise ReadError(source, wrong, "rows of one recording")
    filled = np.full((len(values), int(places[-1]) + 1), np.nan)
    filled[:, places] = values
    return filled, float(places[-1] / (seconds[-1] - seconds[0])), float(seconds[0])
