"""Rows of streaming sources, shuffled within a window, and split by the shards of the source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...modalities.base import StreamingSource
from ..utils import RuntimeFailure, derive_seed

WINDOW = 2048
"""Rows of a stream that are held in memory and shuffled."""

MAX_LANES = 16
"""Parts of a stream that are read side by side; a smaller window is shuffled in each."""


class ShuffleBuffer(StreamingSource):
    """A stream as rows by index, for a reader that goes forward: shuffled within windows.

    The shards of the stream are dealt to up to `MAX_LANES` lanes, and batch `m` is read from lane
    `m` modulo their number. So the order of rows depends on the source and the size of a batch
    alone; and where the number of lanes is a multiple of that of processes times workers, each of
    them reads its own shards and no others. At the end of a lane it begins again. Going back
    restarts it; rows before an index are skipped by whole shards where their sizes are known.
    """

    def __init__(self, source: StreamingSource, seed: int, batch_size: int = 1) -> None:
        self.source, self.seed, self.batch_size = source, seed, batch_size
        self.columns = source.columns
        shards = source.shards()
        count = min(len(shards), MAX_LANES)
        window = WINDOW if count == 1 else max(WINDOW // count, WINDOW // 8)
        self.lanes = [
            _Lane(shards[lane::count], derive_seed(seed, "lane", lane) if lane else seed, window)
            for lane in range(count)
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        lane, position = self._place(index)
        return self.lanes[lane].row(position)

    def _place(self, index: int) -> tuple[int, int]:
        """Return the lane of a row and its position in it."""
        batch, offset = divmod(index, self.batch_size)
        turn, lane = divmod(batch, len(self.lanes))
        return lane, turn * self.batch_size + offset

    def key(self, index: int) -> str:
        """Return its place in the stream, counted on when the stream begins again; behind that of
        its lane, if there are several."""
        lane, position = self._place(index)
        place = self.lanes[lane].place(position)
        return str(place) if len(self.lanes) == 1 else f"{lane}.{place}"

    def fingerprint(self) -> str:
        return self.source.fingerprint()


class _Lane:
    """Shards that are read one after the other, again and again, and shuffled within windows."""

    def __init__(self, shards: Sequence[StreamingSource], seed: int, window: int) -> None:
        self.shards, self.seed, self.window = shards, seed, window
        self._block, self._rows = -1, list[dict[str, Any]]()
        self._endless: Iterator[dict[str, Any]] | None = None

    def row(self, position: int) -> dict[str, Any]:
        block, offset = divmod(position, self.window)
        if self._endless is None or block < self._block:
            self._endless, self._block = self._from(block * self.window), block - 1
        while self._block < block:
            self._rows = list(itertools.islice(self._endless, self.window))
            self._block += 1
        return self._rows[self._order(block)[offset]]

    def place(self, position: int) -> int:
        """Return the place of a row in the unshuffled lane."""
        block, offset = divmod(position, self.window)
        return block * self.window + int(self._order(block)[offset])

    def _from(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from one on, without end. Shards before it are not read, if their sizes
        and that of the lane are known."""
        first, rest = 0, start
        counts = [shard.row_count() for shard in self.shards] if start else []
        known = [count for count in counts if count is not None]
        total: int = sum(known)
        if len(known) == len(counts) and total:
            rest = start % total
            while rest >= known[first]:
                rest -= known[first]
                first += 1
        return itertools.islice(self._again_and_again(first), rest, None)

    def _again_and_again(self, first: int) -> Iterator[dict[str, Any]]:
        while True:
            row: dict[str, Any] | None = None
            for shard in self.shards[first:]:
                for row in shard:
                    yield row
            if row is None and first == 0:
                raise RuntimeFailure(f"{self.shards[0].fingerprint()}: the stream has no row")
            first = 0

    def _order(self, block: int) -> np.ndarray:
        return np.random.default_rng(derive_seed(self.seed, "window", block)).permutation(
            self.window
        )
