"""Bounds of values that come by in one pass: quantiles of a sample that is drawn evenly."""

from __future__ import annotations

import numpy as np

KEPT = 100_000
"""Rows that quantiles are taken of; of more, an even sample of this many."""


class Reservoir:
    """Rows `[n, K]` of a stream: all of them, or an even sample of `KEPT`."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept, self.seen = kept, 0
        self._rng = np.random.default_rng(0)
        self._blocks: list[np.ndarray] = []
        self._draws: list[np.ndarray] = []
        self._held = 0

    def add(self, rows: np.ndarray) -> None:
        self.seen += len(rows)
        self._held += len(rows)
        self._blocks.append(rows)
        self._draws.append(self._rng.random(len(rows)))
        if self._held > 2 * self.kept:
            self.rows()

    def rows(self) -> np.ndarray:
        """Return the sampled rows, those with the smallest draws, in their original order."""
        rows, draws = np.concatenate(self._blocks), np.concatenate(self._draws)
        if len(rows) > self.kept:
            chosen = np.sort(np.argpartition(draws, self.kept)[: self.kept])
            rows, draws = rows[chosen], draws[chosen]
        self._blocks, self._draws, self._held = [rows], [draws], len(rows)
        return rows


def bounds(rows: np.ndarray, quantiles: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """`[n, K]` -> lower and upper bounds `[K]`.

    Where both quantiles are one value though the rows are not, the extremes: a joint that
    seldom moves is no constant. Where the rows are one value, so are the bounds.
    """
    low, high = np.quantile(rows, quantiles, axis=0)
    rare = high - low <= 1e-9 * np.abs(rows).max(0)
    low = np.where(rare, rows.min(0), low)
    high = np.where(rare, rows.max(0), high)
    return low, high


def scale(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`1 / (high - low)`, and 0 where they are one value up to rounding."""
    width = high - low
    moves = width > 1e-9 * np.maximum(np.abs(low), np.abs(high))
    return np.divide(1.0, width, out=np.zeros_like(width), where=moves)
