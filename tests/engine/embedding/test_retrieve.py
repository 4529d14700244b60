"""Asking an index: by any stream of the run that made it, and by no other run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from markupsafe import Markup
from PIL import Image
from safetensors.torch import save_file

from sensorium.engine.embedding import (
    Retriever,
    embed,
    format_hits,
    hits_to_jsonl,
    index_metadata,
    load_run_or_recipe,
    open_data,
    parse_query,
    write_sheet,
)
from sensorium.engine.embedding.retrieve import Query
from sensorium.engine.index import Hit, open_index
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import ReadError

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
WORDS = ["a red square", "two blue circles", "the robot", "an X-ray of a hand"]


def checkpoint(folder: Path, seed: int) -> str:
    """A random model in open_clip's own format; gives its name."""
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def recipe(folder: Path, name: str, both: str) -> str:
    """Two towers that share a space. The task only brings them into one recipe."""
    encoder = {"type": "open_clip", "name": both, "freeze": True}
    values = {
        "inputs": {
            "image": {"modality": "image", "encoder": {**encoder, "output": "embedding"}},
            "words": {"modality": "text", "encoder": encoder, "connector": "cls"},
        },
        "tasks": {"match": {"type": "contrastive", "streams": ["image", "words"], "dim": 24}},
    }
    path = folder / name
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures, two pairs of towers, an index of pictures and one of texts."""
    folder = tmp_path_factory.mktemp("retrieve")
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (5, 7, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((70, 50))
        file = folder / "photos" / f"{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        picture.save(file)
    (folder / "notes.jsonl").write_text(
        "".join(json.dumps({"words": w, "study": i}) + "\n" for i, w in enumerate(WORDS))
    )
    run = recipe(folder, "one.yaml", checkpoint(folder / "clip", 0))
    recipe(folder, "two.yaml", checkpoint(folder / "other", 1))
    model = load_run_or_recipe(run)
    for stream, data, out in (
        ("image", folder / "photos", "pictures"),
        ("words", folder / "notes.jsonl", "texts"),
    ):
        rows = open_data(model.plan, stream, [str(data)], None, "")
        embed(model, index_metadata(model, stream, run, ()), rows, str(folder / out))
    return folder


@pytest.fixture(scope="module")
def clip(home: Path) -> tuple[np.ndarray, np.ndarray]:
    """What open_clip itself gives: pictures `[8, 24]` and texts `[4, 24]`, of unit length."""
    name = f"local-dir:{home / 'clip'}"
    model, _, prepare = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(WORDS)
    files = sorted((home / "photos").iterdir())
    with torch.no_grad():
        seen = model.eval().encode_image(
            torch.stack([prepare(Image.open(f)) for f in files]), normalize=True
        )
        return seen.numpy(), model.encode_text(tokens, normalize=True).numpy()


def stored(place: Path) -> np.ndarray:
    rows = sorted(open_index(str(place)).where(None, ["key", "vector"]), key=lambda r: r["key"])
    return np.array([row["vector"] for row in rows], np.float32)


def test_vectors_are_open_clips(home: Path, clip: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(stored(home / "pictures"), clip[0], atol=1e-5)
    np.testing.assert_allclose(stored(home / "texts"), clip[1], atol=1e-5)


def test_words_find_pictures(home: Path, clip: tuple[np.ndarray, np.ndarray]) -> None:
    retriever = Retriever(str(home / "pictures"))
    for text, scores in zip(WORDS, clip[1] @ clip[0].T, strict=True):
        hits = retriever.find(Query("text", text, "--text", True), 5)
        assert [hit.key for hit in hits] == [f"{i}.jpg" for i in np.argsort(-scores)[:5]]
        np.testing.assert_allclose([h.score for h in hits], np.sort(scores)[::-1][:5], atol=1e-5)


def test_pictures_find_words(home: Path, clip: tuple[np.ndarray, np.ndarray]) -> None:
    retriever = Retriever(str(home / "texts"))
    query = Query("image", str(home / "photos" / "3.jpg"), "--image", True)
    best = int(np.argmax(clip[1] @ clip[0][3]))
    assert retriever.find(query, 1)[0].columns()["words"] == WORDS[best]
    only = retriever.find(query, 3, where="study = 2", kind="hnsw")
    assert [hit.columns()["study"] for hit in only] == [2]


def test_a_picture_finds_itself(home: Path) -> None:
    for kind in ("exact", "hnsw", "ivf"):
        query = Query("image", str(home / "photos" / "6.jpg"), "--query")
        (hit,) = Retriever(str(home / "pictures")).find(query, 1, kind=kind)
        assert (hit.key, hit.score) == ("6.jpg", pytest.approx(1, abs=0.02))  # ivf: 8 bit


def ask(home: Path, *, index: str = "pictures", run: str | None = None, **query: Any) -> list[Hit]:
    how = {name: query.pop(name) for name in ("k", "where", "kind") if name in query}
    requested = Query(
        **{"stream": "text", "value": "x", "option": "--text", "modality": True, **query}
    )
    return Retriever(str(home / index), run).find(requested, how.pop("k", 3), **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"value": ""}, "--text: the query is empty"),
        ({"value": " \n"}, "--text: the query is empty"),
        ({"where": "study = 1"}, "no column 'study'"),
        ({"where": " "}, "--where: the condition is empty"),
        ({"k": 0}, "-k: found 0, expected at least 1"),
        ({"k": -2}, "-k: found -2"),
        ({"kind": "hsnw"}, "did you mean 'hnsw'"),
        ({"index": "none"}, "there is no index here"),
        (
            {"stream": "audio", "option": "--audio"},
            r"has 0 streams of audio; it has image \(image\), w",
        ),
        ({"stream": "wrds", "modality": False}, "no stream 'wrds'; did you mean 'words'"),
    ],
)
def test_mistakes_are_one_line(home: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ask(home, **how)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(home: Path) -> None:
    with pytest.raises(ReadError, match=r"none\.jpg"):
        ask(home, stream="image", value="none.jpg", option="--image")


def test_another_run_is_refused_by_name(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(home, run=str(home / "two.yaml"))
    assert all(name in str(caught.value) for name in ("one.yaml", "two.yaml", "'image'"))


def test_a_run_whose_query_tower_has_changed_is_refused(home: Path, tmp_path: Path) -> None:
    """The same pictures' tower with another text tower: the vectors of the index still fit."""
    values = yaml.safe_load((home / "one.yaml").read_text())
    values["inputs"]["words"]["encoder"]["name"] = f"local-dir:{home / 'other'}"
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(values))
    mixed = str(tmp_path / "mixed.yaml")
    picture = str(home / "photos" / "1.jpg")
    assert ask(home, run=mixed, stream="image", value=picture, option="--image")[0].key == "1.jpg"
    with pytest.raises(ConfigError, match="whose stream 'words'"):
        ask(home, run=mixed)


