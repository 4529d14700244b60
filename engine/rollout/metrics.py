"""Metrics of episodes: success with its interval, steps to success, smoothness of the motion.

Wilson (1927), Probable inference, the law of succession, and statistical inference. Jerk is the
third difference from step to step, squared, summed over the axes and averaged over the steps: in
action units a step cubed for commands, in the observation's units for the hand. (At `rate` Hz,
times rate^6 for a second.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ..utils import format_table


def wilson(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a proportion, within [0, 1]; the whole of it if `count` is 0."""
    if count == 0:
        return 0.0, 1.0
    low, high = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def mean_squared_jerk(values: np.ndarray) -> float:
    """Mean squared third difference of `[steps, axes]`; NaN for fewer than four steps."""
    if len(values) < 4:
        return math.nan
    return float(np.square(np.diff(values.astype(np.float64), n=3, axis=0)).sum(1).mean())


@dataclass
class Episode:
    """commands: `[dof]` a step, as sent. hand: `[3]` a step, if `env.end_effector_key` is set.
    success: a step each."""

    seed: int
    instruction: str = ""
    commands: list[np.ndarray] = field(default_factory=list)
    hand: list[np.ndarray] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)

    def record(self, command: np.ndarray, success: bool, hand: np.ndarray | None) -> None:
        """Append one step."""
        self.commands.append(command)
        self.success.append(success)
        if hand is not None:
            self.hand.append(hand)

    @property
    def first(self) -> int | None:
        """The step, counted from 1, at which it first succeeded."""
        return self.success.index(True) + 1 if any(self.success) else None

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "instruction": self.instruction,
            "steps": len(self.commands),
            "success": any(self.success),
            "success_at_end": bool(self.success and self.success[-1]),
            "steps_to_success": self.first,
            "command_jerk": _finite(mean_squared_jerk(np.array(self.commands))),
            "hand_jerk": _finite(mean_squared_jerk(np.array(self.hand))) if self.hand else None,
        }


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return the figures of one environment."""
    rows = [episode.to_json() for episode in episodes]
    count = len(rows)
    successes, successes_at_end = (
        sum(row[name] for row in rows) for name in ("success", "success_at_end")
    )
    steps = [row["steps_to_success"] for row in rows if row["steps_to_success"] is not None]
    return {
        "episodes": count,
        "success": successes / count if count else None,
        "success_interval": wilson(successes, count),
        "success_at_end": successes_at_end / count if count else None,
        "success_at_end_interval": wilson(successes_at_end, count),
        "steps_to_success": median(steps) if steps else None,
        "command_jerk": _mean([row["command_jerk"] for row in rows]),
        "hand_jerk": _mean([row["hand_jerk"] for row in rows]),
        "steps": sum(row["steps"] for row in rows),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


COLUMNS = {
    "success": ("success", ".3f"),
    "success_interval": ("95 %", ""),
    "success_at_end": ("at the end", ".3f"),
    "steps_to_success": ("steps to it", ".0f"),
    "command_jerk": ("jerk, commands", ".3g"),
    "hand_jerk": ("jerk, hand", ".3g"),
    "steps_per_model_second": ("steps/s, model", ".0f"),
    "steps_per_second": ("steps/s", ".0f"),
    "model_calls": ("calls", "d"),
    "undecodable_chunks": ("undecodable", "d"),
}
"""Figure -> its heading and format in a terminal."""


def format_summaries(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line an environment, and the mean success of several."""
    lines = [["environment", *(heading for heading, _ in COLUMNS.values())]]
    for name, summary in summaries.items():
        cells = [_cell(summary.get(key), spec) for key, (_, spec) in COLUMNS.items()]
        lines.append([name, *cells])
    if len(summaries) > 1:
        mean = fmean(figures["success"] for figures in summaries.values())
        lines.append(["mean", f"{mean:.3f}", *("" for _ in list(COLUMNS)[1:])])
    return format_table(lines)


def _cell(value: Any, spec: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"{value[0]:.3f} to {value[1]:.3f}"
    return format(value, spec)
