"""Which encoder of sounds, and which layer: probes and ABX of planted tones, and a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sensorium.engine.evaluation.analyses import Subject, analyze
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.tests.scripts.test_insight import run

soundfile = pytest.importorskip("soundfile")
SMALL = {"dim": 16, "depth": 1, "heads": 2, "mels": 24, "expand": 1, "normalize": "level"}
RECIPE: dict[str, Any] = {
    "inputs": {
        "audio": {
            "modality": "audio",
            "encoder": {"type": "logmel_conformer", "freeze": True, **SMALL},
        }
    },
    "tasks": {
        "tone": {
            "type": "classification",
            "input": "audio",
            "target": "class",
            "data": {s: {"source": "audiofolder", "path": "tones"} for s in ("train", "test")},
        }
    },
    "train": {"steps": 2, "batch_size": 8},
}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for name, pitch in (("high", 3000), ("low", 300)):
        (folder / "tones" / name).mkdir(parents=True)
        for i in range(8):
            time = np.arange(4000 + 100 * i) / 16000
            wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.normal(size=len(time))
            soundfile.write(folder / "tones" / name / f"{i}.wav", wave, 16000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def subject(home: Path) -> Subject:
    return Subject.of(build(parse_recipe(RECIPE)))


@pytest.mark.parametrize(
    ("name", "options", "score"),
    [
        ("probe", {}, "score"),
        ("abx", {}, "abx"),
        ("abx", {"distance": "warped"}, "abx"),
    ],
)
def test_planted_tones_are_told_apart_at_every_layer(
    subject: Subject, name: str, options: dict[str, Any], score: str
) -> None:
    rows = analyze(subject, name, options)
    assert [row["layer"] for row in rows] == ["layer 0", "output"]
    assert all(row[score] > 0.85 for row in rows)


def test_labels_without_meaning_are_at_chance(subject: Subject) -> None:
    rows = analyze(subject, "probe", {})
    assert all(row["shuffled"] < row["score"] for row in rows)


def test_groups_are_compared_at_every_layer(subject: Subject) -> None:
    rows = analyze(subject, "groups", {"by": "class"})
    assert [(row["first"], row["second"]) for row in rows] == [("high", "low")] * 2
    assert all(-1 <= row["cosine"] <= 1 + 1e-9 for row in rows)


def test_one_recipe_over_several_encoders_of_sound(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "tone.yaml").write_text(yaml.safe_dump(RECIPE))
    sections = ("logmel_conformer", "torchaudio_conformer")
    common = "dim: 16, depth: 1, heads: 2, mels: 24"
    values = ",".join(f"{{type: {name}, {common}}}" for name in sections)
    words = ["sweep", "tone.yaml", f"inputs.audio.encoder={values}", "--quiet", "--json"]
    assert run(*words, "--out", "runs/tones") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2
    for name, row in zip(sections, rows, strict=True):
        assert name in row["cell"]["inputs.audio.encoder"]
        assert 0 <= row["scores"]["tone/accuracy"] <= 1


@pytest.mark.slow
def test_units_of_tones_are_told_apart(home: Path) -> None:
    """The ABX of units, compared as sequences, and of classes that are none as a control."""
    encoder = {"type": "logmel_conformer", "weights": "none", **SMALL}
    units = {"type": "tokens", "tokenizer": {"type": "units", "codes": 8, "encoder": encoder}}
    recipe = {
        **RECIPE,
        "inputs": {"audio": {"modality": "audio", "encoder": {**units, "freeze": True}}},
    }
    scores = []
    for shuffled in (False, True):
        for number, path in enumerate(sorted((home / "tones").glob("*/*.wav")) if shuffled else ()):
            path.rename(home / "tones" / ("high", "low")[number % 2] / f"{number}-{path.name}")
        rows = analyze(Subject.of(build(parse_recipe(recipe))), "abx", {"distance": "warped"})
        scores.append(rows[-1]["abx"])
    assert scores[0] > 0.9
    assert 0.2 < scores[1] < 0.8
