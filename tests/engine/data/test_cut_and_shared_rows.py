"""Texts that are cut in workers are counted where they are reported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.data import (
    Collator,
    RowList,
    ShuffleBuffer,
    SkippedRows,
    Subset,
    TaskDataset,
    batches,
    limit,
    sequential_batches,
)  # fmt: skip
from sensorium.engine.data.dataset import StreamReader
from sensorium.engine.data.holdout import hold_out
from sensorium.engine.data.where import filtered
from sensorium.engine.recipe import Holdout
from sensorium.engine.training.batches import rows_of_both_sides
from sensorium.modalities.base import Encoder, Source, StreamingSource
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text_processor import TextProcessor
from sensorium.tasks.base import Task
from sensorium.tasks.batch import Example
from sensorium.tasks.uses import StreamUse

TEXTS = ["short", "a text that is far too long", "x", "another one that is too long", "y"] * 2


class Reads(Task):
    streams = {"text": StreamUse()}

    def columns(self) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Any, tools: Any, rng: Any) -> Example:
        return Example()


class Ids(Encoder):
    def collate(self, samples: Any) -> dict[str, torch.Tensor]:
        return {"ids": torch.nn.utils.rnn.pad_sequence([s["ids"] for s in samples], True)}


@pytest.mark.filterwarnings("ignore:text")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_cut_texts_are_counted_once_over_all_workers(workers: int) -> None:
    reader = StreamReader(str, TextProcessor(Bytes(), 12))
    rows = TaskDataset(RowList([{"text": text} for text in TEXTS]), {"text": reader}, "it", Reads())
    skipped = SkippedRows()
    for _ in range(2):  # two epochs
        refs = sequential_batches(rows, 3)
        for batch in batches({"it": rows}, refs, Collator({"text": Ids()}), workers):
            skipped.add_cut(batch)
    other = ["it 1", "it 99"]  # of another process, which read one of the rows too
    (line,) = skipped.lines(lambda mine: [*mine, *other])
    assert line.startswith("text: 5 rows have a text that is longer")
    assert SkippedRows().lines(list) == []


def test_inputs_that_one_task_holds_out_and_another_trains_on_are_counted() -> None:
    """Two tasks on one file: equal holdouts part it alike, others do not."""
    source = RowList([{"text": str(number)} for number in range(40)])
    reader = StreamReader(str, TextProcessor(Bytes(), 12))

    def tasks(*shares: float) -> list[str]:
        parts = [hold_out(source, Holdout(share=share), "d", skip=False) for share in shares]
        training, held = (
            {
                name: TaskDataset(part[side], {"text": reader}, name, Reads())
                for name, part in zip("ab", parts, strict=True)
            }
            for side in (0, 1)
        )
        return list(rows_of_both_sides(training, held))

    assert tasks(0.25, 0.25) == []
    (line,) = tasks(0.25, 0.5)
    assert line.startswith("tasks.a.data.train: 10 of its rows have a text that tasks.b is")


class Shards(StreamingSource):
    """Streams of a text a shard."""

    columns = ("text",)

    def __init__(self, names: str) -> None:
        self.names = names

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([{"text": name} for name in self.names])

    def shards(self) -> list[Shards]:
        return [Shards(name) for name in self.names]

    def fingerprint(self) -> str:
        return f"shards {self.names}"


ROWS = RowList([{"text": str(number)} for number in range(40)])
SPLITS: list[tuple[Source, Source, str | None]] = [
    # The two splits of one task, and the start of the line about them.
    (Subset(ROWS, np.arange(30)), Subset(ROWS, np.arange(30, 40)), None),
    (Subset(ROWS, np.arange(30)), Subset(ROWS, np.arange(25, 40)), "5 of its rows have a text"),
    (ROWS, ROWS, "40 of its rows have a text"),
    (ShuffleBuffer(Shards("abc"), 0), limit(Shards("d"), 2), None),
    (ShuffleBuffer(Shards("abc"), 0), limit(Shards("abc"), 2), "3 of its 3 shards hold the text"),
    (ShuffleBuffer(Shards("abc"), 0), Shards("cd"), "1 of its 3 shards hold the text"),
    (ShuffleBuffer(filtered(Shards("abc"), {"text": ["a"]}), 0), Shards("abc"), None),
    (ShuffleBuffer(Shards("abc"), 0), ROWS, None),
]


@pytest.mark.parametrize(("training", "held", "shared"), SPLITS)
def test_splits_of_one_task_that_share_rows_or_shards_are_told(
    training: Source, held: Source, shared: str | None
) -> None:
    reader = StreamReader(str, TextProcessor(Bytes(), 12))
    rows, held_rows = (
        {"a": TaskDataset(s, {"text": reader}, "a", Reads())} for s in (training, held)
    )
    lines = list(rows_of_both_sides(rows, held_rows))
    assert len(lines) == (shared is not None)
    assert all(line.startswith(f"tasks.a.data.train: {shared} that tasks.a is") for line in lines)
    assert not list(rows_of_both_sides(rows, held_rows, parted=["a"]))
