"""CTC from recipe to transcript: rows that cannot be learned, and recordings of any length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from sensorium.engine.inference import load
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import RuntimeFailure
from sensorium.tasks.uses import ChunkSpec

PICTURES: dict[str, Any] = {
    "inputs": {"image": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}}},
    "tasks": {
        "read": {
            "type": "ctc",
            "input": "image",
            "target": "{word}",
            "tokenizer": "characters",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        }
    },
    "train": {"steps": 5, "batch_size": 8, "optimizer": {"lr": 0.01}, "log_every": 1},
}
"""Pictures of four tokens: 'four' fits, 'three' does not."""


def sound(**task: Any) -> dict[str, Any]:
    encoder = {
        "type": "logmel_conformer",
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "kernel": 3,
        "hop": 0.008,
    }
    talker = {"source": "talker", "grammar": "commands", "split": "train", "count": 8}
    return {
        "inputs": {"audio": {"modality": "audio", "encoder": encoder}},
        "tasks": {
            "ctc": {"type": "ctc", "tokenizer": "characters", "data": {"train": talker}, **task}
        },
        "train": {"steps": 4, "batch_size": 4, "optimizer": {"lr": 0.01}, "log_every": 1},
    }


def skipping(recipe: Mapping[str, Any], runner: Any) -> dict[str, Any]:
    data = {"data": {"train": {"on_error": "skip"}}}
    return dict(runner.changed(recipe, {"tasks": {"read": data}}))


def test_a_row_that_cannot_be_learned_ends_training_with_its_key(runner: Any) -> None:
    line = r"tasks\.read.data.train, row \S+: target: .*; .\w+. needs \d .* the signal has 4"
    with pytest.raises(RuntimeFailure, match=line):
        runner.train(runner.changed(PICTURES, {"train": {"batch_size": 40}}), "stops")


def test_or_is_skipped_and_counted(runner: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sensorium"):
        train(parse_recipe(skipping(PICTURES, runner)), runner.folder / "skips", show=True)
    assert all(loss < 100 for _, _, loss in runner.losses("skips"))
    *rows, summary = caplog.messages
    messages = [line for line in rows if "longer than the frames allow" in line]
    assert len({line.partition(":")[0] for line in messages}) == len(messages) > 10  # each row once
    assert f"skipped: {len(messages)} x target: longer than the frames allow" in summary


def test_the_dry_run(runner: Any) -> None:
    stages = {stage.where: stage.shape for stage in check(parse_recipe(sound())).components}
    assert stages["tasks.ctc.head"].startswith("[B, ")


@pytest.fixture
def spoken(runner: Any) -> Any:
    pytest.importorskip("espeakng_loader")
    return runner


def test_a_recogniser_is_trained_saved_and_asked(spoken: Any) -> None:
    recipe = sound(interctc_layers=[0], condition=["accent"])
    spoken.train(recipe, "run")
    pipeline = load(spoken.folder / "run")
    task = pipeline.model.task("ctc")
    assert int(task.lengths.seen.sum()) == 16  # 4 steps of 4 rows
    cell = {"array": torch.randn(1, 16000).numpy() * 0.1, "rate": 16000}
    result = pipeline.generate("ctc", audio=cell, options={"times": True, "beam": 2})
    assert set(result) == {"text", "words"}
    assert json.loads(json.dumps(result)) == result
    messages = pipeline.generate(
        "ctc", audio=cell, accent="en-us-nyc", options={"confidence": True}
    )
    assert 0 < messages["confidence"] <= 1


@pytest.mark.parametrize("changes", [{}, {"interctc_layers": [1], "condition": ["accent"]}])
def test_a_long_recording_is_read_in_pieces(spoken: Any, changes: dict[str, Any]) -> None:
    spoken.train(sound(**changes), "run")
    pipeline = load(spoken.folder / "run")
    task, encoder = pipeline.model.task("ctc"), pipeline.model.stream("audio").encoder
    window = task.lengths.window()
    assert isinstance(window, ChunkSpec) and window.length <= window.limit == task.lengths.longest
    read: list[torch.Size] = []
    encoder.register_forward_hook(lambda module, args, features: read.append(features.tokens.shape))
    wave = torch.randn(1, 16000 * 20, generator=torch.Generator().manual_seed(0)).numpy() * 0.1
    cell = {"array": wave, "rate": 16000}
    if changes:
        hints = ["en-us-nyc", "en-029", "en-us-nyc"]
        several = pipeline.generate("ctc", audio=[cell] * 3, accent=hints)
        assert several[0] == several[2] == pipeline.generate("ctc", audio=cell, accent=hints[0])
    alone = pipeline.generate("ctc", audio=cell)
    assert all(rows > 1 and length == window.length for rows, length, _ in read)
    short = {"array": wave[:, :16000], "rate": 16000}
    together = pipeline.generate("ctc", audio=[short, cell, cell])
    assert together[1] == together[2] == alone
    assert together[0] == pipeline.generate("ctc", audio=short)


def test_silence_is_read(spoken: Any) -> None:
    spoken.train(sound(), "run")
    cell = {"array": torch.zeros(1, 16000).numpy(), "rate": 16000}
    result = load(spoken.folder / "run").generate("ctc", audio=cell, options={"times": True})
    assert isinstance(result["text"], str) and len(result["words"]) == len(result["text"].split())


def test_a_head_is_trained_on_stored_features(spoken: Any) -> None:
    frozen = {"inputs": {"audio": {"encoder": {"freeze": True, "weights": "none"}}}}
    recipe = spoken.changed(sound(), frozen)
    fresh = spoken.values(spoken.changed(recipe, {"cache": {"features": False}}), "fresh")
    stored = spoken.values(recipe, "stored")
    assert stored == pytest.approx(fresh, rel=1e-5)
    seen = [
        load(spoken.folder / name).model.task("ctc").lengths.seen for name in ("fresh", "stored")
    ]
    assert torch.equal(*seen)
