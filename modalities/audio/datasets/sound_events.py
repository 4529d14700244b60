"""The events that `sounds` is made of: their names and their signals.

Properties that a name distinguishes are well apart in the sound: pitches by more than an octave,
lengths and speeds by a factor of three.

Legend: `N` samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATE = 16_000
NUMBERS = ("", "a", "two", "three", "four", "five")
PITCHES = {"low": (180.0, 260.0), "middle": (560.0, 760.0), "high": (1700.0, 2300.0)}
"""Hz."""

LENGTHS = {"short": (0.2, 0.3), "long": (0.8, 1.1)}
"""Seconds."""

SPEEDS = {"slow": 0.28, "fast": 0.09}
"""Seconds from one click to the next."""

FADE = 64
"""Samples in which an event begins and ends."""


@dataclass(frozen=True)
class Event:
    """kind: `tone`, `sweep`, `clicks`, `beeps`, `noise` or `wobble`. phrase: its description.
    first, second: its properties, in the kind's own order. count: clicks or beeps."""

    kind: str
    phrase: str
    first: str
    second: str
    count: int = 1


def _inventory() -> tuple[Event, ...]:
    """Every event that there is."""
    pairs = itertools.product
    events = [Event("tone", f"a {n} {p} tone", n, p) for n, p in pairs(LENGTHS, PITCHES)]
    events += [
        Event("sweep", f"a {n} {quality} tone", n, quality)
        for n, quality in pairs(LENGTHS, ("rising", "falling"))
    ]
    events += [Event("clicks", "a click", "", "")]
    events += [
        Event("clicks", f"{NUMBERS[n]} {speed} clicks", speed, "", n)
        for speed, n in pairs(SPEEDS, range(2, 6))
    ]
    events += [
        Event("beeps", f"{NUMBERS[n]} {p} beeps", p, "", n)
        for p, n in pairs(("low", "high"), range(2, 5))
    ]
    events += [
        Event("noise", f"a {n} {name}", n, name) for n, name in pairs(LENGTHS, ("hiss", "rumble"))
    ]
    events += [
        Event("wobble", f"a {quality} {p} tone", quality, p)
        for quality, p in pairs(("trembling", "warbling"), ("low", "high"))
    ]
    return tuple(events)


EVENTS = _inventory()


def faded(samples: np.ndarray) -> np.ndarray:
    """Without the click that a sudden end would be."""
    ramp = np.minimum(1, np.arange(len(samples)) / FADE)
    faded: np.ndarray = samples * ramp * ramp[::-1]
    return faded


def _oscillate(hertz: np.ndarray) -> np.ndarray:
    """Return `[N]` a tone of a frequency that may change, with one overtone."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    wave: np.ndarray = np.sin(phase) + 0.3 * np.sin(2 * phase)
    return wave


def _tone(event: Event, rng: np.random.Generator) -> np.ndarray:
    count = round(rng.uniform(*LENGTHS[event.first]) * RATE)
    return _oscillate(np.full(count, rng.uniform(*PITCHES[event.second])))


def _sweep(event: Event, rng: np.random.Generator) -> np.ndarray:
    count = round(rng.uniform(*LENGTHS[event.first]) * RATE)
    low, high = rng.uniform(250, 350), rng.uniform(1500, 2000)
    hertz = low * (high / low) ** np.linspace(0, 1, count)
    return _oscillate(hertz if event.second == "rising" else hertz[::-1])


def _clicks(event: Event, rng: np.random.Generator) -> np.ndarray:
    click = rng.standard_normal(200) * np.exp(-np.arange(200) / 30)
    step = round(SPEEDS.get(event.first, 0.1) * rng.uniform(0.9, 1.1) * RATE)
    start = np.arange(event.count) * step + FADE  # the fade leaves the first one alone
    train = np.zeros(start[-1] + len(click))
    for offset in start:
        train[offset : offset + len(click)] = click
    return train


def _beeps(event: Event, rng: np.random.Generator) -> np.ndarray:
    beep = faded(_oscillate(np.full(round(0.08 * RATE), rng.uniform(*PITCHES[event.first]))))
    gap = np.zeros(round(rng.uniform(0.06, 0.09) * RATE))
    return np.concatenate([np.concatenate([beep, gap])] * event.count)


def _hiss(event: Event, rng: np.random.Generator) -> np.ndarray:
    count = round(rng.uniform(*LENGTHS[event.first]) * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    passband = hertz < 300 if event.second == "rumble" else hertz > 2500
    return np.fft.irfft(spectrum * passband, count)


def _wobble(event: Event, rng: np.random.Generator) -> np.ndarray:
    """Seven times a second louder and softer (trembling), or higher and lower (warbling)."""
    count = round(rng.uniform(0.7, 0.9) * RATE)
    swing = np.sin(2 * np.pi * rng.uniform(6, 8) * np.arange(count) / RATE)
    pitch = rng.uniform(*PITCHES[event.second])
    if event.first == "trembling":
        return _oscillate(np.full(count, pitch)) * (0.55 + 0.45 * swing)
    return _oscillate(pitch * 2 ** (swing / 4))


MAKERS: dict[str, Callable[[Event, np.random.Generator], np.ndarray]] = {
    "tone": _tone,
    "sweep": _sweep,
    "clicks": _clicks,
    "beeps": _beeps,
    "noise": _hiss,
    "wobble": _wobble,
}
