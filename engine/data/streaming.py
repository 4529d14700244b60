"""Rows of streaming sources, shuffled within a window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...modalities.base import StreamingSource
from ..utils import RuntimeFailure, derive_seed

WINDOW = 2048
"""Rows of a stream that are held in memory and shuffled."""


class ShuffleBuffer(StreamingSource):
    """A stream as rows by index, for a reader that goes forward: shuffled within windows.

    At the end of the stream it begins again. Going back restarts it.
    """

    def __init__(self, source: StreamingSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.columns = source.columns
        self._block, self._rows = -1, []  # type: tuple[int, list[dict[str, Any]]]
        self._endless: Iterator[dict[str, Any]] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        block, position = divmod(index, WINDOW)
        if self._endless is None or block < self._block:
            self._endless, self._block = self._again_and_again(), -1
        while self._block < block:
            self._rows = list(itertools.islice(self._endless, WINDOW))
            self._block += 1
        return self._rows[self._order(block)[position]]

    def key(self, index: int) -> str:
        """Return its place in the stream, counted on when the stream begins again."""
        block, position = divmod(index, WINDOW)
        return str(block * WINDOW + self._order(block)[position])

    def _again_and_again(self) -> Iterator[dict[str, Any]]:
        while True:
            row = None
            for row in self.source:
                yield row
            if row is None:
                raise RuntimeFailure(f"{self.source.fingerprint()}: the stream has no row")

    def _order(self, block: int) -> np.ndarray:
        return np.random.default_rng(derive_seed(self.seed, "window", block)).permutation(WINDOW)

    def fingerprint(self) -> str:
        return self.source.fingerprint()
