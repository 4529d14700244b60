"""Errors of forecasts, beside those of the last value, the season before and a linear map.

Legend: `C` channels, `N` samples of the context, `H` of the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .baselines import LinearBaseline, last_value, seasonal_naive

NAMES = {
    "mse": "mean squared error over channels and samples, in the series' units",
    "mae": "mean absolute error",
    "mase": "absolute error in shares of that of the season before (season: 1: of the value "
    "before) within the context; below 1 is better than it",
}
FORECASTERS = {"": "", "last_": "of the last value", "seasonal_": "of the season before",
               "linear_": "of a linear map"}  # fmt: skip
METRIC_NAMES = {
    f"{prefix}{name}": f"{text}, {source}" if source else text
    for prefix, source in FORECASTERS.items()
    for name, text in NAMES.items()
}


class ForecastMetrics:
    """mse, mae, mase of the forecasts, and of each baseline with its prefix: `last_`, `seasonal_`
    (with a season) and `linear_` (if it is for every row). Values that were not measured are left
    out; so are, of mase, rows whose context never changes."""

    def __init__(self, season: int | None, linear: LinearBaseline) -> None:
        self.season, self.linear = season, linear
        self.squares: dict[str, float] = {}
        self.absolutes: dict[str, float] = {}
        self.scaled: dict[str, list[float]] = {}
        self.count, self.has_linear = 0, True

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add rows. Raise ValueError for a reference without a future, and for a forecast that
        ends before it."""
        for prediction, reference in zip(predictions, references, strict=True):
            if "forecast" not in reference:
                raise ValueError("forecast: a row has no future; evaluate on data that has it")
            context, future = (
                np.array(reference[key], dtype=float) for key in ("context", "forecast")
            )
            forecast = np.array(prediction["forecast"], dtype=float)
            horizon = future.shape[1]
            if forecast.shape[1] < horizon:
                raise ValueError(
                    f"forecast: {forecast.shape[1]} samples are predicted, the future has "
                    f"{horizon}; leave horizon out, or set that many"
                )
            self._add(context, future, forecast[:, :horizon])

    def _add(self, context: np.ndarray, future: np.ndarray, forecast: np.ndarray) -> None:
        horizon = future.shape[1]
        last = last_value(context, horizon)
        rows: dict[str, np.ndarray | None] = {"": forecast, "last_": last}
        if self.season is not None:
            rows["seasonal_"] = seasonal_naive(context, horizon, self.season)
        rows["linear_"] = self.linear.forecast(context, horizon)
        self.has_linear = self.has_linear and rows["linear_"] is not None
        measured = ~np.isnan(future) & ~np.isnan(last)
        self.count += int(measured.sum())
        unit = _step(context, self.season or 1)  # [C]
        for prefix, values in rows.items():
            if values is None:
                continue
            error = np.where(measured, values - future, 0.0)
            self.squares[prefix] = self.squares.get(prefix, 0.0) + float((error**2).sum())
            absolute = np.abs(error)
            self.absolutes[prefix] = self.absolutes.get(prefix, 0.0) + float(absolute.sum())
            for sum_, number, one in zip(absolute.sum(1), measured.sum(1), unit, strict=True):
                if one > 0 and number:
                    self.scaled.setdefault(prefix, []).append(float(sum_ / number / one))

    def compute(self) -> dict[str, float]:
        result = {}
        for prefix in self.squares:
            if prefix == "linear_" and not self.has_linear:
                continue
            count = max(self.count, 1)
            result[f"{prefix}mse"] = self.squares[prefix] / count
            result[f"{prefix}mae"] = self.absolutes[prefix] / count
            if self.scaled.get(prefix):
                result[f"{prefix}mase"] = float(np.mean(self.scaled[prefix]))
        return result


def _step(context: np.ndarray, season: int) -> np.ndarray:
    """Return `[C]` the mean absolute difference of values a season apart; 0 if unknown."""
    if context.shape[1] <= season:
        return np.zeros(len(context))
    gaps = np.abs(context[:, season:] - context[:, :-season])
    seen = np.isfinite(gaps)
    return np.where(seen, gaps, 0.0).sum(1) / np.maximum(seen.sum(1), 1)
