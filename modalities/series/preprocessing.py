"""What a model expects of a series: channels by name, one rate, one scale; fitted in training.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from scipy.signal import resample_poly

from ..base import Fittable, PositiveFloat, PositiveInt, Processor, ReadError, Sample
from .read import read
from .series import Series

LARGEST_FACTOR = 10_000
"""The most by which a series is up- or downsampled on the way to another rate."""

RATE_TOLERANCE = 1e-3
"""Relative difference of two rates that are the same: those of time stamps are measured."""

CONSTANT = 1e-9
"""Spread of a constant channel, in shares of its largest value."""


class Preprocessing(Fittable):
    """channels: names of the channels, in order; those of the first training row by default. rate:
    in Hz, to which series are resampled; None: the one rate of the training rows. normalize: each
    channel by its mean and deviation in the `sample`, in the training rows (`fitted`), or `none`.
    length: the last samples that are kept; a shorter series is refused.
    """

    def __init__(
        self,
        *,
        channels: list[str] | None = None,
        rate: PositiveFloat | None = None,
        normalize: Literal["sample", "fitted", "none"] = "sample",
        length: PositiveInt | None = None,
    ) -> None:
        if channels is not None and (not channels or len(set(channels)) < len(channels)):
            raise ValueError(f"channels: found {channels}, expected different names")
        self.channels, self.rate, self.normalize, self.length = channels, rate, normalize, length
        self.names = tuple(channels or ())
        self.fitted_rate = rate
        self.shift, self.scale = np.zeros(0), np.zeros(0)

    def check_example(self, example: Any) -> None:
        read(example)

    def fit(self, rows: Iterable[Any]) -> None:
        """Fit series. Raise ValueError if they differ in rate or lack a channel of the first."""
        count = mean = spread = np.zeros(0)
        for number, row in enumerate(rows):
            series = read(row)
            if not number:
                self.names = tuple(self.channels or series.channels)
                self.fitted_rate = self.rate or series.rate
                count, mean, spread = np.zeros((3, len(self.names)))
            if self.rate is None and not same_rate(series.rate, self.fitted_rate):
                raise ValueError(
                    f"preprocessing: row {number} has {_hz(series.rate)}, those before it "
                    f"{_hz(self.fitted_rate)}; set rate, to which all are resampled"
                )
            if self.normalize != "fitted":
                continue
            values = self.matched(series).values
            more = (~np.isnan(values)).sum(1)
            row_mean = np.nansum(values, 1) / np.maximum(more, 1)
            gap, total = row_mean - mean, np.maximum(count + more, 1)
            spread = spread + np.nansum((values - row_mean[:, None]) ** 2, 1)
            spread = spread + gap**2 * count * more / total  # Chan et al., 1979
            mean, count = mean + gap * more / total, count + more
        if not self.names:
            raise ValueError("preprocessing: no row to learn from")
        scale = np.sqrt(spread / np.maximum(count, 1))
        self.shift = mean
        self.scale = np.where(scale <= CONSTANT * np.abs(mean), 1.0, scale)

    def state(self) -> dict[str, Any]:
        return {
            "channels": list(self.names), "rate": self.fitted_rate, "normalize": self.normalize,
            "shift": self.shift, "scale": self.scale,
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["normalize"] != self.normalize:
            raise ValueError(
                f"preprocessing: was fitted with normalize: {state['normalize']}, the recipe has "
                f"{self.normalize}; fit again"
            )
        self.names, self.fitted_rate = tuple(state["channels"]), state["rate"]
        self.shift, self.scale = (np.asarray(state[k], np.float64) for k in ("shift", "scale"))

    def settings(self) -> dict[str, Any]:
        """Return all that decides what a series becomes, as JSON."""
        arrays = {"shift": self.shift.tolist(), "scale": self.scale.tolist()}
        return {**self.state(), **arrays, "length": self.length}

    def matched(self, series: Series) -> Series:
        """Return the fitted channels at the fitted rate, cut to `length`. Raise ReadError."""
        series = series.select(self.names)
        if self.fitted_rate is not None and not same_rate(series.rate, self.fitted_rate):
            series = resample(series, self.fitted_rate)
        if self.length is None:
            return series
        if series.steps < self.length:
            raise ReadError(
                series.values, f"{series.steps} samples", f"at least length: {self.length}"
            )
        return series.slice(series.steps - self.length)

    def location(self, series: Series) -> tuple[np.ndarray, np.ndarray]:
        """Return shift and scale `[C]` of a matched series. Raise ReadError for a channel that
        does not vary, if `normalize` is `sample`."""
        if self.normalize == "none":
            return np.zeros(len(self.names)), np.ones(len(self.names))
        if self.normalize == "fitted":
            return self.shift, self.scale
        seen: np.ndarray = np.any(series.mask, axis=1)
        values = np.where(seen[:, None], series.values, 0.0)
        shift, scale = np.nanmean(values, 1), np.nanstd(values, 1)
        constant = seen & (scale <= CONSTANT * np.nanmax(np.abs(values), 1))
        if constant.any():
            channel = int(np.flatnonzero(constant)[0])
            raise ReadError(
                series.values,
                f"the channel {series.channels[channel]!r} is constant, {shift[channel]:g}",
                "one that varies; leave it out by channels, or set normalize: fitted",
            )
        return shift, np.where(seen, scale, 1.0)


class SeriesProcessor(Processor):
    """Series -> `values` float32 `[C, N]`, normalized, 0 where none was measured; `mask` bool
    `[C, N]`, True where one was; `shift`, `scale` float64 `[C]`: `values * scale + shift` are the
    measured ones.

    least: samples that a series must have.
    """

    def __init__(self, preprocessing: Preprocessing, least: int = 1) -> None:
        self.preprocessing, self.least = preprocessing, least

    def prepare(self, raw: Series) -> Sample:
        series = self.preprocessing.matched(raw)
        if series.steps < self.least:
            raise ReadError(raw.values, f"{series.steps} samples", f"at least {self.least}")
        if not series.mask.any():
            names = ", ".join(series.channels)
            raise ReadError(raw.values, f"not one measured value in {names}", "numbers")
        shift, scale = self.preprocessing.location(series)
        values = np.nan_to_num((series.values - shift[:, None]) / scale[:, None], nan=0.0)
        return {
            "values": torch.from_numpy(values.astype(np.float32)),
            "mask": torch.from_numpy(series.mask),
            "shift": torch.from_numpy(np.array(shift, np.float64)),
            "scale": torch.from_numpy(np.array(scale, np.float64)),
        }

    def settings(self) -> dict[str, Any]:
        return {**self.preprocessing.settings(), "least": self.least}


def resample(series: Series, rate: float) -> Series:
    """Return a series at another rate, by scipy's polyphase filter: what lies above half of the new
    rate is removed before. Gaps are bridged by straight lines for the filter, and stay gaps.

    Raise ReadError for a series without a rate, and for rates without a practical filter.
    """
    if series.rate is None:
        raise ReadError(series.values, "a series without a rate", f"one, to get to {rate:g} Hz")
    ratio = Fraction(rate / series.rate).limit_denominator(LARGEST_FACTOR)
    exact = ratio and abs(float(ratio) * series.rate / rate - 1) <= RATE_TOLERANCE
    if not exact or ratio.numerator > LARGEST_FACTOR:
        wrong = f"{series.rate:g} Hz, which has no filter of a sane size to {rate:g} Hz"
        raise ReadError(series.values, wrong, "rates of a simple ratio")
    steps = np.arange(series.steps)
    filled = np.zeros_like(series.values)
    for channel, (row, seen) in enumerate(zip(series.values, series.mask, strict=True)):
        if seen.any():
            filled[channel] = np.interp(steps, steps[seen], row[seen])
    values = resample_poly(filled, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    nearest = np.arange(values.shape[1]) * ratio.denominator / ratio.numerator
    nearest = np.minimum(np.round(nearest).astype(int), series.steps - 1)
    values[~series.mask[:, nearest]] = np.nan
    return Series(values, rate, series.channels, series.start)


def same_rate(a: float | None, b: float | None) -> bool:
    """Return whether two rates are one, or both are unknown."""
    return a == b if a is None or b is None else abs(a / b - 1) <= RATE_TOLERANCE


def _hz(rate: float | None) -> str:
    return "no rate" if rate is None else f"{rate:g} Hz"
