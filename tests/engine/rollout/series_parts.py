"""Somebody's own modality in a file beside the recipe: time series, their data and a simulator."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from sensorium.modalities.base import (
    Encoder,
    Features,
    Modality,
    Processor,
    ReadError,
    Sample,
    Source,
)

SERIES = Modality(
    read="series_parts:read",
    example="series_parts:example",
    preview="series_parts:preview",
    encoders={"linear": "series_parts:Linear"},
    augments={"jitter": "series_parts:Jitter"},
    sources={"strokes": "series_parts:Waves"},
    envs={"line": "series_parts:Line"},
)
PLAIN = Modality(encoders={"linear": "series_parts:Linear"})
"""Cells are values already, and nothing else is declared."""


def read(cell: Any) -> np.ndarray:
    """Return a series `[steps]` of a CSV text, a path or an array."""
    if isinstance(cell, str):
        rows = list(csv.reader(io.StringIO(cell)))
        if not rows:
            raise ReadError(cell, "is empty", "numbers with commas")
        return np.asarray(rows[0], np.float32)
    return np.asarray(cell, np.float32)


def example(rng: np.random.Generator) -> str:
    return ",".join(f"{value:.3f}" for value in rng.normal(size=8))


def preview(raw: np.ndarray, annotations: Any = None) -> str:
    return f"<p class='series'>{len(raw)} steps</p>"


class Normalize(Processor):
    def prepare(self, raw: Any) -> Sample:
        values = torch.as_tensor(np.asarray(raw, np.float32))
        return {"values": (values - values.mean()) / values.std().clamp(min=1e-3)}


class Linear(Encoder):
    """A token a step."""

    def __init__(self, *, dim: int = 4) -> None:
        super().__init__()
        self.dim, self.processor = dim, Normalize()
        self.map = nn.Linear(1, dim)

    def forward(self, values: Tensor) -> Features:
        return Features.dense(torch.tanh(self.map(values[..., None])))


class Jitter:
    """Noise of a deviation on the values."""

    def __init__(self, *, deviation: float = 0.1) -> None:
        self.deviation = deviation

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        noise = rng.normal(0, self.deviation, sample["values"].shape)
        return {"values": sample["values"] + torch.as_tensor(noise, dtype=torch.float32)}


class Waves(Source):
    """Rows `series` (text), `kind`: rising or falling; `state`, `action`, `instruction`."""

    columns = ("series", "kind", "state", "action", "instruction")
    length = 12

    def __init__(self, *, count: int = 4) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count * self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        kind = ("rising", "falling")[index % 2]
        sign = 1 if kind == "rising" else -1
        state = np.array([sign * 0.01 * index, sign], np.float32)
        return {
            "series": ",".join(str(sign * step) for step in range(8)),
            "kind": kind,
            "state": state,
            "action": np.array([sign * 0.1], np.float32),
            "instruction": "go",
        }

    @property
    def episodes(self) -> Sequence[range]:
        return [range(i, i + self.length) for i in range(0, len(self), self.length)]

    def fingerprint(self) -> str:
        return f"strokes {self.count}"


class Line(gymnasium.Env):
    """A hand on a line; `task` names the side it should go to."""

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, task: str, *, cameras: Sequence[str] = (), size: int = 16) -> None:
        if task not in ("left", "right"):
            raise ValueError(f"task: there is no {task!r}")
        self.goal = 0.5 if task == "right" else -0.5
        self.observation_space = spaces.Dict({"state": spaces.Box(-2.0, 2.0, (2,), np.float32)})
        self.action_space = spaces.Box(-0.1, 0.1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = 0.0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x += float(action[0])
        near = abs(self.x - self.goal) < 0.06
        return self._observation(), 0.0, False, False, {"success": near}

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def _observation(self) -> dict[str, np.ndarray]:
        return {"state": np.array([self.x, self.goal], np.float32)}

    @staticmethod
    def expert(task: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        def act(observation: dict[str, np.ndarray]) -> np.ndarray:
            x, goal = observation["state"]
            return np.clip(np.array([goal - x]), -0.1, 0.1).astype(np.float32)

        return act

    @staticmethod
    def instruction(task: str, seed: int) -> str:
        return f"go {task}"


def write_plugin(folder: Path) -> None:
    """Write the metadata of an installed package that offers the modality as `stroke`."""
    info = folder / "series_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: series-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sensorium.plugins]\nmodality.stroke = series_parts:SERIES\n"
    )
