"""Sound -> log-mel spectrogram, or the one waveform at a model's rate.

Legend: `C` channels, `N` samples, `F` frames, `M` mel bands.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from ..base import Processor, ReadError, Sample
from .downmix import mix
from .read import Sound

FLOOR = 1e-10
"""The least power of a band: its logarithm, about -23, is what digital silence holds."""

TOGETHER = 4096
"""Frames whose spectrum is held at a time: a long recording's would be eight times its mels."""

KERNEL = 20_000_000
"""The most taps of a resampling filter; rates without a common divisor need one as large as
their product."""

KAISER_BEST: dict[str, Any] = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}
"""librosa's and torchaudio's filter of that name. What lies above half of the new rate is 60 dB
lower and more; torchaudio's default leaves a tone there at -17 dB, folded back into the sound."""


def mono(sound: Sound, rate: int) -> Tensor:
    """Return `[N]` the channels mixed into one (`downmix`), at `rate` Hz. Raise ReadError for a
    rate that has no practical filter, for a sound without samples or with NaN in it, and where the
    channels cancel."""
    samples = torch.from_numpy(sound.samples)
    if not samples.numel():
        raise ReadError(sound, "it holds no samples", "at least one")
    if not samples.isfinite().all():
        raise ReadError(sound, "samples that are not finite", "numbers")
    wave, cancelled = mix(samples, sound.speakers)
    if cancelled:
        wrong = f"its {len(samples)} channels cancel when mixed: one has the other's phase inverted"
        raise ReadError(sound, wrong, "a cell with channel: 0, or channels in phase")
    if sound.rate == rate:
        return wave
    shared = math.gcd(sound.rate, rate)
    if (sound.rate // shared) * (rate // shared) > KERNEL:
        wrong = f"{sound.rate} Hz, which has no filter of a sane size to {rate} Hz"
        raise ReadError(sound, wrong, "a usual rate (8000, 11025, 16000, 22050, 44100, 48000...)")
    resampled: Tensor = _resampler(sound.rate, rate)(wave)
    return resampled


@functools.lru_cache(maxsize=16)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(source, target, **KAISER_BEST)


def framed(sound: Sound, rate: int, window: float) -> Tensor:
    """As `mono`; ReadError for a sound that is shorter than a window of so many seconds."""
    if sound.seconds < window:
        wrong = f"{1000 * sound.seconds:.4g} ms of sound"
        raise ReadError(sound, wrong, f"at least one window, {1000 * window:.4g} ms")
    return mono(sound, rate)


@dataclass(frozen=True)
class LogMel(Processor):
    """Sound -> `{"mels": float32 [F, M]}`, the natural logarithm of the power in mel bands.

    rate: Hz. mels: bands between low and high (Hz). window, hop: seconds. Frame `i` is centred
    on sample `i * hop`. Nothing is normalised here, so that augmentation sees powers; an
    encoder does that, over the real frames alone.
    """

    rate: int = 16000
    mels: int = 64
    window: float = 0.025
    hop: float = 0.01
    low: float = 20.0
    high: float = 7600.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"high: found bands from {self.low:g} to {self.high:g} Hz, expected "
                f"0 <= low < high <= {self.rate / 2:g} Hz, half the rate"
            )
        if not 1 <= round(self.hop * self.rate) <= round(self.window * self.rate):
            raise ValueError(
                f"hop: found {self.hop} s with a window of {self.window} s, expected at least one "
                f"sample at {self.rate} Hz and at most the window"
            )
        if self.mels < 1 or not (_filters(self).sum(0) > 0).all():
            raise ValueError(
                f"mels: found {self.mels} bands from {self.low:g} to {self.high:g} Hz, some of "
                "them empty; take fewer bands or a longer window"
            )

    @property
    def size(self) -> int:
        """Points of the Fourier transform: the next power of two of the window."""
        return 1 << (round(self.window * self.rate) - 1).bit_length()

    def prepare(self, raw: Sound) -> Sample:
        wave = framed(raw, self.rate, self.window)
        hop, edge = round(self.hop * self.rate), self.size // 2
        wave = F.pad(wave, (edge, edge))  # reflection would need a second half of a window
        frames = range(0, 1 + (len(wave) - self.size) // hop, TOGETHER)
        reach = (TOGETHER - 1) * hop + self.size
        mels = [self._mels(wave[first * hop :][:reach], hop) for first in frames]
        return {"mels": torch.cat(mels).clamp(min=FLOOR).log()}

    def _mels(self, wave: Tensor, hop: int) -> Tensor:
        """`[N] -> [F, M]` power; the first frame begins at the first sample."""
        length = round(self.window * self.rate)
        spectrum = torch.stft(
            wave,
            self.size,
            hop,
            length,
            torch.hann_window(length),
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # [size / 2 + 1, F]
        return power.mT @ _filters(self)


@functools.lru_cache(maxsize=16)
def _filters(mel: LogMel) -> Tensor:
    """Return `[size / 2 + 1, M]` triangles on the HTK scale, as torchaudio makes them."""
    with torch.device("cpu"):  # a processor computes, even if the encoder is on meta
        filters: Tensor = melscale_fbanks(mel.size // 2 + 1, mel.low, mel.high, mel.mels, mel.rate)
    return filters


@dataclass(frozen=True)
class Wave(Processor):
    """Sound -> `{"wave": float32 [N]}` at `rate` Hz.

    normalize: bring it to mean 0 and deviation 1. least: seconds that the model needs.
    """

    rate: int
    normalize: bool
    least: float

    def prepare(self, raw: Sound) -> Sample:
        wave = framed(raw, self.rate, self.least)
        return {
            "wave": torch.nn.functional.layer_norm(wave, wave.shape) if self.normalize else wave
        }
