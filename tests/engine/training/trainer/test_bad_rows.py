"""One bad row fails by its key where it is touched: it is refused, or left out and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.data.sampler import BatchSampler
from sensorium.engine.inference import load, predict_files
from sensorium.engine.model import resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check_data, train
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.modalities.base import RowErrors
from sensorium.tasks.batch import Batch, Example

PATCHES = {"type": "patches", "size": 8, "patch_size": 4, "dim": 16}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 40}
GPT = {"type": "causal", "config": GPT2, "tokenizer": "bytes", "weights": "none"}
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "class": ({"type": "classification", "input": "image", "target": "word"}, None),
    "regression": ({"type": "regression", "input": "image", "target": "y"}, None),
    "bytes": ({"type": "captioning", "prompt": "<image>:", "target": "{text}"}, GPT),
    "bpe": (
        {"type": "captioning", "prompt": "<image>:", "target": "{text}"},
        {**GPT, "tokenizer": {"type": "bpe", "size": 270}},
    ),
}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        Image.new("RGB", (8 + 4 * i, 8), (40 * i, 0, 0)).save(f"{i}.png")
    return [
        {"image": f"{i}.png", "word": "ab"[i % 2], "y": float(i), "text": "ab"[i % 2]}
        for i in range(6)
    ]


def recipe(rows: list[dict[str, Any]], task: str, on_error: str = "skip", **more: Any) -> Any:
    text = "\n".join(json.dumps(row) for row in rows)
    Path("d.jsonl").write_text(text)
    section, backbone = TASKS[task]
    data = {"source": "json", "path": "d.jsonl", "paths": ["image"], "on_error": on_error}
    connector = "mean" if backbone is None else "mlp"
    return parse_recipe(
        {
            "inputs": {"image": {"modality": "image", "encoder": PATCHES, "connector": connector}},
            **({} if backbone is None else {"backbone": backbone}),
            "tasks": {"a": {**section, "data": {"train": data}}},
            "train": {"steps": 3, "batch_size": 4, **more},
        }
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_null_is_a_row_that_fails(
    task: str, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows[2] |= {"word": None, "y": None, "text": None}
    train(recipe(rows, task), tmp_path / "run", show=False)
    with pytest.raises((ConfigError, RuntimeFailure), match=r"row d\.jsonl#2: .*is null") as caught:
        train(recipe(rows, task, "raise"), tmp_path / "other", show=False)
    assert "\n" not in str(caught.value)


def test_rows_that_parts_are_not_fitted_on_are_noted(rows: list[dict[str, Any]]) -> None:
    rows[1]["word"] = {"a": 1}  # type: ignore[assignment]
    rows[4]["word"] = None
    plan = resolve_and_fit(recipe(rows, "class"))
    assert list(plan.unfit_rows) == [("a", "d.jsonl#1"), ("a", "d.jsonl#4")]
    for row in rows:
        row["word"] = None
    with pytest.raises(ConfigError, match=r"none of the 6 rows .*first: d\.jsonl#0: .*is null"):
        resolve_and_fit(recipe(rows, "class"))


def test_a_text_longer_than_the_positions_fails_alone(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows[3]["text"] = "x" * 100
    train(recipe(rows, "bytes"), tmp_path / "run", show=False)
    with pytest.raises(RuntimeFailure, match=r"row d\.jsonl#3: gpt2 has 40 positions, found 10"):
        train(recipe(rows, "bytes", "raise"), tmp_path / "other", show=False)


def test_a_run_that_read_no_row_fails(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for row in rows:
        row["image"] = "nowhere.png"
    with pytest.raises(RuntimeFailure, match="no row could be learned from: 6 rows"):
        train(recipe(rows, "bytes", steps=100, log_every=5), tmp_path / "run", show=False)


def test_every_row_of_every_split_is_checked(rows: list[dict[str, Any]]) -> None:
    rows[2]["word"] = None
    rows[5]["image"] = "nowhere.png"
    lines = list(check_data(recipe(rows, "class")))
    assert "row d.jsonl#2: column 'word': is null" in lines[0]
    assert "row d.jsonl#5:" in lines[1] and "nowhere.png" in lines[1]
    assert lines[2] == "tasks.a.data.train: 6 rows, 2 cannot be read"
    with pytest.raises(ConfigError, match=r"tasks\.a\.data\.train \(2\); correct them"):
        list(check_data(recipe(rows, "class", "raise")))


def test_generate_names_a_bad_file_and_answers_the_others(
    rows: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(recipe(rows, "class"), tmp_path / "run", show=False)
    pipeline = load(tmp_path / "run", device="cpu")
    Path("bad.png").write_bytes(b"no picture")
    files = [f"{i}.png" for i in (0, 1, 2)] + ["bad.png"] + [f"{i}.png" for i in (3, 4, 5)]
    lines = list(predict_files(pipeline, files, task=None, options={}))
    assert [line["image"] for line in lines] == [f"{i}.png" for i in range(6)]
    assert "input 4: bad.png: no picture" in caplog.text
    alone = [pipeline.generate("a", image=f"{i}.png") for i in range(6)]
    assert [line["prediction"]["label"] for line in lines] == [p["label"] for p in alone]
    with pytest.raises(ConfigError, match=r"none of the 1 inputs could be used; bad\.png"):
        list(predict_files(pipeline, ["bad.png"], task=None, options={}))
    with pytest.raises(ConfigError, match=r"a: bad\.png: no picture"):
        pipeline.generate("a", image=files)
    assert pipeline.generate("a", image=[]) == []
    assert pipeline.embed(image=[]).shape == (0, 16)
    assert pipeline.embed(image=files[:3] * 3).shape == (9, 16)


def test_rows_are_taken_out_of_a_batch() -> None:
    examples = [Example({"ids": torch.arange(n + 1)}, {"n": n}) for n in range(4)]
    batch = Batch.of("a", list("abcd"), examples)
    batch.items["bag"] = torch.tensor([2, 0, 1, 2])
    batch.streams["bag"] = {"main": {"x": torch.arange(5)}}
    batch.streams["one"] = {"main": {"x": torch.arange(4)}}
    rest = batch.without(RowErrors({3: "too long", 1: "too short"}, 4))
    assert rest.keys == ["a", "c"] and rest.failed == [("b", "too short"), ("d", "too long")]
    assert rest.labels["ids"].tolist() == [[0, 0, 0], [0, 1, 2]]
    assert rest.streams["bag"]["main"]["x"].tolist() == [0, 1, 2]  # type: ignore[index]
    assert rest.streams["one"]["main"]["x"].tolist() == [0, 2]  # type: ignore[index]
    with pytest.raises(RowErrors):
        batch.without(RowErrors({0: "of another batch"}, 7))


@pytest.mark.parametrize(("count", "batch"), [(403, 32), (50, 8), (7, 8), (1601, 32)])
def test_every_row_is_shown_whatever_its_length(count: int, batch: int) -> None:
    lengths = list(np.random.default_rng(0).permutation(count))
    sampler = BatchSampler({"a": count}, batch, 0, order="length", column={"a": lengths})
    refs = sampler.batches()
    shown = {ref.row for _ in range(60 * max(1, count // batch)) for ref in next(refs)}
    assert len(shown) == count
