"""python -m sensorium.scripts.benchmarks.language.stream [--megabytes 1000]

A decoder learns from a stream of texts that are generated as they are read, once without a break,
once stopped in the middle and resumed. Printed are the memory of the process as the texts go by,
whether the losses of both are equal, and how many texts the resumed training read again. Expected:
no growth after the first tenth but noise, equal losses, and of a lane at most the window that is
shuffled and the shard that it begins in read again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sensorium.engine.data import ShuffleBuffer
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import Callback, train
from sensorium.engine.utils import read_metrics
from sensorium.modalities.base import StreamingSource

BATCH = 64
POOL = 4_000_000
"""Characters of which every text is a part."""


class Texts(StreamingSource):
    """Texts of `characters` from a pool of random words, in `pieces` shards of `rows` each."""

    columns = ("text",)
    rows_read = 0
    """Of all sources of this class."""

    def __init__(self, *, rows: int, pieces: int, characters: int, first: int = 0) -> None:
        self.rows, self.pieces, self.characters, self.first = rows, pieces, characters, first

    def shards(self) -> Sequence[StreamingSource]:
        sizes = {"rows": self.rows, "pieces": 1, "characters": self.characters}
        return [Texts(**sizes, first=self.first + i * self.rows) for i in range(self.pieces)]

    def row_count(self) -> int:
        return self.rows * self.pieces

    def __iter__(self) -> Iterator[dict[str, Any]]:
        pool = words()
        for number in range(self.first, self.first + self.row_count()):
            Texts.rows_read += 1
            start = int(np.random.default_rng(number).integers(len(pool) - self.characters))
            yield {"text": pool[start : start + self.characters]}

    def fingerprint(self) -> str:
        return f"{self.rows} {self.pieces} {self.characters} {self.first}"


def words(memory: list[str] = []) -> str:  # noqa: B006 - made once
    """Return the pool."""
    if not memory:
        letters = np.random.default_rng(0).choice(list("aeiourstlnm   "), POOL)
        memory.append("".join(letters))
    return memory[0]


class Memory(Callback):
    """Keep the resident megabytes and the rows that were read at each tenth of a training.

    stop_at: the step after which the process is gone.
    """

    seen: list[tuple[int, int, float]] = []
    read: dict[int, int] = {}
    """Rows that were read until the end of a step."""

    def __init__(self, *, stop_at: int = 0) -> None:
        self.stop_at = stop_at

    def on_step_end(self, trainer: Any) -> None:
        Memory.read[trainer.global_step] = Texts.rows_read
        if trainer.global_step % max(1, trainer.settings.steps // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            Memory.seen.append((trainer.global_step, Texts.rows_read, megabytes))
        if trainer.global_step == self.stop_at:
            raise KeyboardInterrupt


def recipe(steps: int, shards: int, rows: int, characters: int, stop_at: int) -> dict[str, Any]:
    source = {
        "source": f"{__name__}:Texts",
        "rows": rows,
        "pieces": shards,
        "characters": characters,
    }
    config = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    backbone = {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"}
    task = {"type": "language_modeling", "max_length": 32, "data": {"train": source}}
    return {
        "backbone": {**backbone, "options": config},
        "tasks": {"language": task},
        "callbacks": [{"type": f"{__name__}:Memory", "stop_at": stop_at}],
        "train": {
            "steps": steps, "batch_size": BATCH, "optimizer": {"type": "adamw", "lr": 1e-3},
            "checkpoint": {"every": max(1, steps // 4)}, "log_every": 1,
        },
    }  # fmt: skip


def main(
    megabytes: Annotated[int, typer.Option(help="of text that pass by")] = 1000,
    characters: Annotated[int, typer.Option(help="of a text")] = 20_000,
    shards: Annotated[int, typer.Option(help="of the stream")] = 160,
) -> dict[str, Any]:
    """Train both; print what they took."""
    total = megabytes * 1_000_000 // characters
    rows, steps = max(1, total // shards), total // BATCH
    with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as name:
        folder, plan = Path(name), (steps, shards, rows, characters)

        def run(out: str, stop_at: int = 0, **options: Any) -> None:
            train(parse_recipe(recipe(*plan, stop_at)), folder / out, show=False, **options)

        Memory.seen.clear()
        run("whole")
        seen, read = list(Memory.seen), dict(Memory.read)
        middle = steps // 2 + 1
        try:
            run("broken", middle)
        except KeyboardInterrupt:
            before = Texts.rows_read
        run("broken", resume=True, allow_changes=["callbacks"])
        second = Texts.rows_read - before
        metrics = [
            [(line["step"], line["loss"]) for line in read_metrics(folder / out)]
            for out in ("whole", "broken")
        ]
    source = Texts(rows=rows, pieces=shards, characters=characters)
    lanes = len(ShuffleBuffer(source, seed=0).lanes)
    begun = (middle - 1) // max(1, steps // 4) * max(1, steps // 4)
    again = second - (read[steps] - read[begun])
    lines = [f"{step:>8}{count:>10}{size:>10.0f}" for step, count, size in seen]
    command = " ".join(["python -m sensorium.scripts.benchmarks.language.stream", *sys.argv[1:]])
    print(f"{command}\n{'step':>8}{'texts':>10}{'MB':>10}", *lines, sep="\n")
    print(f"losses of {steps} steps equal: {metrics[0] == metrics[1]}")
    print(f"resumed at step {begun}: {again} of {read[begun]} texts were read again;", end=" ")
    print(f"a shard has {rows}, there are {lanes} lanes")
    return {"seen": seen, "equal": metrics[0] == metrics[1], "again": again, "rows": rows}


if __name__ == "__main__":
    typer.run(main)
