"""Augmentation of prepared sound: of log-mels, where it costs next to nothing, and of waveforms.

Masks after SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779), without time warping;
the rest is done on powers, `exp` of the processor's values: noise adds, a room smears, an
equaliser multiplies.

Legend: `F` frames, `M` mel bands, `N` samples.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Count, NonNegativeFloat, Probability, Sample

FASTEST = 0.25
"""A signal that is shortened by more has too few frames for its transcript (CTC)."""

ECHO = 0.5
"""The largest power of all echoes together, in shares of the direct sound."""


STEEPEST = 15.0
"""dB by which the noise's spectrum falls or rises over the bands, at most."""


class MelAugment:
    """New values for natural log-mels `mels [F, M]`, at random; options of 0 are off.

    In this order: speed: largest change of the number of frames, 0.1 for 0.9 to 1.1. room: longest
    decay of the echoes by 60 dB, in frames. noise: lowest and highest ratio of mean power to
    noise, dB, for a share `noise_chance` of the samples. tilt: largest fall or rise of the spectrum
    from the lowest to the highest band, dB. gain: largest change of level, dB. time_masks,
    time_width: number of masks, and the widest as a share of the frames; band_masks, band_width:
    the same of the bands. A masked value is the sample's mean.
    """

    def __init__(
        self,
        *,
        speed: NonNegativeFloat = 0.0,
        room: NonNegativeFloat = 0.0,
        tilt: NonNegativeFloat = 0.0,
        noise: list[float] | None = None,
        noise_chance: Probability = 0.5,
        gain: NonNegativeFloat = 0.0,
        time_masks: Count = 0,
        time_width: Probability = 0.05,
        band_masks: Count = 0,
        band_width: Probability = 0.2,
    ) -> None:
        if not 0 <= speed <= FASTEST:
            raise ValueError(
                f"speed: found {speed}, expected 0 to {FASTEST}; with fewer frames a transcript "
                "does not fit"
            )
        for name, value in (("room", room), ("tilt", tilt), ("gain", gain)):
            if value < 0:
                raise ValueError(f"{name}: found {value}, expected 0 or more")
        for name, share in (
            ("noise_chance", noise_chance),
            ("time_width", time_width),
            ("band_width", band_width),
        ):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: found {share}, expected a share from 0 to 1")
        for name, count in (("time_masks", time_masks), ("band_masks", band_masks)):
            if count < 0:
                raise ValueError(f"{name}: found {count}, expected 0 or more")
        self.speed, self.room, self.tilt, self.gain = speed, room, tilt, gain
        self.noise, self.noise_chance = _ratios(noise), noise_chance
        self.time_masks, self.time_width = time_masks, time_width
        self.band_masks, self.band_width = band_masks, band_width

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; equal generator states give equal values."""
        mels = _tensor(sample, "mels", 2, "wave")
        if self.speed:
            mels = _resample(mels, 1 + rng.uniform(-self.speed, self.speed))
        if self.room or self.noise is not None:
            mels = self._in_powers(mels, rng)
        if self.tilt:
            mels = mels + _slope(mels.shape[1], rng.uniform(-self.tilt, self.tilt))
        if self.gain:
            mels = mels + _nepers(rng.uniform(-self.gain, self.gain))
        mean = mels.mean()
        for _ in range(self.time_masks):
            mels = _mask(mels, 0, self.time_width, mean, rng)
        for _ in range(self.band_masks):
            mels = _mask(mels, 1, self.band_width, mean, rng)
        return {**sample, "mels": mels}

    def _in_powers(self, mels: Tensor, rng: np.random.Generator) -> Tensor:
        noisy = self.noise is not None and rng.random() < self.noise_chance
        if not self.room and not noisy:
            return mels
        power = mels.exp()
        if self.room:
            power = _reverberate(power, rng.uniform(1, max(1.0, self.room)), rng.uniform(0, ECHO))
        if noisy and self.noise is not None:
            power = _add_noise(power, rng.uniform(*self.noise), rng)
        return power.log()


class WaveAugment:
    """New values for `wave [N]`: noise and level alone.

    noise: lowest and highest ratio of mean power to white noise, dB, for a share `noise_chance`
    of the samples. gain: largest change of level, dB.
    """

    def __init__(
        self,
        *,
        noise: list[float] | None = None,
        noise_chance: Probability = 0.5,
        gain: NonNegativeFloat = 0.0,
    ) -> None:
        if not 0 <= noise_chance <= 1:
            raise ValueError(f"noise_chance: found {noise_chance}, expected a share from 0 to 1")
        if gain < 0:
            raise ValueError(f"gain: found {gain}, expected 0 or more")
        self.noise, self.noise_chance, self.gain = _ratios(noise), noise_chance, gain

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; equal generator states give equal values."""
        wave = _tensor(sample, "wave", 1, "audio")
        if self.noise is not None and rng.random() < self.noise_chance:
            ratio = 10 ** (-rng.uniform(*self.noise) / 20)
            grain = torch.from_numpy(rng.standard_normal(len(wave), dtype=np.float32))
            wave = wave + wave.square().mean().sqrt() * ratio * grain
        if self.gain:
            wave = wave * 10 ** (rng.uniform(-self.gain, self.gain) / 20)
        return {**sample, "wave": wave}


