"""A model of the heart's beats: when they come, and the waves that each one makes in each lead.

A wave is a Gaussian of time around the R peak, after McSharry et al., "A dynamical model for
generating synthetic electrocardiogram signals", 2003; intervals vary as the rhythm has it.

Legend: `L` leads, `N` samples, times in s, voltages in mV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

WAVES = {
    "P": (-0.16, 0.022, (0.08, 0.15, 0.05, 0.08, 0.09, 0.10, 0.09, 0.09)),
    "Q": (-0.035, 0.010, (-0.06, -0.10, 0.0, 0.0, -0.04, -0.08, -0.10, -0.10)),
    "R": (0.0, 0.011, (0.65, 1.10, 0.20, 0.40, 0.75, 1.20, 1.15, 0.95)),
    "S": (0.032, 0.012, (-0.12, -0.20, -0.75, -1.00, -0.80, -0.45, -0.20, -0.10)),
    "T": (0.26, 0.050, (0.18, 0.30, -0.08, 0.25, 0.32, 0.34, 0.28, 0.24)),
}
"""Of a normal beat: place and width of each wave, and its height in I, II, V1 to V6."""

ECTOPIC = {
    "R": (0.0, 0.035, (0.7, 1.5, 0.6, 0.9, 1.1, 1.3, 1.2, 1.0)),
    "S": (0.09, 0.040, (-0.3, -0.5, -0.9, -0.8, -0.6, -0.5, -0.4, -0.3)),
    "T": (0.30, 0.070, (-0.3, -0.5, 0.3, -0.3, -0.4, -0.4, -0.4, -0.3)),
}
"""Of a beat that begins in a ventricle: wide, without P, with T on the other side."""

REFERENCE_INTERVAL = 0.8
"""Interval of two beats at which T lies at its place; it moves by the root of the interval."""


@dataclass(frozen=True)
class Rhythm:
    """rates: least and greatest beats a minute. irregular: deviation of the intervals, in shares.
    p: share of the beats with a P wave. flutter: waves a minute of the atria, and their height.
    ectopic: one beat in so many comes early and wide; dropped: one in so many is missing."""

    rates: tuple[float, float]
    irregular: float = 0.03
    p: float = 1.0
    flutter: tuple[float, float] = (0.0, 0.0)
    ectopic: int = 0
    dropped: int = 0


RHYTHMS = {
    "sinus rhythm": Rhythm((60, 100)),
    "sinus bradycardia": Rhythm((38, 55)),
    "sinus tachycardia": Rhythm((110, 160)),
    "atrial fibrillation": Rhythm((70, 140), irregular=0.22, p=0.0, flutter=(420, 0.04)),
    "atrial flutter": Rhythm((70, 110), irregular=0.01, p=0.0, flutter=(300, 0.16)),
    "ventricular ectopic beats": Rhythm((60, 95), ectopic=3),
    "second-degree block": Rhythm((60, 95), dropped=4),
}


@dataclass(frozen=True)
class Beat:
    """time of the R peak; kind: `normal`, `ectopic`, or `dropped` (a P wave alone)."""

    time: float
    interval: float
    kind: str


def beats(rhythm: Rhythm, rate: float, seconds: float, rng: np.random.Generator) -> list[Beat]:
    """Return the beats around `[0, seconds]` of a rhythm at a rate in beats a minute."""
    mean = 60 / rate
    time, number = -rng.uniform(0, mean), int(rng.integers(12))
    made = []
    while time < seconds + 1:
        interval = mean * max(0.4, 1 + rhythm.irregular * rng.standard_normal())
        kind = "normal"
        if rhythm.ectopic and number % rhythm.ectopic == rhythm.ectopic - 1:
            kind = "ectopic"  # early, and the next one late
            made.append(Beat(time - 0.35 * mean, interval, kind))
        else:
            if rhythm.dropped and number % rhythm.dropped == rhythm.dropped - 1:
                kind = "dropped"
            made.append(Beat(time, interval, kind))
        time, number = time + interval, number + 1
    return made


def voltages(
    rhythm: Rhythm, series: list[Beat], times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return `[8, N]` the voltages in I, II and V1 to V6 at some times, of one heart."""
    place = rng.uniform(0.9, 1.1)
    heights = {name: rng.uniform(0.8, 1.2, 8) for name in WAVES}
    total = np.zeros((8, len(times)))
    for beat in series:
        waves = ECTOPIC if beat.kind == "ectopic" else WAVES
        for name, (offset, width, amplitudes) in waves.items():
            if name == "P" and rng.random() >= rhythm.p:
                continue
            if beat.kind == "dropped" and name != "P":
                continue
            stretch = np.sqrt(beat.interval / REFERENCE_INTERVAL) if name == "T" else place
            bump = np.exp(-0.5 * ((times - beat.time - offset * stretch) / width) ** 2)
            total += np.outer(heights[name] * np.array(amplitudes), bump)
    per_minute, height = rhythm.flutter
    if height:
        wander = 0.02 * (rhythm.irregular > 0.1) * np.cumsum(rng.standard_normal(len(times)))
        phase = per_minute / 60 * times + wander + rng.random()
        total += height * np.outer([0.3, 1, 0.6, 0.3, 0.2, 0.2, 0.2, 0.2], 1 - 2 * (phase % 1))
    return total


def twelve_leads(eight: np.ndarray) -> dict[str, np.ndarray]:
    """Return all leads by name: those of the limbs follow from I and II (Einthoven, Goldberger)."""
    first, second = eight[:2]
    limbs = {
        "I": first, "II": second, "III": second - first, "aVR": -(first + second) / 2,
        "aVL": first - second / 2, "aVF": second - first / 2,
    }  # fmt: skip
    return {**limbs, **{f"V{number + 1}": row for number, row in enumerate(eight[2:])}}
