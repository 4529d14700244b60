"""Chunks of actions: how a row holds one, and statistics of the training split.

A chunk is the column of actions with `data.delta_frames`, `{action: [0, 19]}`: `[steps, dof]` in
the robot's own units, and `<column>_padding` `[steps]`, True outside the episode.

Legend: `B` rows, `steps` samples of a chunk, `dof` numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....modalities.base import Fittable
from ...base import Row
from ...batch import Batch

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Chunk:
    """The chunks of a batch. actions: `[B, steps, dof]`. padding: `[B, steps]` bool, True = outside
    the episode. start: `[B, dof]`, the action executed last, for a tokenizer with `fixed_start`."""

    actions: Tensor
    padding: Tensor
    start: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch) -> Chunk:
        """Return the chunks of a batch, from its labels."""
        labels = batch.labels
        return cls(labels["actions"], labels["padding"], labels.get("start"))


def chunks_of_references(references: Sequence[Mapping[str, Any]]) -> Chunk:
    """Return the chunks of a split's references, on the CPU."""
    starts = [row["start"] for row in references if "start" in row]
    return Chunk(
        torch.tensor([row["actions"] for row in references]),
        torch.tensor([row["padding"] for row in references], dtype=torch.bool),
        torch.tensor(starts) if starts else None,
    )


def read_chunk(row: Row, column: str) -> Pair:
    """Return a row's `actions [steps, dof]` float32 and `padding [steps]` bool.

    Raise ValueError if the column is missing, is no chunk, or holds a value that is no finite
    number.
    """
    if column not in row:
        columns = ", ".join(map(repr, row)) or "no column"
        raise ValueError(f"action: {column!r} is not in the row, which has {columns}")
    values = _numbers(row[column], column)
    if values.ndim != 2:
        raise ValueError(
            f"action: the column {column!r} holds {values.shape}, expected a chunk [steps, dof]; "
            f"add it to the data, such as delta_frames: {{{column}: [0, 19]}}"
        )
    padding = np.asarray(row.get(f"{column}_padding", np.zeros(len(values))), dtype=bool)
    if padding.shape != (len(values),):
        raise ValueError(
            f"action: the column '{column}_padding' is {padding.shape}, expected ({len(values)},): "
            "one truth a step"
        )
    if padding.all():
        raise ValueError(f"action: no step of {column!r} lies inside the episode; leave it out")
    wrong = np.argwhere(~np.isfinite(values) & ~padding[:, None])
    if len(wrong):
        step, joint = wrong[0]
        raise ValueError(
            f"action: {column!r} holds {values[step, joint]} at step {step}, joint {joint}; "
            "expected finite numbers: leave the row out (data.*.on_error: skip), or correct it"
        )
    return np.where(padding[:, None], np.nan_to_num(values), values), padding


def read_action(row: Row, column: str) -> np.ndarray:
    """Return a row's single action `[dof]` float32 (the one executed last): the cell, or the last
    frame of its window."""
    values = _numbers(row[column], column)
    values = values[-1] if values.ndim == 2 and len(values) else values
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"previous_action: the column {column!r} is {values.shape}, expected one action [dof] "
            "of finite numbers"
        )
    return values


def _numbers(cell: Any, column: str) -> np.ndarray:
    try:
        return np.asarray(cell, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"action: the column {column!r} holds no numbers ({error})") from None


class ChunkStatistics(Fittable):
    """Statistics of the training split's chunks: `steps`, `dof`, and the mean and standard
    deviation of each joint without padded samples (1 for a constant joint)."""

    def __init__(self) -> None:
        self.steps, self.dof = 0, 0
        self.mean: list[float] = []
        self.std: list[float] = []
        self.first: list[float] = []

    def fit(self, rows: Iterable[Pair]) -> None:
        """Fit pairs (actions, padding). Raise ValueError if their shapes differ."""
        count, count_of_starts = 0, 0
        origin = total = square = beginnings = np.zeros(0)
        for values, padding in rows:
            if not self.steps:
                (self.steps, self.dof), origin = values.shape, values[~padding][0].astype(float)
                total = square = beginnings = np.zeros(self.dof)
            self.check(values)
            offsets = values[~padding] - origin  # so that no digits are lost
            count += len(offsets)
            total, square = total + offsets.sum(0), square + (offsets**2).sum(0)
            if padding[0]:
                count_of_starts, beginnings = count_of_starts + 1, beginnings + offsets[0]
        if not count:
            raise ValueError("chunk: there is no chunk of actions to learn from; give data")
        mean = total / count
        spread = np.sqrt(np.maximum(square / count - mean**2, 0.0))
        self.mean = (origin + mean).tolist()
        self.first = (origin + beginnings / count_of_starts).tolist() if count_of_starts else []
        self.std = [
            s if s > 1e-6 * (1 + abs(m)) else 1.0 for s, m in zip(spread, mean, strict=True)
        ]

    def check(self, values: np.ndarray) -> None:
        """Raise ValueError for a chunk of another shape than was fitted."""
        if self.steps and values.shape != (self.steps, self.dof):
            raise ValueError(
                f"action: found a chunk of {values.shape[0]} steps and {values.shape[1]} numbers, "
                f"the training split has {self.steps} steps and {self.dof}; give all splits the "
                "same window of the same robot"
            )

    def encode(self, actions: Tensor) -> Tensor:
        """Return `[..., dof]` standardized."""
        return (actions - self._like(self.mean, actions)) / self._like(self.std, actions)

    def mean_action(self, steps: int) -> list[list[float]]:
        """Return the mean action, `steps` times."""
        return [list(self.mean) for _ in range(steps)]

    @staticmethod
    def _like(numbers: Sequence[float], actions: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=actions.dtype, device=actions.device)

    def state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "dof": self.dof,
            "mean": self.mean,
            "std": self.std,
            "first": self.first,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.steps, self.dof = int(state["steps"]), int(state["dof"])
        self.mean, self.std, self.first = (
            [float(value) for value in state[key]] for key in ("mean", "std", "first")
        )
        if len(self.mean) != self.dof or not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean: found {self.mean}, expected {self.dof} finite numbers")
