"""`train.track`: accelerate's trackers get the lines of the log, and write into the run's
folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.checkpoint import check_trackers
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError, read_metrics
from sensorium.tests.engine.conftest import CLASSIFY


def recipe(*track: str) -> Any:
    values = {**CLASSIFY, "train": {**CLASSIFY["train"], "track": list(track), "log_every": 1}}
    return parse_recipe(values)


def test_tensorboard_holds_what_the_log_does(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(recipe("tensorboard"), tmp_path / "run", show=False)
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    events = EventAccumulator(str(tmp_path / "run" / "tracking" / "run"))
    events.Reload()
    (tag,) = [tag for tag in events.Tags()["scalars"] if tag.endswith("/loss")]
    scalars = events.Scalars(tag)
    assert [event.step for event in scalars] == [line["step"] for line in lines]
    assert [event.value for event in scalars] == pytest.approx([line["loss"] for line in lines])


def test_it_changes_no_loss_and_goes_with_the_run(tmp_path: Path) -> None:
    for name, track in (("plain", ()), ("tracked", ("tensorboard",))):
        train(recipe(*track), tmp_path / name, show=False)
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line]
        for name in ("plain", "tracked")
    ]
    assert losses[0] == losses[1]
    train(recipe(), tmp_path / "tracked", show=False, overwrite=True)
    assert not (tmp_path / "tracked" / "tracking").exists()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.track: wandb is not installed; run pip install"):
        check_trackers(["wandb"])
    with pytest.raises(ConfigError, match=r"train\.track"):
        check(recipe("mlflow"))
    with pytest.raises(ConfigError, match=r"train\.track"):
        recipe("tensorbored")
