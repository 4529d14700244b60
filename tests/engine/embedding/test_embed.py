"""Embedding a data set: the same vectors however it is done, no row twice, none lost."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.data import PreparedRow
from sensorium.engine.embedding import (
    embed,
    index_metadata,
    load_run_or_recipe,
    open_data,
    resolve_stream,
)
from sensorium.engine.embedding.data_spec import DataSpec, open_spec
from sensorium.engine.embedding.embed import EmbedReport
from sensorium.engine.embedding.embedder import Embedder, fingerprint
from sensorium.engine.index import open_index
from sensorium.engine.inference import Pipeline
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.modalities.base import Features, StreamingSource

engine = import_module("sensorium.engine.embedding.embed")

FATAL = Path(__file__).with_name("fatal_parts.py")


class Place:
    """A folder with an untrained recipe, and pictures to embed."""

    def __init__(self, shop: Any) -> None:
        self.shop, self.folder = shop, shop.folder
        self.recipe = str(shop.write(self.written(), "recipe"))

    def written(self, **encoder: Any) -> dict[str, Any]:
        part = {"type": "tiny_parts:Tiny", **encoder}
        data = {"test": {"source": "digits", "split": "test", "limit": 30}}
        changes = {"inputs": {"image": {"encoder": part}}, "tasks": {"digit": {"data": data}}}
        result: dict[str, Any] = self.shop.recipe(changes)
        return result

    def pictures(self, numbers: Sequence[int], name: str = "photos") -> Path:
        folder: Path = self.folder / name
        for i in numbers:
            pixels = np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)
            file = folder / ("even" if i % 2 == 0 else "odd") / f"{i:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
        return folder

    def go(
        self, *data: str, out: str = "index", recipe: str | None = None, **how: Any
    ) -> EmbedReport:
        run = recipe or self.recipe
        model = load_run_or_recipe(run)
        rows = open_data(model.plan, "image", data, None, how.pop("split", "test"))
        return embed(model, index_metadata(model, "image", run, ()), rows, out, **how)

    def rows(self, out: str = "index", *columns: str) -> dict[str, Any]:
        """key -> vector and columns; a key that stands twice fails."""
        result: dict[str, Any] = {}
        for row in open_index(out).where(None, ["key", "vector", *columns]):
            assert row["key"] not in result
            result[row.pop("key")] = row
        return result


@pytest.fixture
def place(shop: Any) -> Place:
    shutil.copy(FATAL, shop.folder / FATAL.name)
    return Place(shop)


def same(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float = 0.0) -> None:
    assert set(one) == set(other)
    for key, row in one.items():
        np.testing.assert_allclose(row["vector"], other[key]["vector"], atol=tolerance)
        rest = {k: v for k, v in row.items() if k != "vector"}
        assert rest == {k: v for k, v in other[key].items() if k != "vector"}


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
    said: list[str] = []
    log = type("Log", (), {"info": lambda self, text: said.append(text), "progress": print})()
    done = place.go(str(folder), log=log, batch_size=5)
    assert done.added.new == 12
    assert set(done.skipped.reasons) == {"broken.png", "empty.jpg"}
    assert len(said) == 2
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


@pytest.mark.slow
@pytest.mark.parametrize("forward", [1, 4, 8])
def test_a_killed_run_goes_on(place: Place, forward: int) -> None:
    """Killed in an encoder's forward: what was committed stays, and is not embedded again."""
    recipe = str(place.shop.write(place.written(type="fatal_parts:Fatal"), "fatal"))
    code = (
        "from sensorium.engine.embedding.embed import embed, index_metadata\n"
        "from sensorium.engine.embedding.data_spec import open_data\n"
        "from sensorium.engine.embedding.embedder import load_run_or_recipe\n"
        f"model = load_run_or_recipe({recipe!r})\n"
        "rows = open_data(model.plan, 'image', (), None, 'test')\n"
        f"maker = index_metadata(model, 'image', {recipe!r}, ())\n"
        "embed(model, maker, rows, 'index', batch_size=3, commit_rows=6)\n"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "FATAL": str(forward)}
    place.shop.environment |= environment
    died = place.shop.run(command)
    assert died.returncode == -signal.SIGKILL, died.stderr
    remaining = open_index("index").count()
    assert remaining == (forward - 1) * 3 // 6 * 6
    done = place.go(recipe=recipe, batch_size=3)
    assert (done.already_present, done.added.new, done.added.replaced) == (
        remaining,
        30 - remaining,
        0,
    )
    place.go(recipe=recipe, out="whole", batch_size=3)
    same(place.rows("index", "word"), place.rows("whole", "word"), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.002, 0.01])
