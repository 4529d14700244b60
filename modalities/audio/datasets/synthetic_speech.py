"""Spoken sentences: espeak-ng speaks the sentences of a grammar, in a hundred voices.

It is one synthesiser: models trained on it, and every figure, do not transfer to people's
speech. Sentence and speaker follow from (seed, split, index) alone; the sound is made when
its cell is read, so that keys, texts and lengths cost nothing.

Legend: `N` samples.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...base import Count, PositiveInt, ReadError, Source
from ..read import LazySound, Sound
from .espeak import Utterance, Voice, require, speak, version
from .espeak_voices import speaker
from .grammar import GRAMMARS

Held = Literal["voices", "accents", "sentences"]

RATE = 22_050
LOUDNESS = (-32.0, -20.0)
"""Lowest and highest level of an utterance, in dB of its mean power below full scale."""

PAUSE = (0.15, 0.6)
"""Shortest and longest silence before each utterance of a longer recording, and at its end, s."""

REVISION, NOISE_REVISION = 1, 2
"""To be raised whenever equal arguments yield other texts or sounds, or other noise alone."""


@dataclass(frozen=True)
class Speech(LazySound):
    """A recording that is made when it is read: utterances of one voice, pauses, perhaps noise.

    pauses: seconds of silence before each of the texts, and at the end. loudness: dB. snr: dB
    between the mean power of the speech and the noise, None without noise. seed: the noise's.
    """

    texts: tuple[str, ...]
    voice: Voice
    pauses: tuple[float, ...]
    loudness: float
    snr: float | None
    seed: int

    def utterance_starts(self) -> tuple[list[tuple[int, Utterance]], int]:
        """Return the utterances, each with the sample at which it begins, and the samples in
        all."""
        utterances, start = [], round(self.pauses[0] * RATE)
        for text, pause in zip(self.texts, self.pauses[1:], strict=True):
            spoken = speak(text, self.voice)
            if spoken.rate != RATE:  # an unexpected build of espeak-ng
                raise ReadError("talker", f"espeak-ng speaks at {spoken.rate} Hz", f"{RATE} Hz")
            utterances.append((start, spoken))
            start += len(spoken.samples) + round(pause * RATE)
        return utterances, start

    def sound(self) -> Sound:
        utterances, count = self.utterance_starts()
        clean = np.zeros(count, np.float32)
        for start, spoken in utterances:
            samples = _levelled(spoken.samples.astype(np.float32) / 32768, self.loudness)
            clean[start : start + len(samples)] = samples
        if self.snr is None:
            return Sound(clean[None], RATE)
        power = _power(clean) if self.texts else 10 ** (self.loudness / 10)
        noise = _noise(count, self.seed) * np.sqrt(power / 10 ** (self.snr / 10))
        mixed = clean + noise
        return Sound((mixed / max(1.0, np.abs(mixed).max()))[None].astype(np.float32), RATE)

    def seconds(self) -> float:
        """Return how long it takes, estimated from the letters and the voice's rate."""
        return sum(_estimate(text, self.voice.rate) for text in self.texts) + sum(self.pauses)

    def part(self, number: int) -> Speech:
        """Return one of its utterances as a separate recording."""
        ends = (self.pauses[0], self.pauses[-1])
        seed = self.seed + number + 1
        return Speech((self.texts[number],), self.voice, ends, self.loudness, self.snr, seed)


