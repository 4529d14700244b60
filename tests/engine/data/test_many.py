"""Cells that hold several items: each has the features that it has alone, read or stored."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.engine.data import (
    PreparedRow,
    TaskDataset,
    batches,
    cell_items,
    sequential_batches,
    task_dataset,
)
from sensorium.engine.evaluation.evaluator import ShuffledStream
from sensorium.engine.model import FeatureCacher, Model, precompute
from sensorium.modalities.base import ReadError, Sample, Source
from sensorium.modalities.paths import cache_root
from sensorium.tasks.batch import Batch

FROZEN = {"inputs": {"image": {"encoder": {"freeze": True}}}}


@pytest.fixture
def model(bags: Any) -> Any:
    return bags.model(FROZEN)


@pytest.fixture
def rows(bags: Any, model: Model) -> TaskDataset:
    return dataset(model, bags.parts.Bags())


class Changed(Source):
    """Rows with other pictures in some."""

    def __init__(self, source: Source, cells: dict[int, Any]) -> None:
        self.source, self.cells, self.columns = source, cells, source.columns

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.source[index]
        return {**row, "image": self.cells.get(index, row["image"])}

    def fingerprint(self) -> str:
        return f"changed {self.source.fingerprint()}"


def dataset(model: Model, source: Source, **options: Any) -> TaskDataset:
    return task_dataset(model.plan, model.encoders(), "bag", source, **options)


def cache(model: Model, rows: TaskDataset) -> None:
    FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 4).attach([rows])


def batches_of(model: Model, rows: TaskDataset, size: int = 6) -> list[Batch]:
    return list(batches({"bag": rows}, sequential_batches(rows, size), model.collator()))


def assert_alone(model: Model, features: Any, rows: TaskDataset, items: Any) -> None:
    """Features of a batch's items are those of each picture by itself: items are (row, place)."""
    encoder, reader = model.stream("image").encoder.eval(), rows.readers["image"]
    for tokens, (row, item) in zip(features.tokens, items, strict=True):
        sample = reader.prepare(rows.source[row]["image"][item])
        with torch.no_grad():
            alone = encoder(**encoder.collate([sample])).tokens[0]
        torch.testing.assert_close(tokens, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("stored", ["nothing", "features", "samples"])
def test_items_have_the_features_that_they_have_alone(
    bags: Any, model: Model, rows: TaskDataset, size: int, stored: str
) -> None:
    if stored != "nothing":
        model.plan.recipe.cache.samples = stored == "samples"
        model.plan.recipe.cache.features = stored == "features"
        cache(model, rows)
        assert rows.readers["image"].cached
    place = 0
    for batch in batches_of(model, rows, size):
        counts = list(bags.parts.COUNTS[place : place + len(batch)])
        assert batch.items["image"].tolist() == counts and batch.has("image")
        with torch.no_grad():
            features = model.eval().context(batch).encode("image.encoder")
            end = model.context(batch).encode("image")
        assert len(features.tokens) == len(end.tokens) == sum(counts)
        assert end.dim == model.stream("image").dim
        items = [(place + i, item) for i, count in enumerate(counts) for item in range(count)]
        assert_alone(model, features, rows, items)
        place += len(batch)


def test_a_batch_without_an_item_runs_nothing(
    model: Model, rows: TaskDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = model.collator()("bag", [rows.load(1), rows.load(4)])
    assert batch.items["image"].tolist() == [0, 0] and not batch.features
    monkeypatch.setattr(type(model.stream("image").encoder), "forward", None)
    for point, dim in (("image.encoder", 8), ("image", model.stream("image").dim)):
        features = model.context(batch.to("cpu")).encode(point)
        assert features.tokens.shape == (0, 0, dim) and features.pool().shape == (0, dim)
    model(batch).total.backward()
    connector = model.stream("image").connector
    assert connector is not None
    for parameter in connector.parameters():  # other processes wait for its gradient
        assert parameter.grad is not None and not parameter.grad.any()


def test_an_item_is_stored_under_a_key_of_its_own(model: Model, rows: TaskDataset) -> None:
    cache(model, rows)
    store = rows.readers["image"].features
    assert store is not None and store.folder.is_relative_to(cache_root())
    key = rows.source.cell_key(2, "image")
    assert rows.item_keys("image", 2) == [f"{key}#{item}" for item in range(5)]
    assert all(key in store for key in rows.item_keys("image", 2))
    prepared = rows.load(2)
    assert prepared.count("image") == 5 and not prepared.samples


def test_each_item_is_augmented_by_itself(bags: Any) -> None:
    model = bags.model({"inputs": {"image": {"augment": {"noise": 0.1}}}})
    twice = Changed(bags.parts.Bags(), {0: [bags.parts.picture(0, 0)] * 2})
    rows = dataset(model, twice, training=True, augment=True)

    def pixels(epoch: int) -> list[Tensor]:
        return [views["main"]["pixel_values"] for views in rows.load(0, epoch).samples["image"]]

    first, second = pixels(0)
    assert not torch.equal(first, second)
    assert torch.equal(pixels(0)[1], second) and not torch.equal(pixels(1)[1], second)


def test_views_are_made_of_each_item(
    bags: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def views(self: Any, stream: str, sample: Sample, rng: Any) -> dict[str, Sample]:
        return {"a": sample, "b": {k: -v for k, v in sample.items()}}

    monkeypatch.setattr(bags.parts.Light, "views", views)
    rows = dataset(model, bags.parts.Bags(), training=True)
    batch = model.collator()("bag", [rows.load(1), rows.load(0), rows.load(3)])
    tensors: Any = batch.streams["image"]
    a, b = tensors["a"]["pixel_values"], tensors["b"]["pixel_values"]
    assert torch.equal(a, -b) and len(a) == 3


def test_a_row_fails_with_its_item(bags: Any, model: Model) -> None:
    rows = dataset(model, Changed(bags.parts.Bags(), {2: [bags.parts.picture(2, 0), b"none"]}))
    plain = [rows.prepare(i).failure for i in range(len(rows))]
    assert [bool(failure) for failure in plain] == [i == 2 for i in range(6)]
    cache(model, rows)
    assert [rows.prepare(i).failure for i in range(len(rows))] == plain
    (batch,) = batches_of(model, rows)
    assert batch.items["image"].tolist() == [2, 0, 1, 0, 3] and batch.failed[0][0] == "2"


def test_an_item_that_appears_after_the_fill_is_told(
    model: Model, rows: TaskDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = precompute.prepare_cells

    def away(cells: Any, stream: str) -> list[PreparedRow]:
        return [
            PreparedRow.failed(row.key, OSError("away")) if cell.item == 4 else row
            for cell, row in zip(cells, real(cells, stream), strict=True)
        ]

    monkeypatch.setattr(precompute, "prepare_cells", away)
    cache(model, rows)
    failures = [rows.prepare(i).failure for i in range(len(rows))]
    assert [i for i, failure in enumerate(failures) if failure] == [2]
    assert "when the cache was filled" in str(failures[2])


def test_a_cell_that_is_no_list_is_refused(bags: Any, model: Model) -> None:
    rows = dataset(model, Changed(bags.parts.Bags(), {0: np.zeros((9, 9, 3), np.uint8)}))
    assert rows.prepare(0).failure == (
        "<ndarray (9, 9, 3)>: is one value; expected a list of items, which may be empty"
    )
    with pytest.raises(ReadError, match="is one value"):
        cell_items("a.png", True)
    assert list(cell_items(["a", "b"], False)) == [["a", "b"]]


def test_shuffled_cells_keep_their_items(bags: Any, model: Model, rows: TaskDataset) -> None:
    cache(model, rows)
    shuffled, counts = ShuffledStream(rows.source, "image"), bags.parts.COUNTS
    (batch,) = batches_of(model, dataclasses.replace(rows, source=shuffled))
    others = [counts[giver] for giver in shuffled.giver]
    assert batch.items["image"].tolist() == others and others != list(counts)
    with torch.no_grad():
        features = model.eval().context(batch).encode("image.encoder")
    items = [(giver, item) for giver in shuffled.giver for item in range(counts[giver])]
    assert_alone(model, features, rows, items)