def test_a_kill_in_mid_commit_loses_no_row_that_was_there(place: Place, after: float) -> None:
    code = (
        "import os, signal, threading\n"
        "from sensorium.engine.embedding.embed import embed, index_metadata\n"
        "from sensorium.engine.index.lance_index import LanceIndex\n"
        "from sensorium.engine.embedding.data_spec import open_data\n"
        "from sensorium.engine.embedding.embedder import load_run_or_recipe\n"
        f"model = load_run_or_recipe({place.recipe!r})\n"
        "rows = open_data(model.plan, 'image', (), None, 'test')\n"
        "add, calls = LanceIndex.add, []\n"
        "def fatal(self, entries):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        f"        kill = threading.Timer({after}, os.kill, (os.getpid(), signal.SIGKILL))\n"
        "        kill.start()\n"
        "    done = add(self, entries)\n"
        "    if len(calls) == 3:\n"
        "        kill.join()\n"
        "    return done\n"
        "LanceIndex.add = fatal\n"
        f"maker = index_metadata(model, 'image', {place.recipe!r}, ())\n"
        "embed(model, maker, rows, 'index', batch_size=5, commit_rows=5)\n"
    )
    died = place.shop.run([sys.executable, "-c", code])
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert open_index("index").count() in (10, 15)
    place.go(batch_size=5)
    place.go(out="whole", batch_size=5)
    same(place.rows("index", "word"), place.rows("whole", "word"))


def test_another_encoder_is_refused_by_name(place: Place) -> None:
    place.go()
    other = str(place.shop.write(place.written(scale=2.0), "other"))
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
    other = place.shop.write(place.shop.recipe(place.written(), changes), "changed")
    assert fingerprint(load_run_or_recipe(str(other)), "image") != base
    more = {"train": {"steps": 77}, "tasks": {"digit": {"target": "parity"}}}
    like = place.shop.write(place.shop.recipe(place.written(), more), "like")
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


