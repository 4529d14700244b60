"""Generated electrocardiograms with their rhythm, rate and noise.

Legend: `L` leads, `N` samples.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...base import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Source
from ..series import LazySeries, Series
from .beats import LEADS, RHYTHMS, beats, twelve_leads, voltages

NOISES = {"little noise": 0.01, "some noise": 0.04, "much noise": 0.1}
"""Deviation of the noise, in mV."""

WANDER, MAINS = 0.1, 0.02
"""Heights in mV of the baseline's wandering with the breath, and of the mains at 50 Hz."""

REVISION = 1
"""To be raised whenever equal arguments yield other values."""


@dataclass(frozen=True)
class Recording(LazySeries):
    """One recording, made when it is read."""

    rhythm: str
    beats_per_minute: float
    noise: float
    seed: int
    leads: tuple[str, ...]
    seconds: float
    rate: float

    def series(self) -> Series:
        rng = np.random.default_rng(self.seed)
        rhythm = RHYTHMS[self.rhythm]
        times = np.arange(round(self.seconds * self.rate)) / self.rate
        train = beats(rhythm, self.beats_per_minute, self.seconds, rng)
        leads = twelve_leads(voltages(rhythm, train, times, rng))
        values = np.stack([leads[name] for name in self.leads])
        breath = np.sin(2 * np.pi * rng.uniform(0.15, 0.35) * times + rng.uniform(0, 6))
        mains = np.sin(2 * np.pi * 50 * times) if self.rate > 100 else np.zeros_like(times)
        sway = rng.uniform(0, WANDER, (len(values), 1)) * breath
        grain = self.noise * rng.standard_normal(values.shape)
        return Series(values + sway + rng.uniform(0, MAINS) * mains + grain, self.rate, self.leads)


class Ecg(Source):
    """Rows `series, rhythm, beats_per_minute, noise, caption`, from (seed, split, index); each row
    is another heart.

    count: rows. rhythms: those that occur, by default all. leads: out of I, II, III, aVR, aVL, aVF,
    V1 to V6. seconds, rate: length, and samples a second. noise: the deviation in mV of all rows;
    None: one of three levels, which the caption tells.
    """

    columns = ("series", "rhythm", "beats_per_minute", "noise", "caption")

    def __init__(
        self,
        *,
        split: Literal["train", "test"],
        count: PositiveInt = 2000,
        seed: Count = 0,
        rhythms: list[str] | None = None,
        leads: list[str] | None = None,
        seconds: PositiveFloat = 8.0,
        rate: PositiveFloat = 100.0,
        noise: NonNegativeFloat | None = None,
    ) -> None:
        for option, chosen, choices in (("rhythms", rhythms, RHYTHMS), ("leads", leads, LEADS)):
            for name in chosen or ():
                if name not in choices:
                    raise ValueError(f"{option}: found {name!r}, expected {', '.join(choices)}")
        if seconds * rate < 2:
            raise ValueError(f"seconds: found {seconds} at {rate} Hz, expected two samples")
        self.split, self.count, self.seed = split, count, seed
        self.rhythms, self.leads = tuple(rhythms or RHYTHMS), tuple(leads or ("I", "II", "V1"))
        self.seconds, self.rate, self.noise = seconds, rate, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
        rhythm = self.rhythms[int(rng.integers(len(self.rhythms)))]
        per_minute = float(rng.uniform(*RHYTHMS[rhythm].rates))
        level = list(NOISES)[int(rng.integers(len(NOISES)))]
        noise = NOISES[level] if self.noise is None else self.noise
        recording = Recording(
            rhythm, per_minute, noise, int(rng.integers(2**31)), self.leads, self.seconds, self.rate
        )
        rate = round(per_minute / 5) * 5
        level_text = f", {level}" if self.noise is None else ""
        return {
            "series": recording, "rhythm": rhythm, "beats_per_minute": per_minute, "noise": noise,
            "caption": f"{rhythm} at about {rate} beats a minute{level_text}",
        }  # fmt: skip

    def key(self, index: int) -> str:
        return f"ecg/{self.split}/{self.seed}/{index}"

    def fingerprint(self) -> str:
        options = (
            self.split, self.count, self.seed, self.rhythms, self.leads, self.seconds, self.rate,
            self.noise,
        )  # fmt: skip
        return hashlib.sha256(f"ecg {REVISION} {options}".encode()).hexdigest()
