"""The talker with a mouth: a clip drawn from the times of espeak-ng's phonemes, and noisy sound.

It shows that two streams of one moment, each at its own rate, reach one decoder and that the
second helps where the first is drowned in noise. It is no lip reading: no face was ever filmed,
and the mouth is a function of the phonemes that are to be found.

Legend: `T` frames, `P` phonemes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...base import Count, PositiveInt
from .synthetic_speech import RATE, Held, Speech, Talker

SIDE = 32
"""Pixels of a side of the picture."""

MOUTHS = {
    "aA": (0.95, 0.60, 0.3),
    "eE": (0.60, 0.80, 0.4),
    "iIj": (0.30, 1.00, 0.6),
    "oO0": (0.75, 0.35, 0.0),
    "uUw": (0.25, 0.10, 0.0),
    "V@3": (0.45, 0.55, 0.2),
    "pbm": (0.00, 0.60, 0.0),
    "fv": (0.12, 0.65, 1.0),
    "SZ": (0.35, 0.25, 1.0),
    "sz": (0.12, 0.85, 0.9),
    "tdn": (0.25, 0.65, 0.7),
    "TD": (0.30, 0.70, 0.9),
    "r": (0.35, 0.30, 0.3),
    "lL": (0.45, 0.70, 0.3),
    "kgNh": (0.40, 0.60, 0.1),
}
"""Letters of espeak-ng's names of phonemes -> how open, how wide, how much of the teeth is seen."""

REST = (0.0, 0.5, 0.0)
VOWELS = frozenset("aAeEiIoO0uUV@3")
_MOUTH = {letter: mouth for letters, mouth in MOUTHS.items() for letter in letters}


@dataclass(frozen=True)
class Lips:
    """A clip `[T, 32, 32, 3]` uint8 that is drawn when it is read as an array."""

    speech: Speech
    fps: ClassVar[float] = 25.0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        clip = draw(self.mouths(), _colours(self.speech.voice.variant))
        return clip if dtype is None else clip.astype(dtype)

    def mouths(self) -> np.ndarray:
        """Return `[T, 3]` open, wide, teeth: from the middle of a phoneme to the middle of the
        next."""
        utterances, count = self.speech.utterance_starts()
        times, shapes = [0.0], [REST]
        for start, spoken in utterances:
            ends = [first for _, first in spoken.phonemes[1:]] + [len(spoken.samples)]
            for (name, first), end in zip(spoken.phonemes, ends, strict=True):
                parts = list(_shapes(name))
                step = (end - first) / len(parts)
                times += [(start + first + (i + 0.5) * step) / RATE for i in range(len(parts))]
                shapes += parts
        frames = max(1, round(count / RATE * self.fps))
        moments = (np.arange(frames) + 0.5) / self.fps
        tracks = np.array([*shapes, REST]).T  # [3, P]
        return np.stack([np.interp(moments, [*times, count / RATE], t) for t in tracks], axis=1)


def _shapes(name: str) -> Iterator[tuple[float, float, float]]:
    """Yield the mouths of a phoneme: a diphthong has one for each of its vowels."""
    letters = [letter for letter in name if letter in _MOUTH]
    vowels = [letter for letter in letters if letter in VOWELS]
    chosen = vowels or letters[-1:]  # `tS`, `dZ`: it is the second that shows
    yield from [_MOUTH[letter] for letter in chosen] or [REST]


def _colours(variant: str) -> np.ndarray:
    """Return `[2, 3]` colours of the skin and of the lips, a voice's own."""
    rng = np.random.default_rng(zlib.crc32(variant.encode()))
    return np.stack([rng.uniform((150, 105, 80), (240, 195, 170)), rng.uniform(110, 190, 3)]) * [
        [1, 1, 1],
        [1, 0.4, 0.45],
    ]


def draw(mouths: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Mouths `[T, 3]` -> pictures `[T, 32, 32, 3]` uint8: skin, lips, their opening, the teeth."""
    down, right = (np.mgrid[:SIDE, :SIDE] + 0.5) / (SIDE / 2) - 1
    opening, width, teeth = (m[:, None, None] for m in mouths.T)
    half, high = 0.28 + 0.5 * width, 0.02 + 0.5 * opening
    lips = _ellipse(right, down, half + 0.16, high + 0.2)
    inner = _ellipse(right, down, half, high)
    white = inner * teeth * (np.abs(down + 0.5 * high) < 0.4 * high)
    skin, red = colours
    picture = skin + (red - skin) * lips[..., None]
    picture = picture * (1 - inner[..., None]) + np.array([45.0, 15.0, 20.0]) * inner[..., None]
    picture = picture * (1 - white[..., None]) + 235.0 * white[..., None]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _ellipse(x: np.ndarray, y: np.ndarray, half: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return `[T, 32, 32]` 1 inside, 0 outside, with an edge of about a pixel."""
    pixels = (1 - np.hypot(x / half, y / high)) * np.minimum(half, high) * SIDE / 2
    soft: np.ndarray = np.clip(pixels + 0.5, 0, 1)
    return soft


class TalkerLips(Talker):
    """`talker` with a column `lips`: the speaker's mouth, 25 frames a second of 32 x 32 pixels,
    and with noise unless `snr` is set. The other options and columns are the talker's."""

    columns = (*Talker.columns, "lips")

    def __init__(
        self,
        *,
        grammar: Literal["commands", "sentences"] = "commands",
        split: Literal["train", "test"],
        hold: list[Held] | None = None,
        count: PositiveInt = 1000,
        seed: Count = 0,
        snr: float | list[float] | None = 0.0,
        join: list[Count] | None = None,
    ) -> None:
        super().__init__(
            grammar=grammar, split=split, hold=hold, count=count, seed=seed, snr=snr, join=join
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        return {**row, "lips": Lips(row["audio"])}

    def fingerprint(self) -> str:
        shapes = sorted(MOUTHS.items())
        return hashlib.sha256(f"{super().fingerprint()} lips {shapes}".encode()).hexdigest()