class Talker(Source):
    """Rows `audio, text, words, seconds, voice, accent, variant, parts`, from (seed, split, index).

    grammar: `commands` (61 words) or `sentences` (8 to 25 words of 344). split: `train`, or
    `test`, which holds out the properties in `hold`: voices, accents, sentences (in `sentences`,
    each then has a pair of neighbours that are not in training); the rest of a test row is as in
    training, and `train` has none of what any `hold` would hold out. count: rows. snr: dB of noise,
    or a range that each row draws from; None is clean. join: lowest and highest number of
    utterances of a row (0 is silence). text: the words as they were given to the synthesiser.
    seconds: an estimate, for `train.sampler.column`. parts: `{audio, text}` of each utterance of a
    row by itself.
    """

    columns: tuple[str, ...] = (
        "audio",
        "text",
        "words",
        "seconds",
        "voice",
        "accent",
        "variant",
        "parts",
    )

    def __init__(
        self,
        *,
        grammar: Literal["commands", "sentences"] = "commands",
        split: Literal["train", "test"],
        hold: list[Held] | None = None,
        count: PositiveInt = 1000,
        seed: Count = 0,
        snr: float | list[float] | None = None,
        join: list[Count] | None = None,
    ) -> None:
        self.grammar, self.split, self.count, self.seed = grammar, split, count, seed
        self.hold = _held_out(split, hold)
        self.snr = _range("snr", [snr, snr] if isinstance(snr, (int, float)) else snr)
        lowest, highest = _range("join", None if join is None else [*map(float, join)]) or (1, 1)
        self.join = (int(lowest), int(highest))
        require()
        if count < 1:
            raise ValueError(f"count: found {count}, expected at least 1 row")
        if self.join[0] < 0:
            raise ValueError(f"join: found {self.join[0]} utterances, expected 0 or more")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        speech = self.speech(index)
        text = " ".join(speech.texts)
        voice = speech.voice
        return {
            "audio": speech,
            "text": text,
            "words": len(text.split()),
            "seconds": speech.seconds(),
            "voice": f"{voice.accent}+{voice.variant}",
            "accent": voice.accent,
            "variant": voice.variant,
            "parts": [
                {"audio": speech.part(i), "text": words} for i, words in enumerate(speech.texts)
            ],
        }

    def speech(self, index: int) -> Speech:
        """Return the recording of a row, not yet made."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        seed_text = f"{self.grammar} {self.split} {' '.join(self.hold)}"
        rng = np.random.default_rng([self.seed, zlib.crc32(seed_text.encode()), index])
        voice = speaker(rng, "voices" in self.hold, "accents" in self.hold)
        grammar, held_out = GRAMMARS[self.grammar], "sentences" in self.hold
        count = int(rng.integers(self.join[0], self.join[1] + 1))
        single = self.join == (1, 1)
        return Speech(
            texts=tuple(grammar.draw(rng, held_out) for _ in range(count)),
            voice=voice,
            pauses=(0.05, 0.05) if single else tuple(rng.uniform(*PAUSE, count + 1).tolist()),
            loudness=float(rng.uniform(*LOUDNESS)),
            snr=None if self.snr is None else float(rng.uniform(*self.snr)),
            seed=int(rng.integers(2**31)),
        )

    @property
    def groups(self) -> Sequence[object]:
        """The speaker of each row."""
        voices = (self.speech(index).voice for index in range(self.count))
        return [(voice.accent, voice.variant) for voice in voices]

    def key(self, index: int) -> str:
        held_out = "".join(f"/{name}" for name in self.hold)
        return f"talker/{self.grammar}/{self.split}{held_out}/{self.seed}/{index}"

    def fingerprint(self) -> str:
        options = (self.grammar, self.split, self.hold, self.count, self.seed, self.snr, self.join)
        noise = "" if self.snr is None else f" noise {NOISE_REVISION}"
        description = f"talker {REVISION} {version()} {options}{noise}"
        return hashlib.sha256(description.encode()).hexdigest()


def _held_out(split: str, hold: list[Held] | None) -> tuple[Held, ...]:
    if split == "train":
        if hold:
            raise ValueError(f"hold: found {hold} with split: train, expected it on split: test")
        return ()
    names: tuple[Held, ...] = ("voices", "accents", "sentences")
    chosen = ["voices", "sentences"] if hold is None else hold
    return tuple(name for name in names if name in chosen)


def _range(name: str, values: list[float] | None) -> tuple[float, float] | None:
    """Lowest and highest of an option that may be a range."""
    if values is None:
        return None
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name}: found {values}, expected [lowest, highest]")
    return values[0], values[1]


def _levelled(samples: np.ndarray, decibels: float) -> np.ndarray:
    """At a mean power in dB below full scale; never clipped."""
    gain = 10 ** (decibels / 20) / np.sqrt(_power(samples))
    return samples * np.float32(min(gain, 0.99 / max(1e-6, float(np.abs(samples).max()))))


def _power(samples: np.ndarray) -> float:
    """Mean power outside silence."""
    values = samples.astype(np.float64)
    return float(values @ values) / max(1, int(np.count_nonzero(values))) + 1e-12


def _noise(count: int, seed: int) -> np.ndarray:
    """Noise of unit power whose spectrum falls by a random amount, from white to pink."""
    rng = np.random.default_rng(seed)
    size = 1 << max(0, count - 1).bit_length()  # a prime length would take ten times as long
    spectrum = np.fft.rfft(rng.standard_normal(size))
    tilt = np.maximum(np.arange(len(spectrum)), 50.0 * size / RATE) ** (-rng.uniform(0, 0.5))
    noise = np.fft.irfft(spectrum * tilt, size)[:count]
    shaped: np.ndarray = noise / np.sqrt((noise**2).mean())
    return shaped


def _estimate(text: str, rate: int) -> float:
    """Return seconds of a text: fitted to what espeak-ng takes, voices differ by a fifth."""
    return (0.2 + 0.048 * len(text)) * 175 / rate
