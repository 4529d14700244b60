"""The canonical value of a time series, and what makes it a valid one.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ..base import ReadError
from ..messages import did_you_mean

ARRAY = "numbers of [N] or [C, N], NaN where none was measured"

CHANNELS = 1024
"""More are samples in the place of channels."""


@dataclass(frozen=True, eq=False)
class Series:
    """values: float64 `[C, N]`, NaN where no value was measured. rate: samples a second, in Hz;
    None if unknown. channels: their names. start: time of the first sample in s since 1970 (UTC);
    None if it is not known."""

    values: np.ndarray
    rate: float | None
    channels: tuple[str, ...]
    start: float | None = None

    @property
    def mask(self) -> np.ndarray:
        """Return bool `[C, N]`, True where a value was measured."""
        mask: np.ndarray = ~np.isnan(self.values)
        return mask

    @property
    def steps(self) -> int:
        return self.values.shape[1]

    def select(self, names: Sequence[str]) -> Series:
        """Return the channels of these names, in their order. Raise ReadError for another name."""
        for name in names:
            if name not in self.channels:
                raise ReadError(
                    self.values,
                    f"no channel {name!r}",
                    f"one of {', '.join(self.channels)}{did_you_mean(name, self.channels)}",
                )
        rows = [self.channels.index(name) for name in names]
        return replace(self, values=self.values[rows], channels=tuple(names))

    def slice(self, first: int, last: int | None = None) -> Series:
        """Return the samples from `first` up to `last`, with the time at which they begin."""
        start = self.start
        if start is not None and first:
            start += first / self.rate if self.rate else 0.0
        return replace(self, values=self.values[:, first:last], start=start)

    def segment(self, start: float, end: float | None) -> Series:
        """Return the samples from `start` to `end`, in s from the first one."""
        if self.rate is None:
            raise ReadError(self.values, "a segment in s of a series without a rate", "its rate")
        return self.slice(round(start * self.rate), None if end is None else round(end * self.rate))

    def time(self, index: float) -> str:
        """Return the time of a sample as a text, see `time_text`."""
        return time_text(index, self.rate, self.start)


def time_text(index: float, rate: float | None, start: float | None) -> str:
    """Return the time of a sample: the date, or the s from the first sample where `start` is not
    known, or the number of the sample where the rate is not."""
    if rate is None:
        return f"sample {index:g}"
    seconds = index / rate
    if start is None:
        return f"{seconds:.6g} s"
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=start + seconds)
    return f"{moment:%Y-%m-%d}" if rate < 1 / 43_200 else f"{moment:%Y-%m-%d %H:%M:%S}"


class LazySeries(ABC):
    """A cell whose series is made when it is read: a row's other columns cost nothing."""

    @abstractmethod
    def series(self) -> Series:
        """Return the series itself; equal at each access."""


def checked_rate(rate: Any, source: object) -> float | None:
    """Return a rate in Hz, or None. Raise ReadError for another value."""
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)):
        raise ReadError(source, f"a rate of {rate!r}", "Hz, above 0")
    if not 0 < rate < float("inf"):
        raise ReadError(source, f"a rate of {rate!r}", "Hz, above 0")
    return float(rate)


def checked(series: Series, source: object) -> Series:
    """Return a series as float64. Raise ReadError if it has no measured value, fewer than two
    samples, or infinite ones."""
    values = np.ascontiguousarray(series.values, np.float64)
    channels, steps = values.shape
    if not channels or not steps:
        raise ReadError(source, "it holds no samples", "at least two")
    if channels > CHANNELS:
        raise ReadError(source, f"{channels} channels of {steps} samples", "[C, N]; transpose it")
    if steps < 2:
        raise ReadError(source, "one sample", "at least two, or it is no series")
    if np.isinf(values).any():
        channel, step = np.argwhere(np.isinf(values))[0]
        wrong = f"{values[channel, step]} at sample {step} of {series.channels[channel]!r}"
        raise ReadError(source, wrong, ARRAY)
    if np.isnan(values).all():
        raise ReadError(source, "not one measured value: all are NaN", "numbers")
    return replace(series, values=values)
