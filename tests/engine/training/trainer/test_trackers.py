"""`train.track`: accelerate's trackers get the lines of the log, and write into the run's
folder."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("name", ["trackio", "wandb", "mlflow"])
def test_other_trackers_get_the_log_through_accelerate(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, in the run's folder; the library itself is a stub with accelerate's interface."""
    from accelerate import tracking

    from sensorium.engine.checkpoint.trackers import OFFLINE, Trackers

    class Stub(tracking.GeneralTracker):
        requires_logging_directory = False
        seen: list[Any] = []

        def __init__(self, run_name: str) -> None:
            self.seen.append(run_name)

        name = "stub"
        tracker = None

        def start(self) -> None:
            self.seen.append({key: os.environ[key] for key in OFFLINE[kind]})

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.seen.append(values)

        def log(self, values: dict[str, Any], step: int) -> None:
            self.seen.append((step, values))

        def finish(self) -> None:
            self.seen.append("finished")

    kind = name
    for variable in OFFLINE[name]:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, Stub)
    trackers = Trackers([name], tmp_path / "run", {"train": {"steps": 3}})
    trackers.log({"step": 1, "task": "digit", "loss": 0.5, "note": "text"}, 1)
    trackers.close()
    run, variables, config, line, end = Stub.seen
    assert (run, config, end) == ("run", {"train.steps": 3}, "finished")
    assert line == (1, {"digit/loss": 0.5})
    folder = str((tmp_path / "run" / "tracking").absolute())
    assert all(folder in value or value == "offline" for value in variables.values())
