"""Rows over the cache: those that cannot be read, appear later, or are read once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from recipe_changes import train

from sensorium.engine.data import PreparedRow
from sensorium.engine.model import precompute
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.modalities.image import read as image
from sensorium.tests.engine.training.cached.cached_recipes import FROZEN, PLAIN, stores, tiny

SAMPLES = {"cache": {"features": False, "samples": True}}


def pictures(runner: Any, count: int = 12, **more: Any) -> dict[str, Any]:
    """A table of pictures on disk."""
    rng = np.random.default_rng(0)
    lines = ["image,word"]
    for i in range(count):
        path = runner.folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(path)
        lines.append(f"{path},{'ab'[i % 2]}")
    (runner.folder / "rows.csv").write_text("\n".join(lines) + "\n")
    source = {"source": "csv", "path": str(runner.folder / "rows.csv"), **more}
    gone = {"split": None, "limit": None}
    return {"tasks": {"digit": {"data": {"train": {**gone, **source}}}}}


def test_a_kept_sample_is_read_once(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an encoder that trains, with augmentation: that comes after the store."""
    read: list[Any] = []
    real = image.read
    monkeypatch.setattr(image, "read", lambda cell: read.append(cell) or real(cell))
    augment = {"inputs": {"image": {"augment": {"shift": 0.2}}}}
    recipe = runner.recipe(pictures(runner), augment, train(steps=6))
    without = runner.values(recipe, "without")
    assert len(read) == 24  # two epochs of 12
    read.clear()
    assert runner.values(runner.changed(recipe, SAMPLES), "first") == without
    assert len(read) == 12 and len(stores(runner, "samples")) == 1
    read.clear()
    assert runner.values(runner.changed(recipe, SAMPLES), "second") == without
    assert not read
    Image.new("L", (8, 8), 77).save(runner.folder / "3.png")  # a file that changed is read again
    runner.train(runner.changed(recipe, SAMPLES), "third")
    assert read == [str(runner.folder / "3.png")]


def test_rows_that_could_not_be_read_are_skipped_over_the_cache_too(runner: Any) -> None:
    table = pictures(runner, on_error="skip")
    for i in (2, 7):
        (runner.folder / f"{i}.png").write_bytes(b"no picture")
    recipe = runner.recipe(FROZEN, table, train(steps=6))
    cached = runner.values(recipe, "cached")
    without = runner.values(runner.changed(recipe, PLAIN), "without")
    assert cached == pytest.approx(without, abs=1e-5)
    with pytest.raises(
        RuntimeFailure, match=r"tasks\.digit\.data\.train, row rows\.csv#[27]: .*picture"
    ):
        runner.train(runner.changed(recipe, pictures_of(table, on_error="raise")), "raises")


def pictures_of(table: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tasks": {"digit": {"data": {"train": more}}}}


def test_a_row_that_appears_after_the_fill_is_told(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was away for a moment: its rows have no features, and no encoder is there."""
    table = pictures(runner)
    recipe = runner.recipe(FROZEN, table, train(steps=6))
    real = precompute.prepare_cells

    def away(cells: Any, stream: str) -> list[PreparedRow]:
        return [
            PreparedRow.failed(row.key, OSError("away")) if cell.index == 5 else row
            for cell, row in zip(cells, real(cells, stream), strict=True)
        ]

    monkeypatch.setattr(precompute, "prepare_cells", away)
    with pytest.raises(
        RuntimeFailure, match=r"row rows\.csv#5: .*when the cache was filled.*run again"
    ):
        runner.train(recipe, "run")
    monkeypatch.undo()


def test_an_error_in_mid_fill_keeps_what_was_computed(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a kill -9 does too is shown of the store itself, in test_store.py."""
    recipe = runner.recipe(FROZEN, train(steps=3))
    runner.train(runner.recipe(train(steps=0)), "import")
    real, rows = tiny().forward, list[int]()

    def dies(self: Any, pixel_values: Any) -> Any:
        if sum(rows) >= 20:
            raise InterruptedError
        rows.append(len(pixel_values))
        return real(self, pixel_values)

    with monkeypatch.context() as patch:
        patch.setattr(tiny(), "forward", dies)
        with pytest.raises(ConfigError, match=r"inputs\.image: InterruptedError"):
            runner.train(recipe, "cut")
    more: list[int] = []

    def counted(self: Any, pixel_values: Any) -> Any:
        more.append(len(pixel_values))
        return real(self, pixel_values)

    monkeypatch.setattr(tiny(), "forward", counted)
    runner.train(recipe, "again")
    assert (sum(rows), sum(more)) == (20, 20)
