"""Experiment trackers of accelerate, which receive the lines of a run's `metrics.jsonl`.

Each writes into the run's folder, offline: no account and no server is needed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils import ConfigError, make_folder

TRACKING = "tracking"
"""The folder of a run that trackers write into."""

OFFLINE = {
    "tensorboard": {},
    "trackio": {"TRACKIO_DIR": "{folder}"},
    "wandb": {"WANDB_MODE": "offline", "WANDB_DIR": "{folder}"},
    "mlflow": {"MLFLOW_TRACKING_URI": "sqlite:///{folder}/mlflow.db"},
}
"""Tracker -> environment variables that keep it in a folder; values set by the user are kept."""


class Trackers:
    """The trackers of one process. names: of `OFFLINE`. folder: the run's. config: its recipe."""

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # accelerate's trackers need the process state
        place = folder / TRACKING
        self.trackers: list[Any] = []
        for name in names:
            make_folder(place)
            for variable, value in OFFLINE[name].items():
                os.environ.setdefault(variable, value.format(folder=place.absolute()))
            kind: Any = LOGGER_TYPE_TO_CLASS[name]
            arguments = {"logging_dir": place} if kind.requires_logging_directory else {}
            tracker = kind(folder.name, **arguments)
            tracker.start()
            tracker.store_init_configuration(_flat(config))
            self.trackers.append(tracker)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Pass the numbers of a line of the log on."""
        numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and k != "step"}
        prefix = f"{values['task']}/" if isinstance(values.get("task"), str) else ""
        for tracker in self.trackers:
            tracker.log({f"{prefix}{key}": value for key, value in numbers.items()}, step=step)

    def close(self) -> None:
        """Finish writing."""
        for tracker in self.trackers:
            tracker.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker whose library is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"train.track: {name} is not installed; run pip install {name}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a recipe as what trackers take: `inputs.image.encoder.type` -> text or number."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, (int, float, str, bool)) else str(value)
            )
    return flat
