"""Batches of one value of a column: a body region first, then studies inside it."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from sensorium.engine.data import BatchSampler
from sensorium.engine.data.sampler import RowRef
from sensorium.engine.utils import ConfigError

REGIONS = ["head"] * 40 + ["knee"] * 12 + ["spine"] * 9


def schedule(batch_size: int = 4, world: int = 1, rank: int = 0) -> BatchSampler:
    return BatchSampler(
        {"match": len(REGIONS)},
        batch_size,
        seed=3,
        num_processes=world,
        process_index=rank,
        order="single_group",
        column={"match": REGIONS},
    )


def first(sampler: BatchSampler, count: int, start: int = 0) -> list[list[RowRef]]:
    return list(itertools.islice(sampler.batches(start), count))


@pytest.mark.parametrize(("size", "world"), [(4, 1), (4, 2), (9, 1)])
def test_each_batch_is_of_one_value_in_turn(size: int, world: int) -> None:
    apart = [first(schedule(size, world, rank), 30) for rank in range(world)]
    whole = [list(itertools.chain(*shares)) for shares in zip(*apart, strict=True)]
    values = [{REGIONS[a.row] for a in batch} for batch in whole]
    assert all(len(result) == 1 for result in values)
    assert all(len({a.row for a in batch}) == size * world for batch in whole)
    epochs = [a[0].epoch for a in whole]
    for epoch in set(epochs[:-3]):
        seen = [v.pop() for v, e in zip(values, epochs, strict=True) if e == epoch]
        counts = Counter(seen).values()
        if len(seen) >= 3:
            assert max(counts) - min(counts) <= 1
        for turn in range(0, len(seen) - 2, 3):
            assert len(set(seen[turn : turn + 3])) == 3


def test_a_value_comes_round_by_all_its_rows() -> None:
    """Nine spines in batches of four: nobody comes a third time before all came twice."""
    seen = [a.row for b in first(schedule(), 15) for a in b if REGIONS[a.row] == "spine"]
    counts = Counter(seen)
    assert max(counts.values()) - min(counts[r] for r in range(52, 61)) <= 1


@pytest.mark.parametrize(("share", "least"), [(1.0, 15), (0.6, 9), (0.0, 0)])
def test_a_share_of_the_batches_is_of_one_value(share: float, least: int) -> None:
    """61 rows in batches of four make 15; those that are drawn of all are hardly ever of one."""
    sampler = schedule()
    sampler.share = share
    batches = first(sampler, 15)
    pure = sum(len({REGIONS[a.row] for a in batch}) == 1 for batch in batches)
    assert least <= pure <= least + 4
    assert all(len({a.row for a in batch}) == 4 for batch in batches)
    assert first(sampler, 5, start=10) == batches[10:]


def test_epochs_differ_and_going_on_is_arithmetic() -> None:
    built = first(schedule(), 40)
    assert [a.row for b in built[:15] for a in b] != [a.row for b in built[15:30] for a in b]
    assert first(schedule(), 10, start=30) == built[30:]


def test_a_value_with_too_few_rows_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'spine' has 9 rows, .* takes 10 of one value"):
        first(schedule(10), 1)
