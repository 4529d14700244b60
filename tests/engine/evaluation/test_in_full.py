"""What evaluation asks of a task beyond its metrics: all that a person wants to look at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load

ENCODER = {"type": "logmel_conformer", "dim": 16, "depth": 1, "heads": 2, "kernel": 3}
TALKER = {"source": "talker", "grammar": "commands", "split": "train", "count": 6}
PICTURES = {"source": "digits", "split": "train", "limit": 6, "on_error": "skip"}


def recipe(stream: str, encoder: dict[str, Any], data: dict[str, Any], text: str) -> dict[str, Any]:
    requested = {"type": "ctc", "input": stream, "target": text, "tokenizer": "characters"}
    return {
        "inputs": {stream: {"modality": stream, "encoder": encoder}},
        "tasks": {"read": {**requested, "data": {"train": data, "test": data}}},
        "train": {"steps": 2, "batch_size": 3},
    }


def predictions(runner: Any, recipe_values: dict[str, Any]) -> list[dict[str, Any]]:
    runner.train(recipe_values, "run")
    evaluate(load(runner.folder / "run").model, input_ablation=False, folder=runner.folder / "run")
    lines = (runner.folder / "run/predictions-read.jsonl").read_text().splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def test_words_have_their_times(runner: Any) -> None:
    pytest.importorskip("espeakng_loader")
    result = predictions(runner, recipe("audio", ENCODER, TALKER, "{text}"))
    assert len(result) == 6 and all("words" in built for built in result)
    assert [" ".join(word for word, _, _ in built["words"]) for built in result] == [
        built["text"] for built in result
    ]


def test_or_none_where_frames_do_not_say_when_they_are(runner: Any) -> None:
    result = predictions(runner, recipe("image", {"type": "tiny_parts:Tiny"}, PICTURES, "{word}"))
    assert result and not any("words" in built for built in result)
