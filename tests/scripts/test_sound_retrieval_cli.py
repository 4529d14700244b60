"""`sensorium embed` and `sensorium retrieve` for sound: a folder of recordings, by words and by
sound."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

soundfile = pytest.importorskip("soundfile")

SOUNDS = {"source": "sounds", "distinct": True}
RECIPE: dict[str, Any] = {
    "inputs": {
        "audio": {
            "modality": "audio",
            "encoder": {
                "type": "logmel_conformer",
                "normalize": "level",
                "dim": 16,
                "depth": 1,
                "heads": 2,
                "kernel": 3,
                "mels": 20,
                "subsample": 8,
            },
            "connector": "mean",
        },
        "caption": {
            "modality": "text",
            "encoder": {
                "type": "transformers",
                "tokenizer": "bytes",
                "config": {
                    "model_type": "bert",
                    "hidden_size": 12,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 12,
                },
            },
            "connector": "mean",
        },
    },
    "tasks": {
        "match": {
            "type": "contrastive",
            "streams": ["audio", "caption"],
            "dim": 12,
            "data": {
                "train": {**SOUNDS, "split": "train", "count": 8},
                "test": {**SOUNDS, "split": "test", "count": 6},
            },
        },
    },
    "train": {"steps": 2, "batch_size": 4, "log_every": 1},
}
FILES = ("a.wav", "b.flac", "deep/c.mp3", "deep/d.ogg")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe, recordings of a user's own in four formats, and a broken one."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    (folder / "tapes" / "deep").mkdir(parents=True)
    for i, name in enumerate(FILES):
        rate = (16_000, 44_100, 22_050, 48_000)[i]
        time = np.arange(rate) / rate
        tone = 0.3 * np.sin(2 * np.pi * 220 * 2**i * time)
        both = np.stack([tone, 0.5 * tone], 1)
        soundfile.write(folder / "tapes" / name, both if i % 2 else tone, rate)
    (folder / "tapes" / "broken.wav").write_bytes(b"no sound at all")
    (folder / "tapes" / "notes.txt").write_text("left alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture
def index(home: Path, run: Run) -> str:
    """The recordings, embedded once by a model that the command line trained."""
    if not Path("index").exists():
        code, _, err = run("train", "tiny.yaml")
        assert code == 0, err
        code, out, err = run("embed", "runs/tiny", "--stream", "audio", "--data", "tapes")
        assert code == 0, err
        assert out.startswith("index: 4 rows embedded")
        assert "1 rows could not be read" in out
        assert err.startswith("broken.wav: ")
        assert "Traceback" not in err
    return "index"


def test_asked_by_words(index: str, run: Run) -> None:
    code, out, err = run("retrieve", index, "--text", "a long low tone", "--json")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["key"] for row in rows} == set(FILES)
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", FILES)
def test_a_recording_finds_itself(index: str, run: Run, name: str) -> None:
    code, out, err = run("retrieve", index, "--audio", f"tapes/{name}", "-k", "1", "--json")
    assert code == 0, err
    row = json.loads(out)
    assert (row["key"], row["score"]) == (name, pytest.approx(1, abs=1e-5))
    assert row["audio"] == str(Path("tapes", name).resolve())


def test_a_page_of_what_was_found(index: str, run: Run) -> None:
    code, _, err = run("retrieve", index, "--audio", "tapes/a.wav", "-k", "2", "--html", "s.html")
    assert code == 0, err
    page = Path("s.html").read_text()
    assert page.count("<li class=") == 2
    assert page.count("<audio controls") == 3  # what was asked, and what was found
    assert "cannot be shown" not in page


def test_a_broken_question_is_one_line(index: str, run: Run) -> None:
    code, out, err = run("retrieve", index, "--audio", "tapes/broken.wav")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "broken.wav" in err


def test_a_second_time_only_what_is_new(index: str, run: Run) -> None:
    code, out, err = run("embed", "runs/tiny", "--stream", "audio", "--data", "tapes")
    assert code == 0, err
    assert "0 rows embedded" in out
    assert "4 were there already" in out


def test_captions_of_a_split_are_found_by_sound(index: str, run: Run) -> None:
    code, out, err = run("embed", "runs/tiny", "--stream", "caption", "--out", "captions")
    assert code == 0, err
    assert "6 rows embedded" in out
    code, out, err = run("retrieve", "captions", "--audio", "tapes/deep/c.mp3", "-k", "6", "--json")
    assert code == 0, err
    assert len({json.loads(line)["caption"] for line in out.splitlines()}) == 6
