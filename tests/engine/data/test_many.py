"""Cells that hold several items: each has the features that it has alone, read or stored."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
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
from sensorium.engine.evaluation import evaluate
from sensorium.engine.evaluation.evaluator import ShuffledStream
from sensorium.engine.inference import Pipeline
from sensorium.engine.inference.pipeline import rows_of
from sensorium.engine.model import FeatureCacher, Model, build, precompute
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Loss, ReadError, Sample, Source
from sensorium.modalities.paths import cache_root
from sensorium.tasks.base import Context, Row, Task
from sensorium.tasks.batch import Batch, Example
from sensorium.tasks.uses import StreamUse

COUNTS = (2, 0, 5, 1, 0, 3)
"""Pictures of each row."""


def picture(row: int, item: int) -> np.ndarray:
    return np.random.default_rng((row, item)).integers(0, 255, (9, 9, 3), np.uint8)


class Bags(Source):
    """Rows of several pictures each, some of none, with their mean brightness."""

    columns = ("image", "light")

    def __init__(self, *, counts: list[int] = [*COUNTS]) -> None:  # noqa: B006
        self.counts = counts

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        items = [picture(index, item) for item in range(self.counts[index])]
        return {"image": items, "light": float(np.mean([i.mean() for i in items] or [0.0]) / 255)}

    def fingerprint(self) -> str:
        return f"bags {self.counts}"


class Sizes:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]]) -> None:
        pairs = zip(predictions, references, strict=True)
        self.errors += [(p["light"] - r["light"]) ** 2 for p, r in pairs]

    def compute(self) -> dict[str, float]:
        return {"error": float(np.mean(self.errors))}


class Light(Task):
    """Predicts the brightness of a bag from the sum of its pictures' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = {"image": StreamUse(many=True)}

    def columns(self) -> tuple[str, ...]:
        return ("light",)

    def prepare(self, row: Row, tools: Any, rng: Any) -> Example:
        light = {"light": row["light"]} if "light" in row else {}
        return Example({k: torch.tensor(v) for k, v in light.items()}, light)

    def bags(self, batch: Batch, ctx: Context) -> Tensor:
        """`[B]` a number of each row."""
        vectors, items = ctx.encode("image").vector(), batch.items["image"]
        rows = torch.arange(len(items)).repeat_interleave(items)
        return vectors.new_zeros(len(items), vectors.shape[1]).index_add(0, rows, vectors).mean(1)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        errors = self.bags(batch, ctx) - batch.label("light", "has no light")
        return Loss(errors.square().sum(), len(batch))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        items = batch.items["image"].tolist()
        made = zip(self.bags(batch, ctx).tolist(), items, strict=True)
        return [{"light": light, "pictures": count} for light, count in made]

    def metrics(self) -> Sizes:
        return Sizes()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"light": 0.5}, {"light": 0.25}]


def recipe(*changes: Mapping[str, Any], shop: Any) -> dict[str, Any]:
    data = {split: {"source": f"{__name__}:Bags"} for split in ("train", "test")}
    task = {"type": f"{__name__}:Light", "data": data}
    base = {
        "inputs": {"image": {"connector": "linear"}},
        "tasks": {"digit": None, "bag": task},
        "train": {"steps": 4, "batch_size": 3},
    }
    found: dict[str, Any] = shop.recipe(base, *changes)
    return found


FROZEN = {"inputs": {"image": {"encoder": {"freeze": True}}}}
PLAIN = {"cache": {"features": False}}


@pytest.fixture
def model(shop: Any) -> Model:
    return build(parse_recipe(recipe(FROZEN, shop=shop)))


def dataset(model: Model, training: bool = False) -> TaskDataset:
    return task_dataset(model.plan, model.encoders(), "bag", Bags(), training=training)


def batch_of(model: Model, rows: TaskDataset, size: int = len(COUNTS)) -> list[Batch]:
    return list(batches({"bag": rows}, sequential_batches(rows, size), model.collator()))


def alone(model: Model, row: int, item: int) -> Tensor:
    """`[T, D]` the encoder's features of one picture by itself."""
    encoder = model.stream("image").encoder.eval()
    reader = dataset(model).readers["image"]
    with torch.no_grad():
        return encoder(**encoder.collate([reader.prepare(picture(row, item))])).tokens[0]


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("stored", ["nothing", "features", "samples"])
def test_items_have_the_features_that_they_have_alone(model: Model, size: int, stored: str) -> None:
    rows = dataset(model)
    if stored != "nothing":
        model.plan.recipe.cache.samples = stored == "samples"
        model.plan.recipe.cache.features = stored == "features"
        FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 4).attach([rows])
        assert rows.readers["image"].cached
    place = 0
    for batch in batch_of(model, rows, size):
        counts = list(COUNTS[place : place + len(batch)])
        assert batch.items["image"].tolist() == counts
        assert batch.has("image")
        with torch.no_grad():
            features = model.eval().context(batch).encode("image.encoder")
            end = model.context(batch).encode("image")
        assert len(features.tokens) == len(end.tokens) == sum(counts)
        assert end.dim == model.stream("image").dim
        expected = [(place + i, item) for i, count in enumerate(counts) for item in range(count)]
        for tokens, (row, item) in zip(features.tokens, expected, strict=True):
            torch.testing.assert_close(tokens, alone(model, row, item), rtol=0, atol=1e-5)
        place += len(batch)