class TestData:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["phots"], "'phots' is no folder or file that exists, and no KEY=VALUE"),
            (["path=photos"], "lacks source=NAME"),
            (["source=imagfolder", "path=photos"], "did you mean 'imagefolder'"),
            (["source=imagefolder pth=photos"], "did you mean 'path'"),
            (["source=digits split=test columns.image=pixels"], "no column 'pixels'"),
            (["source=csv path=t.csv"], "--data: has no column 'image'.*map one with columns"),
            (["picture.gif"], "picture.gif is no table"),
            (["empty"], "no file ends in"),
        ],
    )
    def test_mistakes(self, place: Place, words: list[str], said: str) -> None:
        place.pictures([1])
        (place.folder / "t.csv").write_text("a,b\n1,2\n")
        (place.folder / "picture.gif").touch()
        (place.folder / "empty").mkdir()
        with pytest.raises(ConfigError, match=said) as caught:
            open_data(load_run_or_recipe(place.recipe).plan, "image", words, None, "test")
        assert "\n" not in str(caught.value)

    def test_tables_and_pairs(self, place: Place) -> None:
        folder = place.pictures([1, 2])
        (place.folder / "t.csv").write_text("image,age\nodd/001.png,3\neven/002.png,4\n")
        plan = load_run_or_recipe(place.recipe).plan
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            table = open_data(plan, "image", [str(place.folder / "t.csv")], None, "")
            pairs = ["source=csv", f"path={place.folder / 't.csv'} columns.look=image limit=1"]
            other = open_data(plan, "image", pairs, None, "")
            assert len(open_spec(plan, "image", other.text).source) == 1
        assert [table.source[i]["age"] for i in range(2)] == [3, 4]
        assert len(other.source) == 1
        assert other.source[0]["look"] == "odd/001.png"
        with pytest.raises(ValueError, match=rf"name files of the folder {folder}"):
            open_spec(plan, "image", other.text)

    def test_a_split_that_is_not_there(self, place: Place) -> None:
        plan = load_run_or_recipe(place.recipe).plan
        with pytest.raises(ConfigError, match="no split 'tset'; did you mean 'test'"):
            open_data(plan, "image", (), None, "tset")
        with pytest.raises(ConfigError, match="no 'digits'; did you mean 'digit'"):
            open_data(plan, "image", (), "digits", "test")

    def test_any_files_of_a_modality_without_a_source_of_its_own(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sensorium.engine.embedding import data_spec

        folder = place.pictures([1, 2])
        (folder / ".hidden").touch()
        monkeypatch.setattr(data_spec, "registered", lambda kind: {})
        assert place.go(str(folder)).added.new == 2
        assert place.rows("index", "path")["odd/001.png"]["path"] == str(folder / "odd/001.png")

    def test_streams(self, place: Place) -> None:
        model = load_run_or_recipe(place.recipe)
        assert resolve_stream(model, None) == "image"
        with pytest.raises(ConfigError, match="no 'imag'; did you mean 'image'"):
            resolve_stream(model, "imag")


@pytest.mark.slow
def test_ray_gives_the_same_rows(place: Place) -> None:
    pytest.importorskip("ray")
    from sensorium.engine.embedding.ray_backend import embed_with_ray

    folder = place.pictures(range(20))
    (folder / "broken.png").write_bytes(b"none")
    place.go(str(folder), batch_size=4)
    model = load_run_or_recipe(place.recipe)
    rows = open_data(model.plan, "image", [str(folder)], None, "")
    maker = index_metadata(model, "image", place.recipe, ())
    how: dict[str, Any] = {"batch_size": 4, "commit_rows": 6}
    done = embed_with_ray(model, maker, rows, "cluster", workers=2, **how)
    assert (done.added.new, list(done.skipped.reasons)) == (20, ["broken.png"])
    same(
        place.rows("index", "image", "split", "_identity", "_row", "_data"),
        place.rows("cluster", "image", "split", "_identity", "_row", "_data"),
        1e-6,
    )
    assert dataclasses.asdict(open_index("index").metadata) == dataclasses.asdict(
        open_index("cluster").metadata
    )
    assert embed_with_ray(model, maker, rows, "cluster", **how).already_present == 20


def test_ray_wants_rows_by_index(place: Place) -> None:
    from sensorium.engine.embedding.ray_backend import embed_with_ray

    model = load_run_or_recipe(place.recipe)
    with pytest.raises(ConfigError, match="which a streaming source has not"):
        maker = index_metadata(model, "image", place.recipe, ())
        embed_with_ray(model, maker, DataSpec(Endless(), "", "{}"), "index")


def test_commits_come_by_time_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "COMMIT_SECONDS", -1.0)
    sizes: list[int] = []
    from sensorium.engine.index.lance_index import LanceIndex

    add = LanceIndex.add
    monkeypatch.setattr(
        LanceIndex, "add", lambda self, rows: (sizes.append(len(rows)), add(self, rows))[1]
    )
    place.go(batch_size=10)
    assert [s for s in sizes if s] == [10, 10, 10]


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
        place.shop.train(place.written(), "run")
        load_run_or_recipe("run", changes)
    assert parse_recipe(place.written()).inputs["image"].modality == remaining.modality
