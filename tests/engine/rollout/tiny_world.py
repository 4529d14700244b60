"""A stranger's world on a line, registered with gymnasium: a hand at x, a goal at g, steps of at
most 0.1. Its demonstrations go straight to the goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from sensorium.modalities.base import Source


class Line(gymnasium.Env):
    """Observes `state` (x, g) and `hand`; draws itself; succeeds within 0.06 of the goal."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, dof: int = 1, broken: bool = False) -> None:
        self.render_mode, self.broken = render_mode, broken
        line = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.observation_space = spaces.Dict({"state": line, "hand": line})
        self.action_space = spaces.Box(-0.1, 0.1, (dof,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.goal = 0.0, float(self.np_random.choice([-0.5, 0.5]))
        self.steps = 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.x += float(action[0])
        self.steps += 1
        near = abs(self.x - self.goal) < 0.06
        return self._seen(), 0.0, False, self.steps == 12, {"success": near}

    def render(self) -> np.ndarray:
        picture = np.zeros((8, 16, 3), np.uint8)
        picture[:, int(np.clip(8 + 8 * self.x, 0, 15))] = 255
        return picture

    def _seen(self) -> dict[str, np.ndarray]:
        x = np.nan if self.broken and self.steps == 3 else self.x
        hand = np.array([self.x, 0.0], np.float32)
        return {"state": np.array([x, self.goal], np.float32), "hand": hand}


gymnasium.register("TinyLine-v0", entry_point=Line)


class Walks(Source):
    """Rows `state [2], action [1], instruction`: walks of 12 frames, to the left and the right."""

    columns = ("state", "action", "instruction")
    length = 12

    def __init__(self, *, count: int = 8) -> None:
        rng = np.random.default_rng(0)
        self.rows: list[dict[str, Any]] = []
        for number in range(count):
            x, goal = float(rng.uniform(-0.3, 0.3)), 0.5 if number % 2 else -0.5
            for _ in range(self.length):
                action = float(np.clip(goal - x, -0.1, 0.1))
                state = np.array([x, goal], np.float32)
                action_now = np.array([action], np.float32)
                self.rows.append({"state": state, "action": action_now, "instruction": "go"})
                x += action

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])

    @property
    def episodes(self) -> Sequence[range]:
        return [range(i, i + self.length) for i in range(0, len(self), self.length)]

    def fingerprint(self) -> str:
        return f"walks {len(self)}"
