"""The training loop: orders, epochs, streams, and rows that cannot be read."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recipe_changes import train

from sensorium.engine.data import BatchSampler, ShuffleBuffer, streaming
from sensorium.engine.training import trainer
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.modalities.base import StreamingSource

ROWS = 12


def given(source: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Another training split for the task; None takes the old one's keys away."""
    gone = {"split": None, "limit": None}
    return {"tasks": {"digit": {"data": {"train": {**gone, **(source or {})}, **more}}}}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The keys of every batch that training takes, in order."""
    result: list[list[str]] = []
    real = trainer.Trainer.batches

    def batches(self: Any) -> Iterator[Any]:
        for batch in real(self):
            result.append(batch.keys)
            yield batch

    monkeypatch.setattr(trainer.Trainer, "batches", batches)
    return result


@pytest.fixture
def pictures(runner: Any) -> Path:
    """A folder of 12 pictures, dark or light, and `rows.jsonl` that names them."""
    folder = Path(runner.folder / "pictures")
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for i in range(ROWS):
        light = i % 3 == 0
        pixels = rng.integers(0, 128, (8, 8)) + 127 * light
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        row = {"image": str(folder / f"{i}.png"), "word": "light" if light else "dark", "size": i}
        lines.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def table(pictures: Path, **more: Any) -> dict[str, Any]:
    return given({"source": "json", "path": str(pictures / "rows.jsonl"), **more})


def test_an_epoch_takes_every_row_once_and_the_next_another_order(
    runner: Any, seen: list[list[str]]
) -> None:
    runner.train(runner.recipe(train(steps=20)), "run")  # two epochs of 40 rows
    first, second = itertools.chain(*seen[:10]), itertools.chain(*seen[10:])
    one, two = list(first), list(second)
    assert len(set(one)) == 40 and sorted(one) == sorted(two) and one != two


def test_fewer_rows_than_a_batch_come_again(runner: Any, seen: list[list[str]]) -> None:
    runner.train(runner.recipe(given({"split": "train", "limit": 3}), train(steps=4)), "run")
    assert len(runner.losses("run")) == 4
    for keys in seen:
        assert len(keys) == 4 and len(set(keys)) == 3


def test_no_steps_is_a_run_that_learned_nothing(runner: Any) -> None:
    import sensorium.engine.checkpoint.run_folder

    runner.train(runner.recipe(train(steps=0)), "run")
    assert (
        sensorium.engine.checkpoint.run_folder.load_model(runner.folder / "run").device.type
        == "cpu"
    )


def test_by_length_puts_rows_of_like_length_together(
    runner: Any, pictures: Path, seen: list[list[str]]
) -> None:
    recipe = runner.recipe(
        table(pictures), train(steps=3, sampler={"type": "length", "column": "size"})
    )
    runner.train(recipe, "run")
    sizes = [sorted(int(key.partition("#")[2]) for key in keys) for keys in seen]
    assert sorted(sizes) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_balanced_gives_every_value_equally_often(
    runner: Any, pictures: Path, seen: list[list[str]]
) -> None:
    recipe = runner.recipe(
        table(pictures), train(steps=3, sampler={"type": "balanced", "column": "word"})
    )
    runner.train(recipe, "run")
    rows = [int(key.partition("#")[2]) for keys in seen for key in keys]
    assert Counter(row % 3 == 0 for row in rows) == {True: 6, False: 6}
    assert len({row for row in rows if row % 3}) == 6  # of the common ones, none twice


def test_the_mix_of_tasks_is_what_was_asked_for() -> None:
    schedule = BatchSampler(
        {"a": 100, "b": 100}, 4, 0, task_weight=lambda name, step: 3.0 if name == "a" else 1.0
    )
    drawn = Counter(schedule.task(step) for step in range(4000))
    assert drawn["a"] / 4000 == pytest.approx(0.75, abs=0.03)


def stream(pictures: Path) -> dict[str, Any]:
    """The same rows, as a stream without a length."""
    folder = pictures / "hub"
    folder.mkdir(exist_ok=True)
    (folder / "train.jsonl").write_text((pictures / "rows.jsonl").read_text())
    return given({"source": "hub", "path": str(folder), "split": "train", "streaming": True})


def shards(pictures: Path) -> dict[str, Any]:
    """The same rows, in a tar file."""
    import io
    import tarfile

    with tarfile.open(pictures / "rows.tar", "w") as tar:
        for i, line in enumerate((pictures / "rows.jsonl").read_text().splitlines()):
            row = json.loads(line)
            for name, content in (
                (f"{i:03}.png", Path(row["image"]).read_bytes()),
                (f"{i:03}.txt", row["word"].encode()),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    columns = {"image": "png", "word": "txt"}
    return given({"source": "webdataset", "path": str(pictures / "rows.tar"), "columns": columns})


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("form", [stream, shards])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_trains_and_resumes(
    runner: Any, pictures: Path, form: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In windows that are smaller than the stream, and go on over its end."""
    monkeypatch.setattr(streaming, "WINDOW", 8)
    augment = {"inputs": {"image": {"augment": {"noise": 0.1}, "encoder": {"dropout": 0.1}}}}
    recipe = runner.recipe(
        form(pictures), augment, train(steps=8, num_workers=workers, checkpoint={"every": 5})
    )
    whole = runner.values(recipe, "whole")
    assert whole == runner.values(runner.changed(recipe, train(num_workers=1)), "other")
    runner.cut(recipe, "cut", 7)
    runner.train(recipe, "cut", resume=True)
    assert [loss for _, _, loss in runner.losses("cut")] == whole


