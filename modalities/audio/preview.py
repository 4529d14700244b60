"""A sound in a report: an `<audio>` element that plays it, over its spectrogram.

Legend: `N` samples, `F` frequencies, `T` frames.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from PIL import Image

from .read import Sound

LONGEST = 30.0
"""Seconds that a page holds of one sound; a longer one is cut, and says so."""

HEIGHT, WIDTH = 128, 640
FLOOR = 70.0
"""dB below the loudest point that are drawn as silence."""

DARK, BRIGHT = (250, 250, 252), (28, 42, 94)
"""Colours of silence and of the loudest point."""


def preview(sound: Sound) -> str:
    """HTML of a sound, with everything in the page: playable, and to be looked at."""
    part = sound.segment(0.0, LONGEST)
    cut = f", the first {LONGEST:g} s" if sound.seconds > LONGEST else ""
    said = f"{sound.seconds:.2f} s, {sound.rate} Hz, {len(sound.samples)} channels{cut}"
    return (
        f'<figure style="display:inline-block;margin:0"><img src="data:image/png;base64,'
        f'{_base64(_picture(part))}" width="{WIDTH // 2}" height="{HEIGHT // 2}" '
        f'alt="spectrogram, {said}"><br><audio controls preload="none" '
        f'style="width:{WIDTH // 2}px" src="data:audio/wav;base64,{_base64(_wav(part))}"></audio>'
        f"<figcaption>{said}</figcaption></figure>"
    )


def spectrogram(sound: Sound) -> np.ndarray:
    """Loudness `[F, T]` in dB of the mean of the channels, low frequencies last; 20 ms windows."""
    mono = sound.samples.mean(0)
    window = max(2, round(sound.rate * 0.02))
    hop = max(1, len(mono) // WIDTH, window // 4)
    padded = np.pad(mono, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2
    decibels: np.ndarray = 10 * np.log10(power + 1e-10).T[::-1]
    return decibels


def _picture(sound: Sound) -> bytes:
    level = spectrogram(sound)
    share = np.clip((level - level.max()) / FLOOR + 1, 0, 1)[..., None]
    pixels = np.asarray(DARK) * (1 - share) + np.asarray(BRIGHT) * share
    picture = Image.fromarray(pixels.astype(np.uint8))
    buffer = io.BytesIO()
    picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).save(buffer, format="PNG")
    return buffer.getvalue()


def _wav(sound: Sound) -> bytes:
    """16-bit WAV, in one channel where there are more than browsers play."""
    samples = sound.samples if len(sound.samples) <= 2 else sound.samples.mean(0, keepdims=True)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, sound.rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
