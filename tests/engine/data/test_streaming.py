"""Streams by shards: one order for any number of readers, each of which reads its own shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sensorium.engine.data import BatchSampler, ShuffleBuffer
from sensorium.engine.data.streaming import _Lane
from sensorium.engine.data.where import filtered
from sensorium.engine.data.wrappers import rename
from sensorium.modalities.base import StreamingSource


class Shards(StreamingSource):
    """Rows `{"shard":, "row":}` of shards of given sizes. opened: the shards that were read."""

    columns = ("shard", "row")

    def __init__(self, sizes: Sequence[int], counted: bool = True) -> None:
        self.sizes, self.counted = list(enumerate(sizes)), counted
        self.opened: list[int] = []

    def shards(self) -> Sequence[StreamingSource]:
        parts = []
        for pair in self.sizes:
            part = Shards([], self.counted)
            part.sizes, part.opened = [pair], self.opened
            parts.append(part)
        return parts

    def row_count(self) -> int | None:
        return sum(size for _, size in self.sizes) if self.counted else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for shard, size in self.sizes:
            self.opened.append(shard)
            yield from ({"shard": shard, "row": row} for row in range(size))

    def fingerprint(self) -> str:
        return f"shards {self.sizes}"


def rows_of(source: StreamingSource, process: int, processes: int, steps: int = 6) -> list[Any]:
    """Return the rows that one of several processes reads, `(position, shard, row)`."""
    buffer = ShuffleBuffer(source, 0, batch_size=4)
    sampler = BatchSampler({"t": None}, 4, 0, num_processes=processes, process_index=process)
    read = []
    for _, refs in zip(range(steps * 4 // processes), sampler.batches(), strict=False):
        read += [(ref.row, *buffer[ref.row].values()) for ref in refs]
    return read


@pytest.mark.parametrize("processes", [2, 4])
def test_the_order_does_not_depend_on_the_processes(processes: int) -> None:
    sizes = [600] * 4
    alone = rows_of(Shards(sizes), 0, 1)
    sources = [Shards(sizes) for _ in range(processes)]
    parts = [rows_of(source, i, processes) for i, source in enumerate(sources)]
    assert sorted(row for part in parts for row in part) == sorted(alone)
    opened = [set(source.opened) for source in sources]
    assert all(len(some) == 4 // processes for some in opened)  # each its own shards
    assert set().union(*opened) == {0, 1, 2, 3}


def test_an_epoch_has_every_row_once() -> None:
    buffer = ShuffleBuffer(Shards([512] * 4), 0, batch_size=4)
    rows = [tuple(buffer[index].values()) for index in range(2048)]
    assert sorted(rows) == [(shard, row) for shard in range(4) for row in range(512)]
    assert len({buffer.key(index) for index in range(0, 2048, 16)}) == 128


@pytest.mark.parametrize("counted", [True, False])
def test_going_on_skips_whole_shards(counted: bool) -> None:
    sizes = [700, 10, 700, 900, 300]
    source = Shards(sizes, counted)
    lane, again = (_Lane(each.shards(), 0, 2048) for each in (source, Shards(sizes, counted)))
    rows = [again.row(position) for position in range(6000)]
    assert [lane.row(position) for position in range(4096, 6000)] == rows[4096:]
    assert source.opened[0] == (3 if counted else 0)  # 2610 rows, then 1486 of the next round


def test_wrappers_keep_the_shards() -> None:
    source = filtered(rename(Shards([3, 2]), {"number": "row"}), {"number": {"max": 1}})
    assert isinstance(source, StreamingSource)
    shards = source.shards()
    assert [row for shard in shards for row in shard] == list(source)
    assert len(shards) == 2 and shards[0].row_count() is None