def test_a_frozen_encoder_over_a_stream_is_run_and_not_cached(runner: Any, pictures: Path) -> None:
    frozen = {"inputs": {"image": {"encoder": {"freeze": True}}}, "cache": {"samples": True}}
    recipe = runner.recipe(stream(pictures), frozen, train(steps=2))
    assert len(runner.values(recipe, "run")) == 2
    assert not (runner.folder / "cache").exists()


class Counted(StreamingSource):
    """Numbers from 0; how often it was begun is counted."""

    columns = ("n",)

    def __init__(self, length: int) -> None:
        self.length, self.begun = length, 0

    def __iter__(self) -> Any:
        self.begun += 1
        return ({"n": n} for n in range(self.length))

    def fingerprint(self) -> str:
        return str(self.length)


def test_a_window_is_shuffled_and_nothing_is_lost_or_read_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "WINDOW", 5)
    source = Counted(10)
    rows = ShuffleBuffer(source, seed=0)
    taken = [rows[i]["n"] for i in range(20)]
    assert sorted(taken[:5]) == [0, 1, 2, 3, 4] and sorted(taken[5:10]) == [5, 6, 7, 8, 9]
    assert sorted(taken[10:]) == list(range(10)) and taken[:10] != taken[10:]
    assert source.begun == 2
    again = ShuffleBuffer(source, seed=0)
    assert [again[i]["n"] for i in range(13, 20)] == taken[13:]  # as a resumed run begins


def test_a_stream_without_rows_is_refused(runner: Any) -> None:
    with pytest.raises(RuntimeFailure, match="stream has no row"):
        ShuffleBuffer(Counted(0), seed=0)[0]


def test_an_order_of_a_stream_is_refused(runner: Any, pictures: Path) -> None:
    recipe = runner.recipe(
        stream(pictures), train(steps=1, sampler={"type": "length", "column": "word"})
    )
    with pytest.raises(ConfigError, match=r"train\.sampler: length .*tasks\.digit.*stream.*limit"):
        runner.train(recipe, "run")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_cannot_be_read_is_fatal_or_skipped_as_asked(
    runner: Any, pictures: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "4.png").write_bytes(b"no picture")
    (pictures / "7.png").unlink()
    recipe = runner.recipe(table(pictures), train(steps=6, num_workers=workers))
    with pytest.raises(
        RuntimeFailure, match=r"tasks\.digit\.data\.train, row rows\.jsonl#[47]: .*skip"
    ):
        runner.train(recipe, "stops")
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import train as run

    skipping = runner.changed(recipe, table(pictures, on_error="skip"))
    with caplog.at_level("INFO", "sensorium"):
        run(parse_recipe(skipping), runner.folder / "goes", show=True)
    messages = caplog.messages
    assert (
        len([line for line in messages if "rows.jsonl#4" in line]) == 1
    )  # told once, in two epochs
    assert len([line for line in messages if "rows.jsonl#7" in line]) == 1
    assert any(line.startswith("2 rows could not be read and were skipped: ") for line in messages)


def test_steps_without_a_row_change_nothing_and_the_run_fails(
    runner: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(ROWS):
        (pictures / f"{i}.png").write_bytes(b"")
    decay = train(steps=3, optimizer={"weight_decay": 0.1})
    recipe = runner.recipe(table(pictures, on_error="skip"), decay)
    untouched = runner.train(runner.changed(recipe, train(steps=0)), "before")
    models = []
    update = trainer.Trainer.update

    def spied(run: trainer.Trainer, totals: Any) -> None:
        update(run, totals)
        models.append(run.model)

    monkeypatch.setattr(trainer.Trainer, "update", spied)
    with pytest.raises(RuntimeFailure, match="no row could be learned from"):
        runner.train(recipe, "run")
    assert len(models) == 3
    for one, other in zip(models[-1].parameters(), untouched.parameters(), strict=True):
        assert torch.equal(one, other)


def test_one_process_may_train_in_one_precision_and_then_in_another(runner: Any) -> None:
    def values(precision: str, name: str) -> Any:
        return runner.values(runner.recipe(train(steps=2, precision=precision)), name)

    first, other, again = values("fp32", "a"), values("bf16", "b"), values("fp32", "c")
    assert first == again != other
