"""Normalization of states and actions: a shift and a scale for each joint, fitted on the training
split.

Legend: `steps` of time, `dof` joints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from ..base import Fittable
from .read import read
from .tokenizers import bounds


class Normalizer(Fittable):
    """`(value - shift) / scale` a joint, cut off at `clip`.

    how: `mean_std`, or `quantiles`: the shares `quantile` and `1 - quantile` of the values come
    to lie at -1 and 1. clip: largest size of a normalised value; it bounds what a joint that
    hardly moved in training may do to a model. A joint that never moved is only shifted; of one
    that seldom moved (a gripper) the extremes take the place of equal quantiles.
    """

    def __init__(
        self,
        *,
        how: Literal["mean_std", "quantiles"] = "mean_std",
        quantile: float = 0.01,
        clip: float = 10.0,
    ) -> None:
        if not 0 <= quantile < 0.5:
            raise ValueError(f"quantile: found {quantile}, expected a share from 0 to below 0.5")
        if not clip > 0:
            raise ValueError(f"clip: found {clip}, expected a size above 0")
        self.how, self.quantile, self.clip = how, quantile, clip
        self.shift = np.zeros(0)
        self.scale = np.zeros(0)

    @property
    def dof(self) -> int:
        """Number of joints; 0 before the fit."""
        return len(self.shift)

    def check_example(self, example: Any) -> None:
        read(example)

    def fit(self, rows: Iterable[Any]) -> None:
        """Fit motions, or anything that `read` takes. Raise ValueError if their joints differ."""
        motions: list[np.ndarray] = []
        for row in rows:
            motion = read(row)
            if motions and motion.dof != motions[0].shape[1]:
                raise ValueError(
                    f"normalizer: row {len(motions)} has {motion.dof} joints, those before it have "
                    f"{motions[0].shape[1]}; leave it out, or name the columns"
                )
            motions.append(motion.values)
        if not motions:
            raise ValueError("normalizer: no row to learn from")
        values = np.concatenate(motions).astype(np.float64)  # [steps, dof]
        self.shift, scale = SCALES[self.how](values, self.quantile)
        # Rounding leaves a constant joint a spread of about 1e-7 of its size (float32).
        constant = scale <= 1e-6 * np.abs(values).max(0)
        self.scale = np.where(constant, 1.0, scale)

    def state(self) -> dict[str, Any]:
        return {"how": self.how, "shift": self.shift, "scale": self.scale}

    def load_state(self, state: Mapping[str, Any]) -> None:
        shift, scale = (np.asarray(state[k], np.float64) for k in ("shift", "scale"))
        if state["how"] != self.how:
            raise ValueError(
                f"normalizer: was fitted as {state['how']}, the recipe has {self.how}; fit again"
            )
        self.shift, self.scale = shift, scale

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return `[..., dof]` normalized, float32."""
        scaled = (values - self.shift) / self.scale
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Return `[..., dof]` in the joints' units, float32."""
        decoded: np.ndarray = (values * self.scale + self.shift).astype(np.float32)
        return decoded


def _moments(values: np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), values.std(0)


def _bounds(values: np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = bounds(values, (quantile, 1 - quantile))
    return (low + high) / 2, (high - low) / 2


SCALES = {"mean_std": _moments, "quantiles": _bounds}
