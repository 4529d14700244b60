"""Which rows an index holds: of which data set, whether they are still so, and each once."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.engine.embedding import embed, index_metadata, load_run_or_recipe, open_data
from sensorium.engine.embedding.data_spec import DataSpec
from sensorium.engine.embedding.embed import EmbedReport
from sensorium.engine.embedding.ray_backend import embed_with_ray
from sensorium.engine.embedding.retrieve import Retriever
from sensorium.engine.index import open_index
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.modalities.base import Source, StreamingSource


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)


WORD = {"columns": {"word": "image"}}


@pytest.fixture
def recipe(runner: Any) -> str:
    data = {"test": {"source": "imagefolder", "path": "photos", "labels": False, **WORD}}
    return str(runner.write(runner.recipe({"tasks": {"digit": {"data": data}}}), "recipe"))


def go(recipe: str, *data: str, out: str = "index", **how: Any) -> EmbedReport:
    model = load_run_or_recipe(recipe)
    rows = open_data(model.plan, "image", data, None, "test")
    return embed(model, index_metadata(model, "image", recipe, ()), rows, out, **how)


def files(out: str = "index") -> list[str]:
    return sorted(f for row in open_index(out).where(None, ["_files"]) for f in row["_files"])


FOLDERS = {
    "pairs": ["source=imagefolder", "path=photos", "labels=false"],
    "a folder": ["photos"],
    "a table": ["rows.csv"],
    "a table with paths": ["source=csv", "path=rows.csv", "paths=[image]"],
    "a pattern": ["source=csv", "path=[ro*.csv]", "paths=[image]"],
    "a list": ["source=json", "path=[rows.json]", "paths=[image]"],
    "a root": ["source=csv", "path={top}/rows.csv", "paths=[image]", "root=photos/.."],
    "the same table, relative cells": ["{top}/rows.csv"],
    "the recipe's split": [],
}


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("words", FOLDERS.values(), ids=FOLDERS)
def test_two_working_folders_are_two_data_sets(
    recipe: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same relative names in A and in B: every row of both is there, as its own file."""
    out, expected = str(tmp_path / "index"), []
    (tmp_path / "rows.csv").write_text("image\nphotos/0.png\nphotos/1.png\n")
    for number, folder in enumerate(("A", "B")):
        for i in range(2):
            picture(tmp_path / folder / f"photos/{i}.png", 10 * number + i)
            expected.append(str(tmp_path / folder / f"photos/{i}.png"))
        shutil.copy(tmp_path / "rows.csv", tmp_path / folder)
        rows = [{"image": f"photos/{i}.png"} for i in range(2)]
        (tmp_path / folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
        monkeypatch.chdir(tmp_path / folder)
        done = go(recipe, *(word.replace("{top}", str(tmp_path)) for word in words), out=out)
        assert (done.added.new, done.added.replaced, done.stale) == (2, 0, 0)
    assert [os.path.realpath(file) for file in files(out)] == sorted(expected)
    monkeypatch.chdir(tmp_path / "A")
    again = go(recipe, *(word.replace("{top}", str(tmp_path)) for word in words), out=out)
    assert (again.added.new, again.already_present) == (0, 2)
    # What is shown is the row's own file, or nothing: asked in B, of rows of both.
    monkeypatch.chdir(tmp_path / "B")
    retriever = Retriever(out)
    hits = retriever.index.search(np.ones((1, retriever.index.metadata.dim)), 4)[0]
    for hit, shown in zip(hits, retriever.previews(hits), strict=True):
        (file,) = hit.row["_files"]
        assert shown == retriever.show("image", file)


def test_another_section_of_the_same_split_is_another_data_set(recipe: str, runner: Any) -> None:
    for folder in ("photos", "others"):
        picture(runner.folder / folder / "0.png")
    data = {"test": {"source": "imagefolder", "path": "others", "labels": False, **WORD}}
    changed = runner.write(runner.recipe({"tasks": {"digit": {"data": data}}}), "changed")
    go(recipe)
    assert go(str(changed)).added.new == 1
    assert files() == sorted(str(runner.folder / f / "0.png") for f in ("photos", "others"))


class TestStale:
    @pytest.fixture
    def photos(self, runner: Any) -> Path:
        for i in range(5):
            picture(runner.folder / f"photos/{i}.png", i)
        return runner.folder / "photos"

    def test_a_file_that_is_gone(self, recipe: str, photos: Path) -> None:
        assert "gone" not in go(recipe, "photos").summary()
        (photos / "1.png").unlink()
        done = go(recipe, "photos")
        assert (done.already_present, done.stale, done.pruned) == (4, 1, False)
        assert "1 row that is gone or changed: take them out with --prune" in done.summary()
        assert open_index("index").count() == 5
        done = go(recipe, "photos", prune=True)
        assert "took out 1 row that is gone or changed" in done.summary()
        assert files() == [str(photos / f"{i}.png") for i in (0, 2, 3, 4)]
        assert go(recipe, "photos", prune=True).stale == 0

    def test_a_file_that_cannot_be_read_any_more(self, recipe: str, photos: Path) -> None:
        """Its old vector would be found under its name."""
        go(recipe, "photos")
        (photos / "3.png").write_bytes(b"no picture")
        done = go(recipe, "photos", prune=True)
        assert (len(done.skipped), done.stale) == (1, 1)
        assert str(photos / "3.png") not in files()

    def test_a_folder_that_was_moved(self, recipe: str, photos: Path) -> None:
        go(recipe, "photos")
        photos.rename(photos.with_name("moved"))
        done = go(recipe, "moved")
        assert (done.added.new, done.stale) == (5, 5)
        go(recipe, "moved", prune=True)
        assert files() == [str(photos.with_name("moved") / f"{i}.png") for i in range(5)]

    def test_rows_that_a_table_lost(self, recipe: str, photos: Path) -> None:
        lines = [f"photos/{i}.png\n" for i in range(5)]
        Path("t.csv").write_text("".join(["image\n", *lines]))
        go(recipe, "t.csv")
        Path("t.csv").write_text("".join(["image\n", *lines[:3]]))
        done = go(recipe, "t.csv", prune=True)
        assert (done.already_present, done.stale) == (3, 2)
        assert len(files()) == 3

    def test_ray_takes_out_the_same_rows(self, recipe: str, photos: Path) -> None:
        """Where all others are embedded already, no actor is needed."""
        go(recipe, "photos")
        (photos / "1.png").unlink()
        model = load_run_or_recipe(recipe)
        rows = open_data(model.plan, "image", ("photos",), None, "test")
        maker = index_metadata(model, "image", recipe, ())
        done = embed_with_ray(model, maker, rows, "index")
        assert (done.already_present, done.stale, done.pruned) == (4, 1, False)
        done = embed_with_ray(model, maker, rows, "index", prune=True)
        assert (done.stale, done.pruned) == (1, True)
        assert files() == [str(photos / f"{i}.png") for i in (0, 2, 3, 4)]

    def test_other_data_sets_stay(self, recipe: str, photos: Path) -> None:
        picture(Path("others/9.png"))
        go(recipe, "photos")
        go(recipe, "others", prune=True)
        assert open_index("index").count() == 6

    def test_a_row_embedded_now_is_never_stale(
        self, recipe: str, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though its file changed after the rows were listed."""
        pending = import_module("sensorium.engine.embedding.pending").PendingRows
        prepare = pending.prepare

        def late(self: Any, places: Any) -> Any:
            picture(photos / "2.png", 99)
            return prepare(self, places)

        monkeypatch.setattr(pending, "prepare", late)
        done = go(recipe, "photos", prune=True)
        assert (done.added.new, done.stale) == (5, 0)


class Twice(Source):
    """Rows of which two that lie far apart have one key."""

    columns = ("image",)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.full((9, 9, 3), index, np.uint8)}

    def key(self, index: int) -> str:
        return "twice" if index in (3, 37) else str(index)

    def fingerprint(self) -> str:
        return "twice"


class TwiceStream(StreamingSource):
    columns = ("image",)

    def __iter__(self) -> Any:
        return (Twice()[i] for i in range(40))

    def key(self, index: int) -> str:
        return Twice().key(index)

    def fingerprint(self) -> str:
        return "twice"


@pytest.mark.parametrize("source", [Twice(), TwiceStream()])
def test_two_rows_of_one_key_in_two_commits(recipe: str, source: Source) -> None:
    model = load_run_or_recipe(recipe)
    maker, rows = index_metadata(model, "image", recipe, ()), DataSpec(source, "", "{}")
    with pytest.raises(RuntimeFailure, match="rows 3 and 37 are both called 'twice'"):
        embed(model, maker, rows, "index", batch_size=4, commit_rows=8)


def test_ray_within_torchrun(recipe: str, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.engine.embedding.ray_backend import embed_with_ray

    monkeypatch.setenv("WORLD_SIZE", "2")
    model = load_run_or_recipe(recipe)
    maker, rows = index_metadata(model, "image", recipe, ()), DataSpec(Twice(), "", "{}")
    with pytest.raises(ConfigError, match="starts its own processes"):
        embed_with_ray(model, maker, rows, "index")


@pytest.mark.slow
def test_several_processes_share_the_rows(recipe: str, runner: Any) -> None:
    for i in range(13):
        picture(runner.folder / f"photos/{i:02d}.png", i)
    (runner.folder / "photos/05.png").write_bytes(b"no picture")
    command = ["-m", "sensorium", "embed", recipe, "--data", "photos", "--batch-size", "2"]
    command += ["--device", "cpu", "--out", "shared", "--num-workers"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for run, workers in enumerate("10"):
        done = runner.run([sys.executable, *launch, *command, workers])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("rows embedded") == 1
        assert f"{0 if run else 12} rows embedded" in done.stdout
        assert "1 rows could not be read" in done.stdout
    go(recipe, "photos", out="alone")
    rows = [
        {r["key"]: r["vector"] for r in open_index(out).where(None, ["key", "vector"])}
        for out in ("shared", "alone")
    ]
    assert rows[0].keys() == rows[1].keys()
    for key, vector in rows[0].items():
        np.testing.assert_allclose(vector, rows[1][key], atol=1e-6)
