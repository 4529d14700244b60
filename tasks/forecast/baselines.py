"""Forecasts without a model: the last value, the season before, and a linear map.

Legend: `C` channels, `N` samples of the context, `H` of the future; NaN where none was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...modalities.base import Fittable, NonNegativeFloat


def last_value(context: np.ndarray, horizon: int) -> np.ndarray:
    """Return the last measured value `[C, H]` of each channel; NaN for one without any."""
    return np.repeat(filled(context)[:, -1:], horizon, axis=1)


def seasonal_naive(context: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return the values `[C, H]` of the same places in the last season in which they were
    measured, and the last value of a channel where none was."""
    forecast = last_value(context, horizon)
    for step in range(horizon):
        # From the first season to the last one, which has the last word.
        for place in range((context.shape[1] + step) % season, context.shape[1], season):
            values = context[:, place]
            forecast[:, step] = np.where(np.isnan(values), forecast[:, step], values)
    return forecast


def filled(values: np.ndarray) -> np.ndarray:
    """Return values `[C, N]` with gaps filled by the value before, those at the start by the first
    one after."""
    seen = ~np.isnan(values)
    places = np.maximum.accumulate(np.where(seen, np.arange(values.shape[1]), -1), axis=1)
    first = seen.argmax(1)[:, None]
    return np.take_along_axis(values, np.where(places < 0, first, places), axis=1)


class LinearBaseline(Fittable):
    """A linear map of the normalized context to the normalized future, one for all channels, fitted
    by ridge regression on the training rows. ridge: penalty, in shares of the rows.

    It is for contexts of at least the first row's length, and futures of at most its; others have
    no linear forecast. channels: those of the training rows, in order.
    """

    def __init__(self, *, ridge: NonNegativeFloat = 1e-3) -> None:
        self.ridge = ridge
        self.channels: tuple[str, ...] = ()
        self.weights = np.zeros((0, 0))

    def fit(self, rows: Iterable[Any]) -> None:
        """Fit triples (channels, context `[C, N]`, future `[C, H]`)."""
        gram = moments = np.zeros((0, 0))
        steps = horizon = count = 0
        for channels, context, future in rows:
            if not self.channels or not count:
                self.channels, steps, horizon = tuple(channels), context.shape[1], future.shape[1]
                gram, moments = np.zeros((steps + 1, steps + 1)), np.zeros((steps + 1, horizon))
            count += 1
            if context.shape[1] < steps or future.shape[1] < horizon:
                continue
            inputs, shift, scale = _normalized(context, steps)
            target = (future[:, :horizon] - shift) / scale
            whole = np.isfinite(target).all(1) & np.isfinite(inputs).all(1)
            gram += inputs[whole].T @ inputs[whole]
            moments += inputs[whole].T @ target[whole]
        if not count:
            raise ValueError("linear: no row to learn from")
        penalty = self.ridge * max(gram[-1, -1], 1.0) * np.eye(steps + 1)
        penalty[-1, -1] = 1e-9
        self.weights = np.linalg.solve(gram + penalty, moments)

    def forecast(self, context: np.ndarray, horizon: int) -> np.ndarray | None:
        """Return `[C, H]`, or None if the context is too short, or the horizon too far."""
        steps = len(self.weights) - 1
        if context.shape[1] < steps or horizon > self.weights.shape[1]:
            return None
        inputs, shift, scale = _normalized(context, steps)
        forecast: np.ndarray = inputs @ self.weights[:, :horizon] * scale + shift
        return forecast

    def state(self) -> dict[str, Any]:
        return {"channels": list(self.channels), "weights": self.weights}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.channels = tuple(state["channels"])
        self.weights = np.asarray(state["weights"], np.float64)


def _normalized(context: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the last `steps` samples without gaps, by their mean and deviation, and a column of
    ones `[C, steps + 1]`; shift and scale `[C, 1]`."""
    values = filled(context)[:, -steps:]
    shift, scale = values.mean(1, keepdims=True), values.std(1, keepdims=True)
    scale = np.where(scale > 1e-9 * np.abs(shift), scale, 1.0)
    return np.concatenate([(values - shift) / scale, np.ones((len(values), 1))], 1), shift, scale
