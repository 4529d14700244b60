"""States and trajectories as streams of a recipe: windows, a fitted scale, a run that is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import load_file

import sensorium
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError, RuntimeFailure

EPISODES, FRAMES = 12, 9


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Recordings of three joints far from zero; `speed` is what the first one's steps are."""
    rng = np.random.default_rng(0)
    speed = np.repeat(rng.normal(size=EPISODES), FRAMES)
    frame = np.tile(np.arange(FRAMES), EPISODES)
    path = tmp_path / "runs.parquet"
    columns = {
        "q0": 500 + speed * frame,
        "q1": rng.normal(2, 30, len(frame)),
        "q2": np.full(len(frame), 7.0),
        "speed": speed,
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(EPISODES), FRAMES),
    }
    parquet.write_table(pa.table(columns), path)
    return path


def recipe(table: Path, encoder: dict[str, Any], **data: Any) -> dict[str, Any]:
    source = {
        "source": "frames",
        "path": str(table),
        "join": {"state": ["q0", "q1", "q2"]},
        "delta_frames": {"state": [-2, 1]},
    }
    return {
        "inputs": {"state": {"modality": "action", "encoder": encoder, "connector": "mean"}},
        "tasks": {
            "speed": {
                "type": "regression",
                "input": "state",
                "target": "speed",
                "data": {"train": {**source, "holdout": 0.25, **data}},
            }
        },
        "train": {
            "steps": 6,
            "batch_size": 8,
            "validate": {"every": 3},
            "checkpoint": {"every": 3},
        },
    }


ENCODERS: dict[str, dict[str, Any]] = {
    "state": {"type": "state", "dim": 8, "normalizer": {"how": "quantiles"}},
    "trajectory": {"type": "trajectory", "dim": 8, "depth": 1, "heads": 2},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_keeps_its_scale(name: str, table: Path, tmp_path: Path) -> None:
    values = recipe(table, ENCODERS[name])
    assert "inputs.state.encoder" in str(check(parse_recipe(values)))
    train(parse_recipe(values), tmp_path / "run", show=False)
    fitted = next((tmp_path / "run").rglob("inputs.state.encoder.normalizer.json"))
    how = ENCODERS[name].get("normalizer", {}).get("how", "mean_std")
    assert json.loads(fitted.read_text())["how"] == how
    learned = load_file(fitted.with_suffix(".safetensors"))
    assert learned["shift"][0] > 400 and learned["scale"][2] == 1
    table.unlink()  # neither refitted nor asked for
    model = sensorium.load(tmp_path / "run")
    window = np.array([[500.0, 2, 7]] * 4, np.float32)
    one = model.generate("speed", state=window)["speed"]
    # Products of one row and of two may round apart: some roundings of float32, no more.
    both = [row["speed"] for row in model.generate("speed", state=[window, window])]
    assert both == pytest.approx([one, one], rel=1e-5)
    moved = window + np.arange(4)[:, None] * np.array([3.0, 0, 0])
    assert model.generate("speed", state=moved)["speed"] != pytest.approx(one, rel=1e-3)
    with pytest.raises((ConfigError, RuntimeFailure), match="2 joints a step; expected 3"):
        model.generate("speed", state=window[:, :2])
    with pytest.raises((ConfigError, RuntimeFailure), match="nan at step 0"):
        model.generate("speed", state=np.full((4, 3), np.nan))


def test_noise_is_an_augmentation(table: Path) -> None:
    values = recipe(table, ENCODERS["state"])
    values["inputs"]["state"]["augment"] = {"std": 0.1}
    check(parse_recipe(values))
    values["inputs"]["state"]["augment"] = {"std": -0.1}
    with pytest.raises(ConfigError, match=r"inputs\.state\.augment"):
        check(parse_recipe(values))


def test_a_missing_frame_is_found_before_training(table: Path) -> None:
    whole = parquet.read_table(table)
    parquet.write_table(pa.concat_tables([whole.slice(0, 4), whole.slice(5)]), table)
    with pytest.raises(
        ConfigError, match=r"data\.train.*row runs/0/4 is frame 5, expected frame 4"
    ):
        check(parse_recipe(recipe(table, ENCODERS["state"])))