def test_a_batch_without_an_item_runs_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset(model)
    batch = model.collator()("bag", [rows.load(1), rows.load(4)])
    assert batch.items["image"].tolist() == [0, 0] and not batch.features
    monkeypatch.setattr(type(model.stream("image").encoder), "forward", None)
    for point, dim in (("image.encoder", 8), ("image", model.stream("image").dim)):
        features = model.context(batch.to("cpu")).encode(point)
        assert features.tokens.shape == (0, 0, dim) and features.vector().shape == (0, dim)
    model(batch).total.backward()
    connector = model.stream("image").connector
    assert connector is not None
    for parameter in connector.parameters():  # other processes wait for its gradient
        assert parameter.grad is not None and not parameter.grad.any()


def test_an_item_is_stored_once_under_a_key_of_its_own(model: Model) -> None:
    rows = dataset(model)
    FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 4).attach([rows])
    store = rows.readers["image"].features
    assert store is not None and store.folder.is_relative_to(cache_root())
    key = Bags().identity(2, "image")
    assert rows.item_keys("image", 2) == [f"{key}#{item}" for item in range(5)]
    assert all(key in store for key in rows.item_keys("image", 2))
    prepared = rows.load(2)
    assert prepared.count("image") == 5 and not prepared.samples


def test_each_item_is_augmented_by_itself(shop: Any) -> None:
    augment = {"inputs": {"image": {"augment": {"noise": 0.1}}}}
    model = build(parse_recipe(recipe(augment, shop=shop)))
    rows = task_dataset(model.plan, model.encoders(), "bag", Bags(), training=True, augment=True)
    same = dataclasses.replace(rows, source=Same())

    def noise(index: int, epoch: int) -> list[Tensor]:
        return [views["main"]["pixel_values"] for views in same.load(index, epoch).samples["image"]]

    first, second = noise(0, 0)
    assert not torch.equal(first, second)
    assert torch.equal(noise(0, 0)[1], second) and not torch.equal(noise(0, 1)[1], second)