def _ratios(noise: list[float] | None) -> tuple[float, float] | None:
    if noise is None:
        return None
    if len(noise) != 2 or not noise[0] <= noise[1]:
        raise ValueError(f"noise: found {noise}, expected [lowest, highest] in dB")
    return noise[0], noise[1]


def _tensor(sample: Sample, name: str, dims: int, other: str) -> Tensor:
    tensor = sample.get(name)
    if tensor is None or tensor.ndim != dims:
        shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in sample.items())
        raise ValueError(
            f"augment: wants {name} of {dims} dimensions, this encoder's samples hold {shapes}; "
            f"try type: {other}"
        )
    return tensor


def _nepers(decibels: float) -> float:
    """dB as a difference of natural logarithms of power."""
    return decibels * math.log(10) / 10


def _resample(mels: Tensor, factor: float) -> Tensor:
    """`[F, M]` -> `[round(F * factor), M]`, linear between frames."""
    frames = max(1, round(len(mels) * factor))
    return F.interpolate(mels.T[None], size=frames, mode="linear", align_corners=False)[0].T


def _reverberate(power: Tensor, decay: float, echo: float) -> Tensor:
    """Echoes whose power falls by 60 dB in `decay` frames, `echo` of the direct one in all."""
    steps = torch.arange(1, max(2, math.ceil(decay / 2)))  # 30 dB: what follows is not heard
    tail = 10 ** (-6 * steps / decay)
    kernel = torch.cat([(echo * tail / tail.sum()).flip(0), torch.ones(1)]).to(power.dtype)
    padded = F.pad(power.T[:, None], (len(kernel) - 1, 0))  # [M, 1, K - 1 + F]
    smeared: Tensor = F.conv1d(padded, kernel[None, None])[:, 0]
    return smeared.T


def _slope(bands: int, decibels: float) -> Tensor:
    """Return `[M]` a straight line through 0 in the middle."""
    return torch.linspace(-0.5, 0.5, bands) * _nepers(decibels)


def _add_noise(power: Tensor, ratio: float, rng: np.random.Generator) -> Tensor:
    """Noise of a random slope, `ratio` dB below the mean power, its grain that of a periodogram."""
    profile = _slope(power.shape[1], rng.uniform(-STEEPEST, STEEPEST)).exp()
    level = power.mean() * 10 ** (-ratio / 10) / profile.mean()
    grain = torch.from_numpy(rng.standard_exponential(tuple(power.shape), dtype=np.float32))
    return power + grain.to(power.dtype) * (profile * level)


def _mask(mels: Tensor, dim: int, share: float, value: Tensor, rng: np.random.Generator) -> Tensor:
    size = mels.shape[dim]
    width = int(rng.integers(0, int(size * share) + 1))
    start = int(rng.integers(0, size - width + 1))
    positions = torch.arange(size)
    hit = (positions >= start) & (positions < start + width)
    return torch.where(hit[:, None] if dim == 0 else hit, value, mels)
