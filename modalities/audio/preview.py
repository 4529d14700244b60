"""A sound in a report: an `<audio>` element that plays it, under its spectrogram.

Recognized words are under their times; if they are long, the picture scrolls.

Legend: `N` samples, `F` frequencies, `T` frames.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
import torch
from PIL import Image

from ..base import Annotations
from . import word_timeline
from .downmix import mix
from .read import Sound

LONGEST = 30.0
"""Seconds that a page holds of one sound; a longer one is cut, with a note."""

HEIGHT, WIDTH = 128, 640
"""px of the picture; it is shown at half of them, so that it is sharp on fine screens."""
FLOOR = 70.0
"""dB below the loudest point that are drawn as silence."""

DARK, BRIGHT = (250, 250, 252), (28, 42, 94)
"""Colours of silence and of the loudest point."""


def preview(sound: Sound, marks: Annotations | None = None) -> str:
    """HTML of a sound, with everything in the page: playable, and to be looked at.

    marks: `words`, `[[word, first second, last second], ...]`.
    """
    part = sound.segment(0.0, LONGEST)
    excerpt = f", the first {LONGEST:g} s" if sound.seconds > LONGEST else ""
    channels = "1 channel" if len(sound.samples) == 1 else f"{len(sound.samples)} channels"
    caption = f"{sound.seconds:.2f} s, {sound.rate} Hz, {channels}{excerpt}"
    words = ((marks or {}).get("words") or (None, None))[0]
    across = word_timeline.width(part.seconds) if words else WIDTH // 2
    image = f"data:image/jpeg;base64,{_base64(_picture(part, 2 * across))}"
    picture = (
        word_timeline.draw(image, words, part.seconds, HEIGHT // 2, caption)
        if words
        else f'<img src="{image}" width="{across}" height="{HEIGHT // 2}" '
        f'alt="spectrogram, {caption}" style="display:block">'
    )
    return (
        f'<figure style="margin:0">{picture}<audio controls preload="none" '
        f'style="display:block;width:100%;max-width:{WIDTH // 2}px" '
        f'src="data:audio/flac;base64,{_base64(_flac(part))}"></audio>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def spectrogram(sound: Sound) -> np.ndarray:
    """Loudness `[F, T]` in dB of the mixed channels, low frequencies last; 20 ms windows."""
    mono = _mixed(sound)
    window = max(2, round(sound.rate * 0.02))
    hop = max(1, len(mono) // WIDTH, window // 4)
    padded = np.pad(mono, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2
    decibels: np.ndarray = 10 * np.log10(power + 1e-10).T[::-1]
    return decibels


def _mixed(sound: Sound) -> np.ndarray:
    """Return `[N]` the mixture of the channels, or the first where they cancel."""
    mixture, cancelled = mix(torch.from_numpy(sound.samples), sound.speakers)
    return sound.samples[0] if cancelled else mixture.numpy()


def _picture(sound: Sound, across: int) -> bytes:
    level = spectrogram(sound)
    share = np.clip((level - level.max()) / FLOOR + 1, 0, 1)[..., None]
    pixels = np.asarray(DARK) * (1 - share) + np.asarray(BRIGHT) * share
    picture = Image.fromarray(pixels.astype(np.uint8))
    buffer = io.BytesIO()
    picture.resize((across, HEIGHT), Image.Resampling.BILINEAR).save(
        buffer, format="JPEG", quality=85
    )
    return buffer.getvalue()


def _flac(sound: Sound) -> bytes:
    """16-bit FLAC, in one channel where there are more than browsers play."""
    samples = sound.samples if len(sound.samples) <= 2 else _mixed(sound)[None]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, sound.rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