class Same(Bags):
    """Every picture is the same one."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "image": [picture(0, 0)] * 2}


def test_a_row_fails_with_its_item(model: Model) -> None:
    class Broken(Bags):
        def __getitem__(self, index: int) -> dict[str, Any]:
            row = super().__getitem__(index)
            return {**row, "image": [*row["image"], b"none"] if index == 2 else row["image"]}

    rows = task_dataset(model.plan, model.encoders(), "bag", Broken())
    plain = [rows.prepare(i).failure for i in range(len(rows))]
    assert [bool(failure) for failure in plain] == [i == 2 for i in range(6)]
    FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 4).attach([rows])
    assert [rows.prepare(i).failure for i in range(len(rows))] == plain
    (batch,) = batch_of(model, rows)
    assert batch.items["image"].tolist() == [2, 0, 1, 0, 3] and batch.failed[0][0] == "2"


def test_a_cell_that_is_no_list_is_refused(model: Model) -> None:
    rows = task_dataset(model.plan, model.encoders(), "bag", Single())
    assert rows.prepare(0).failure == (
        "<ndarray (9, 9, 3)>: is one value; expected a list of items, which may be empty"
    )
    with pytest.raises(ReadError, match="is one value"):
        cell_items("a.png", True)
    assert list(cell_items(["a", "b"], False)) == [["a", "b"]]


class Single(Bags):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": picture(0, 0), "light": 0.0}


def test_shuffled_cells_keep_their_items(model: Model) -> None:
    rows = dataset(model)
    FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 4).attach([rows])
    shuffled = ShuffledStream(rows.source, "image")
    (batch,) = batch_of(model, dataclasses.replace(rows, source=shuffled))
    counts = [COUNTS[giver] for giver in shuffled.giver]
    assert batch.items["image"].tolist() == counts and counts != list(COUNTS)
    with torch.no_grad():
        features = model.eval().context(batch).encode("image.encoder")
    expected = [(g, item) for g in shuffled.giver for item in range(COUNTS[g])]
    for tokens, (row, item) in zip(features.tokens, expected, strict=True):
        torch.testing.assert_close(tokens, alone(model, row, item), rtol=0, atol=1e-5)


def test_views_are_made_of_each_item(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def views(self: Any, stream: str, sample: Sample, rng: Any) -> dict[str, Sample]:
        return {"a": sample, "b": {k: -v for k, v in sample.items()}}

    monkeypatch.setattr(Light, "views", views)
    rows = dataset(model, training=True)
    batch = model.collator()("bag", [rows.load(1), rows.load(0), rows.load(3)])
    tensors = {view: inputs["pixel_values"] for view, inputs in batch.streams["image"].items()}  # type: ignore[index,call-overload]
    assert torch.equal(tensors["a"], -tensors["b"]) and len(tensors["a"]) == 3


def test_training_evaluation_and_holdout(shop: Any) -> None:
    held = {"tasks": {"bag": {"data": {"train": {"holdout": 0.34}}}}}
    every = {"train": {"validate": {"every": 2}}}
    cached = shop.values(recipe(FROZEN, held, every, shop=shop), "cached")
    without = shop.values(recipe(FROZEN, held, every, PLAIN, shop=shop), "without")
    assert cached == pytest.approx(without, abs=1e-5)
    model = build(parse_recipe(recipe(FROZEN, shop=shop)))
    found = evaluate(model)["bag"]
    assert found["error_image_shuffled"] != found["error"] and found["batch_gap"] < 1e-5


def test_workers_change_nothing(shop: Any) -> None:
    plain = shop.values(recipe(PLAIN, shop=shop), "plain")
    assert shop.values(recipe(PLAIN, {"train": {"num_workers": 2}}, shop=shop), "workers") == plain


def test_the_dry_run_and_the_pipeline(shop: Any) -> None:
    check(parse_recipe(recipe(shop=shop)))
    check(parse_recipe(recipe({"tasks": {"bag": {"data": None}}}, shop=shop)))
    model = build(parse_recipe(recipe(shop=shop)))
    pipeline, bags = Pipeline(model), [Bags()[i]["image"] for i in range(len(COUNTS))]
    together = pipeline.generate("bag", image=bags)
    assert [made["pictures"] for made in together] == list(COUNTS)
    for bag, made in zip(bags, together, strict=True):
        single = pipeline.generate("bag", image=bag)
        assert single["pictures"] == len(bag)
        assert single["light"] == pytest.approx(made["light"], abs=1e-5)


def test_columns_as_rows() -> None:
    assert rows_of({"a": 1, "b": [2, 3]}) == ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], True)
    assert rows_of({"a": [1, 2], "b": 3}, {"a"}) == ([{"a": [1, 2], "b": 3}], False)
    assert rows_of({"a": []}, {"a"}) == ([{"a": []}], False)
    assert rows_of({"a": [[1], []]}, {"a"}) == ([{"a": [1]}, {"a": []}], True)
    with pytest.raises(ConfigError, match="lists of different lengths: a 2, b 3"):
        rows_of({"a": [[1], []], "b": [1, 2, 3]}, {"a"})


@pytest.mark.slow
def test_two_processes_of_which_one_has_no_item(shop: Any) -> None:
    train = {"source": "bags:Bags", "counts": [0, 3, 0, 1, 0, 2, 0, 5]}
    data = {"tasks": {"bag": {"data": {"train": train, "test": None}}}}
    shutil.copy(__file__, shop.folder / "bags.py")
    kind = {"tasks": {"bag": {"type": "bags:Light"}}}
    order = {"train": {"batch_size": 4, "steps": 6}}
    one = recipe(data, kind, order, shop=shop)
    shop.train(one, "one")
    done = shop.go(shop.changed(one, {"train": {"batch_size": 2}}), "two", processes=2)
    assert done.returncode == 0, done.stderr
    found, expected = ([loss for *_, loss in shop.losses(name)] for name in ("two", "one"))
    assert found == pytest.approx(expected, abs=1e-5)


def test_failures_of_the_fill_stay_out_of_the_stores(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset(model)
    real = precompute.prepare_cells

    def away(cells: Any, stream: str) -> list[PreparedRow]:
        return [
            PreparedRow.failed(row.key, OSError("away")) if cell.item == 4 else row
            for cell, row in zip(cells, real(cells, stream), strict=True)
        ]

    monkeypatch.setattr(precompute, "prepare_cells", away)
    FeatureCacher(model.plan, model, torch.device("cpu"), "fp32", 4).attach([rows])
    failures = [rows.prepare(i).failure for i in range(len(rows))]
    assert [i for i, failure in enumerate(failures) if failure] == [2]
    assert "when the cache was filled" in str(failures[2])