def test_a_run_that_has_moved_is_named(home: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.yaml"
    shutil.copy(home / "one.yaml", moved)
    assert [h.key for h in ask(home, run=str(moved))] == [h.key for h in ask(home)]


@pytest.mark.parametrize(
    ("options", "named", "message"),
    [
        ({}, None, "found 0 queries, expected one: --text, --mri, --query"),
        ({"text": "a", "mri": "b"}, None, "found 2 queries"),
        ({"text": "a"}, "words=b", "found 2 queries"),
        ({}, "words", "found 'words', expected STREAM=VALUE"),
    ],
)
def test_one_query_at_a_time(options: dict[str, str], named: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_query(options, {"text": "text", "mri": "mri"}, named)


def test_options_are_modalities_and_query_a_stream() -> None:
    modalities = {"text": "text", "mri": "mri"}
    volume = parse_query({"mri": "a.nii"}, modalities, None)
    assert (volume.stream, volume.value, volume.modality) == ("mri", "a.nii", True)
    named = parse_query({}, modalities, "words=a=b")
    assert (named.stream, named.value, named.modality) == ("words", "a=b", False)


class TestSheet:
    @pytest.fixture
    def page(self, home: Path, tmp_path: Path) -> Callable[[str, Query], str]:
        def make(index: str, query: Query) -> str:
            retriever = Retriever(str(home / index))
            hits = retriever.find(query, 3)
            shown = retriever.previews(hits)
            path = tmp_path / "deep" / "sheet.html"
            write_sheet(path, hits, shown, title="<b>", query=Markup("<i>q</i>"), note="<&>")
            return path.read_text()

        return make

    def test_pictures(self, page: Callable[[str, Query], str]) -> None:
        html = page("pictures", Query("text", WORDS[0], "--text", True))
        assert html.count("data:image/png;base64,") == 3
        assert "<i>q</i>" in html
        assert "&lt;b&gt;" in html
        assert "&lt;&amp;&gt;" in html
        assert "http" not in html.replace("http-equiv", "")

    def test_texts(self, page: Callable[[str, Query], str]) -> None:
        html = page("texts", Query("words", WORDS[2], "--query"))
        assert all(word in html for word in WORDS[2].split())

    def test_what_cannot_be_shown_says_why(self, home: Path) -> None:
        retriever = Retriever(str(home / "pictures"))
        hits = retriever.find(Query("text", "x", "--text", True), 1)
        gone = Hit(1.0, {**hits[0].row, "image": "gone.jpg", "_files": ["/gone.jpg"]})
        moved = Hit(1.0, {**hits[0].row, "image": None, "_row": 5, "key": "1.jpg"})
        opened = Hit(1.0, {**hits[0].row, "image": None})
        (first, second, third) = retriever.previews([gone, moved, opened])
        assert "gone.jpg" in first
        assert "cannot be shown" in first
        assert second == "it cannot be shown here: the data set has changed since it was embedded"
        assert "<img" in third


def test_tables_and_lines() -> None:
    index_columns = {"split": "", "_data": "{}", "_row": 0, "_identity": b""}
    hits = [
        Hit(0.5, {"key": "a", **index_columns, "age": 3, "word": None}),
        Hit(-0.25, {"key": "b", **index_columns, "age": None, "word": "né " * 40, "split": "test"}),
    ]
    rows = [json.loads(line) for line in hits_to_jsonl(hits).splitlines()]
    assert rows[0] == {"rank": 1, "score": 0.5, "key": "a", "age": 3}
    assert rows[1]["word"] == "né " * 40
    head, first, second = format_hits(hits).splitlines()
    assert head.split() == ["score", "key", "age", "split", "word"]
    assert first.split() == ["1", "0.5000", "a", "3"]
    assert second.endswith("…")
    assert len(second) < 100
    assert (format_hits([]), hits_to_jsonl([])) == ("no row was found", "")
