"""Embedding a data set: the same vectors however it is done, no row twice, none lost."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.data import PreparedRow
from sensorium.engine.embedding import (
    embed,
    index_metadata,
    load_run_or_recipe,
    open_data,
)
from sensorium.engine.embedding.data_spec import DataSpec, open_spec
from sensorium.engine.embedding.embedder import Embedder, fingerprint
from sensorium.engine.index import open_index
from sensorium.engine.inference import Pipeline
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.modalities.base import Features, StreamingSource
from sensorium.tests.engine.embedding.places import Place, same


def test_a_recipes_split_with_its_columns(place: Place) -> None:
    done = place.go()
    assert (done.added.new, done.added.replaced, len(done.skipped)) == (30, 0, 0)
    rows = place.rows("index", "split", "word", "label")
    plan = load_run_or_recipe(place.recipe).plan
    source = open_spec(plan, "image", open_data(plan, "image", (), None, "test").text)
    pipeline = Pipeline(load_run_or_recipe(place.recipe))
    expected = {
        source.source.key(i): {
            "vector": pipeline.embed(image=[source.source[i]["image"]])[0].numpy(),
            "split": "test",
            "word": source.source[i]["word"],
            "label": source.source[i]["label"],
        }
        for i in range(30)
    }
    same(rows, expected, 1e-6)


@pytest.mark.parametrize("how", [{"batch_size": 1}, {"batch_size": 64}, {"workers": 2}])
def test_batches_and_workers_change_nothing(place: Place, how: dict[str, int]) -> None:
    place.go(batch_size=7, commit_rows=10)
    place.go(out="other", **how)
    same(place.rows(), place.rows("other"), 1e-5)


def test_a_folder_of_pictures(place: Place) -> None:
    folder = place.pictures(range(12))
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no picture")
    messages: list[str] = []
    log = type("Log", (), {"info": lambda self, text: messages.append(text), "progress": print})()
    done = place.go(str(folder), log=log, batch_size=5)
    assert done.added.new == 12
    assert set(done.skipped.reasons) == {"broken.png", "empty.jpg"}
    assert len(messages) == 2
    assert "2 rows could not be read" in done.summary()
    rows = place.rows("index", "image")
    assert rows["odd/003.png"]["image"] == str(folder / "odd/003.png")
    again = place.go(str(folder))
    assert (again.added.new, again.already_present, len(again.skipped)) == (0, 12, 2)


def test_only_what_is_new_or_changed_is_embedded(place: Place) -> None:
    folder = place.pictures(range(8))
    place.go(str(folder))
    before = place.rows()
    version = open_index("index")._table.version  # type: ignore[attr-defined]
    assert place.go(str(folder)).already_present == 8
    assert open_index("index")._table.version == version  # type: ignore[attr-defined]
    place.pictures([8, 9])
    shutil.copy(folder / "odd" / "001.png", folder / "even" / "004.png")
    done = place.go(str(folder))
    assert (done.added.new, done.added.replaced, done.already_present) == (2, 1, 7)
    after = place.rows()
    assert len(after) == 10
    assert after["even/004.png"]["vector"] == before["odd/001.png"]["vector"]
    same(
        {k: v for k, v in after.items() if k in before and "004" not in k},
        {k: v for k, v in before.items() if "004" not in k},
    )


def test_nothing_readable_is_a_failure(place: Place) -> None:
    (place.folder / "photos").mkdir()
    (place.folder / "photos" / "a.png").write_bytes(b"none")
    with pytest.raises(
        RuntimeFailure, match=r"no row could be embedded; 1 failed, the first: a\.png"
    ):
        place.go("photos")


def test_an_embedding_that_is_no_number_is_a_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = Embedder.vectors

    def broken(self: Embedder, groups: Any) -> np.ndarray:
        result = vectors(self, groups)
        result[2] = np.nan
        return result

    monkeypatch.setattr(Embedder, "vectors", broken)
    done = place.go(batch_size=10)
    assert done.added.new == 27
    assert set(done.skipped.reasons.values()) == {"its embedding holds NaN or infinity"}


class Endless(StreamingSource):
    columns = ("image", "number")

    def __iter__(self) -> Any:
        for i in range(23):
            pixels = np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)
            yield {"image": None if i == 5 else pixels, "number": i}

    def fingerprint(self) -> str:
        return "endless"


@pytest.mark.parametrize("workers", [0, 3])
def test_a_stream_is_read_once_and_goes_on(place: Place, workers: int) -> None:
    model = load_run_or_recipe(place.recipe)
    maker, rows = index_metadata(model, "image", "x", ()), DataSpec(Endless(), "", "{}")
    done = embed(model, maker, rows, "index", batch_size=4, workers=workers)
    assert done.added.new == 22
    assert list(done.skipped.reasons) == ["5"]
    assert {r["number"] for r in place.rows("index", "number").values()} == {*range(23)} - {5}
    again = embed(model, maker, rows, "index", workers=workers)
    assert again.added.new == 0


@pytest.mark.parametrize("options", [{"scale": 2.0}, {"dim": 6}])
def test_another_encoder_is_refused_by_name(place: Place, options: dict[str, Any]) -> None:
    place.go()
    other = str(place.runner.write(place.written(**options), "other"))
    with pytest.raises(ConfigError) as caught:
        place.go(recipe=other)
    assert all(n in str(caught.value) for n in ("recipe.yaml", "other.yaml", "'image'"))
    assert len(place.rows()) == 30


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"image": {"encoder": {"scale": 2.0}}}},
        {"inputs": {"image": {"encoder": {"dropout": 0.5}}}},
        {"train": {"seed": 1}},
        {"train": {"precision": "bf16"}},
        {"inputs": {"image": {"connector": "mean"}}},
    ],
)
def test_a_fingerprint_changes_with_what_decides_the_vectors(
    place: Place, changes: dict[str, Any]
) -> None:
    base = fingerprint(load_run_or_recipe(place.recipe), "image")
    assert fingerprint(load_run_or_recipe(place.recipe), "image") == base
    other = place.runner.write(place.runner.recipe(place.written(), changes), "changed")
    assert fingerprint(load_run_or_recipe(str(other)), "image") != base
    more = {"train": {"steps": 77}, "tasks": {"digit": {"target": "parity"}}}
    like = place.runner.write(place.runner.recipe(place.written(), more), "like")
    assert fingerprint(load_run_or_recipe(str(like)), "image") == base


def test_unequal_shapes_are_encoded_apart_where_padding_would_tell(place: Place) -> None:
    model = load_run_or_recipe(place.recipe)
    encoder = model.stream("image").encoder
    encoder.batch_invariant = False
    seen: list[int] = []

    def counted(pixel_values: torch.Tensor) -> Features:
        seen.append(len(pixel_values))
        return Features.dense(pixel_values.flatten(1).unflatten(1, (-1, 8)))

    encoder.forward = counted  # type: ignore[method-assign]
    embedder = Embedder(model, "image", "cpu")
    rows = [
        PreparedRow(
            str(i), samples={"image": [{"main": {"pixel_values": torch.rand(1, 8, width)}}]}
        )
        for i, width in enumerate((8, 16, 8, 16, 8))
    ]
    together = embedder.vectors(embedder.collator("", rows))
    assert seen == [3, 2]
    alone = np.concatenate([embedder.vectors(embedder.collator("", [row])) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_recipe_may_be_changed_and_is_remembered(place: Place) -> None:
    changes = ["inputs.image.encoder.scale=2.0"]
    model = load_run_or_recipe(place.recipe, changes)
    rows = open_data(model.plan, "image", (), None, "test")
    embed(model, index_metadata(model, "image", place.recipe, changes), rows, "index")
    remaining = open_index("index").metadata
    assert remaining.overrides == tuple(changes)
    again = load_run_or_recipe(remaining.run, remaining.overrides)
    assert fingerprint(again, "image") == remaining.fingerprints["image"]
    with pytest.raises(ConfigError, match="is a run and takes no changes"):
        place.runner.train(place.written(), "run")
        load_run_or_recipe("run", changes)
    assert parse_recipe(place.written()).inputs["image"].modality == remaining.modality
