"""Generated waves: a shape, a period, a trend and noise, with a caption and their continuation.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...base import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Source
from ..series import LazySeries, Series

SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sine": lambda phase: np.sin(2 * np.pi * phase),
    "square": lambda phase: np.where(phase % 1 < 0.5, 1.0, -1.0),
    "triangle": lambda phase: 4 * np.abs((phase + 0.25) % 1 - 0.5) - 1,
    "sawtooth": lambda phase: 2 * (phase % 1) - 1,
}
"""Phase in periods -> values in [-1, 1]."""

SPEEDS = {"fast": 8.0, "medium": 16.0, "slow": 32.0}
"""Samples of a period."""

TRENDS = {"falling": -1.0, "level": 0.0, "rising": 1.0}
"""Change over the context, in amplitudes times 2."""

HELD_OUT = (("square", "rising"), ("sine", "falling"), ("triangle", "level"))
"""Shapes and trends that never meet in `train` and `test`."""

REVISION = 1
"""To be raised whenever equal arguments yield other values."""


@dataclass(frozen=True)
class Wave(LazySeries):
    """The samples `first` to `last` of a wave that begins at 0; its noise is that of its seed."""

    shape: str
    period: float
    slope: float
    noise: float
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    phase: float
    seed: int
    rate: float
    first: int
    last: int

    def series(self) -> Series:
        steps, channels = np.arange(self.last), len(self.scales)
        wave = SHAPES[self.shape](steps / self.period + self.phase) + self.slope * steps
        noise = np.random.default_rng(self.seed).standard_normal((self.last, channels)).T
        values = np.array(self.scales)[:, None] * (wave + self.noise * noise)
        values = (values + np.array(self.offsets)[:, None])[:, self.first :]
        names = tuple(f"channel {number + 1}" for number in range(channels))
        return Series(values, self.rate, names)


class Waves(Source):
    """Rows `series, future, shape, speed, trend, period, caption`, from (seed, split, index).

    split: `train`, `test`, or `held_out`, of shapes with trends that never meet in the other two.
    count: rows. context, horizon: samples of `series`, and of `future`, what follows. channels:
    copies of the wave, each with its own scale, offset and noise. noise: its deviation, in
    amplitudes. missing: share of the values of `series` that were not measured. period: samples of
    a period, by the speed if it is None.
    """

    columns = ("series", "future", "shape", "speed", "trend", "period", "caption")

    def __init__(
        self,
        *,
        split: Literal["train", "test", "held_out"],
        count: PositiveInt = 2000,
        seed: Count = 0,
        context: PositiveInt = 96,
        horizon: PositiveInt = 24,
        channels: PositiveInt = 1,
        rate: PositiveFloat = 1.0,
        noise: NonNegativeFloat = 0.1,
        missing: NonNegativeFloat = 0.0,
        period: PositiveFloat | None = None,
    ) -> None:
        if not 0 <= missing < 1:
            raise ValueError(f"missing: found {missing}, expected a share from 0 to below 1")
        if context < 2:
            raise ValueError(f"context: found {context}, expected at least 2 samples")
        self.split, self.count, self.seed = split, count, seed
        self.context, self.horizon, self.channels = context, horizon, channels
        self.rate, self.noise, self.missing, self.period = rate, noise, missing, period

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
        met = [(s, t) for s in SHAPES for t in TRENDS if ((s, t) in HELD_OUT) == self._held]
        shape, trend = met[int(rng.integers(len(met)))]
        speed = list(SPEEDS)[int(rng.integers(len(SPEEDS)))]
        period = self.period or SPEEDS[speed] * rng.uniform(0.85, 1.15)
        whole: dict[str, Any] = {
            "shape": shape, "period": float(period), "noise": self.noise, "rate": self.rate,
            "slope": 2 * TRENDS[trend] / self.context, "phase": float(rng.random()),
            "scales": tuple(rng.uniform(0.5, 5, self.channels).tolist()),
            "offsets": tuple(rng.uniform(-20, 20, self.channels).tolist()),
            "seed": int(rng.integers(2**31)),
        }  # fmt: skip
        end = self.context + self.horizon
        past = Wave(**whole, first=0, last=self.context)
        return {
            "series": _with_gaps(past, self.missing, rng) if self.missing else past,
            "future": Wave(**whole, first=self.context, last=end),
            "shape": shape, "speed": speed, "trend": trend, "period": float(period),
            "caption": f"a {speed} {shape} wave, {trend}",
        }  # fmt: skip

    @property
    def _held(self) -> bool:
        return self.split == "held_out"

    def key(self, index: int) -> str:
        return f"waves/{self.split}/{self.seed}/{index}"

    def fingerprint(self) -> str:
        options = (
            self.split, self.count, self.seed, self.context, self.horizon, self.channels, self.rate,
            self.noise, self.missing, self.period,
        )  # fmt: skip
        return hashlib.sha256(f"waves {REVISION} {options}".encode()).hexdigest()


def _with_gaps(wave: Wave, share: float, rng: np.random.Generator) -> Series:
    series = wave.series()
    values = np.where(rng.random(series.values.shape) < share, np.nan, series.values)
    values[:, 0] = series.values[:, 0]
    return Series(values, series.rate, series.channels)
