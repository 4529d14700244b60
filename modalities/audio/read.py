"""Sound as people have it -> one canonical value: float32 samples and their rate.

Files are decoded by soundfile (libsndfile): WAV, FLAC, OGG, MP3, AIFF..., detected by their
content, never by their name. Nothing is resampled or mixed here: a processor does that, since
its weights define the rate.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from ..base import ReadError, only_read_errors
from .decode import SOUND, decode_file

ARRAY = "int8/16/32, uint8, or floats in [-1, 1], of [N] or [C, N]"
CHANNELS = 64
"""More are samples in the place of channels."""

OVERSHOOT = 4.0
"""Float samples a little beyond 1 come from codecs and mixing and are saturated, as a loudspeaker
would; beyond this they are integers that were turned into floats."""

KEYS = (
    *("path", "bytes", "array", "rate", "sampling_rate", "channel"),
    *("start", "end", "offset", "duration"),
)
"""What a cell may hold; `offset` is another name of `start`, `duration` counts from there."""

_FURTHER = {"AIFF": ("AIF", "AIFC"), "OGG": ("OGA", "OPUS"), "NIST": ("SPH",), "AU": ("SND",)}
_HEADERLESS = frozenset(["RAW"])


@dataclass(frozen=True, eq=False)
class Sound:
    """samples: float32 `[C, N]` in [-1, 1]. rate: samples a second, in Hz. speakers: the
    loudspeaker of each channel is meant for, where that is known (a kind of `downmix.WEIGHTS`)."""

    samples: np.ndarray
    rate: int
    speakers: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.samples.shape[-1] / self.rate

    def segment(self, start: float, end: float | None) -> Sound:
        """Return the part from `start` to `end` seconds; nothing where they lie outside."""
        last = None if end is None else round(end * self.rate)
        samples = self.samples[:, round(start * self.rate) : last]
        return Sound(samples, self.rate, self.speakers)


class LazySound(ABC):
    """A cell whose sound is made when it is read: a row's other columns cost nothing."""

    @abstractmethod
    def sound(self) -> Sound:
        """Return the sound itself; equal at each access."""


@only_read_errors(SOUND)
def read(source: Any) -> Sound:
    """Any source of sound -> `Sound`.

    source: a path, bytes, a binary file object, a `Sound` or `LazySound`, `(array, rate)`, or a
    cell with `path`, `bytes` or `array` (then `rate` or `sampling_rate` in Hz as well). A cell
    may name a segment in seconds, `start` (or `offset`) and `end` (or `duration`): of a file, only
    that is decoded; and `channel: 0`, one of several. Arrays are `[N]` or `[C, N]`. Raise
    ReadError for a value that is no sound, empty, truncated or not finite, and for other keys.
    """
    if isinstance(source, LazySound):
        source = source.sound()
    if isinstance(source, Sound):
        return _checked(source.samples, source.rate, source, source.speakers)
    if isinstance(source, Mapping):
        return _from_cell(source)
    if isinstance(source, tuple) and len(source) == 2:
        return _from_array(source[0], source[1], source[0])
    if isinstance(source, (str, Path, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        return _from_file(source, 0.0, None)
    if hasattr(source, "__array__"):
        raise ReadError(source, "an array without its rate", "(array, rate in Hz)")
    raise ReadError(source, "no kind of sound", "a path, bytes, a file or (array, rate)")


def suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the files that libsndfile can decode."""
    formats = soundfile.available_formats()
    further = (name for kind, names in _FURTHER.items() if kind in formats for name in names)
    return frozenset(f".{name.lower()}" for name in (*formats, *further) if name not in _HEADERLESS)


def _from_cell(cell: Mapping[str, Any]) -> Sound:
    name = cell.get("path") or cell.get("bytes") or "a cell"
    unknown = sorted(str(key) for key in cell if key not in KEYS and cell[key] is not None)
    if unknown:
        raise ReadError(name, f"unknown keys {', '.join(unknown)}", ", ".join(KEYS))
    start, end = _span(cell, name)
    rate = cell.get("sampling_rate") if cell.get("rate") is None else cell["rate"]
    source = next((cell[k] for k in ("array", "bytes", "path") if cell.get(k) is not None), None)
    if source is None or (isinstance(source, str) and not source):
        wrong = f"a cell with the keys {sorted(map(str, cell))}"
        raise ReadError(cell, wrong, "'path', 'bytes' or 'array' in it")
    name = cell["path"] if cell.get("path") and cell.get("array") is None else source
    if cell.get("array") is not None:
        recording = _from_array(source, rate, source)
        sound = _checked(recording.segment(start, end).samples, recording.rate, source)
    else:
        sound = _from_file(source, start, end, name)
        if rate is not None and rate != sound.rate:
            raise ReadError(name, f"has {sound.rate} Hz beside rate: {rate}", "the file's own rate")
    return _channel(sound, cell.get("channel"), name)


def _channel(sound: Sound, channel: Any, name: object) -> Sound:
    """Return the one channel that a cell names, from 0; all where it names none."""
    if channel is None:
        return sound
    count = len(sound.samples)
    is_integer = isinstance(channel, Integral) and not isinstance(channel, bool)
    if not is_integer or not 0 <= channel < count:
        raise ReadError(name, f"channel {channel!r} of {count}", f"0 to {count - 1}")
    return Sound(np.ascontiguousarray(sound.samples[int(channel)][None]), sound.rate)


def _span(cell: Mapping[str, Any], name: object) -> tuple[float, float | None]:
    """Return start and end in s of the segment that a cell names; the end may be open."""
    start, end = (_seconds(cell, keys, name) for keys in (("start", "offset"), ("end",)))
    duration = _seconds(cell, ("duration",), name)
    begin = 0.0 if start is None else start
    if duration is not None:
        if end is not None:
            raise ReadError(name, "'end' and 'duration' of one segment", "one of them")
        end = begin + duration
    if not (0 <= begin < float("inf")) or (end is not None and not end > begin):
        raise ReadError(name, f"a segment from {begin} to {end} s", "0 <= start < end")
    return begin, end


def _seconds(cell: Mapping[str, Any], keys: tuple[str, ...], name: object) -> float | None:
    """Return the seconds under one of some keys."""
    values = {key: cell[key] for key in keys if cell.get(key) is not None}
    if len(values) > 1:
        raise ReadError(name, f"{' and '.join(map(repr, values))} of one segment", "one of them")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise ReadError(name, f"{key} is {value!r}", "a number of seconds")
        return float(value)
    return None


def _from_file(source: Any, start: float, end: float | None, name: object = None) -> Sound:
    name = source if name is None else name
    samples, rate, speakers = decode_file(source, start, end, name)
    return _checked(samples, rate, name, speakers)


def _from_array(array: Any, rate: Any, source: object) -> Sound:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    values = np.asarray(array)
    if values.ndim not in (1, 2) or values.dtype.kind not in "iuf":
        raise ReadError(source, f"an array {values.dtype} {values.shape}", ARRAY)
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not rate > 0:
        raise ReadError(source, f"an array with rate {rate}", "its rate in Hz")
    if int(rate) != rate:
        raise ReadError(source, f"a rate of {rate} Hz", "a whole number")
    return _checked(_to_floats(np.atleast_2d(values), source), int(rate), source)


def _to_floats(values: np.ndarray, source: object) -> np.ndarray:
    """Any kind of number as float32 of the same loudness; unsigned bytes lie around 128."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype in (np.int8, np.int16, np.int32):
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    raise ReadError(source, f"values of type {values.dtype}", ARRAY)


def _checked(
    samples: np.ndarray, rate: int, source: object, speakers: tuple[str, ...] = ()
) -> Sound:
    channels, count = samples.shape
    if not count or not channels:
        raise ReadError(source, "it holds no samples", "at least one")
    if channels > CHANNELS:
        raise ReadError(source, f"{channels} channels of {count} samples", "[C, N]; transpose it")
    peak = float(max(samples.max(), -samples.min()))  # without a copy of a long recording
    if not np.isfinite(peak):
        bad = int((~np.isfinite(samples)).sum())
        raise ReadError(source, f"{bad} of {samples.size} samples are not finite", "numbers")
    if peak > OVERSHOOT:
        raise ReadError(source, f"floats up to {peak:g}", ARRAY)
    return Sound(samples if peak <= 1 else np.clip(samples, -1, 1), rate, speakers)


def example(rng: np.random.Generator) -> Sound:
    """Half a second of a quiet tone at 16 kHz with some noise, for dry runs."""
    time = np.arange(8000) / 16000
    tone = 0.2 * np.sin(2 * np.pi * rng.uniform(200, 800) * time)
    noise = rng.normal(0, 0.01, time.shape)
    return Sound((tone + noise)[None].astype(np.float32), 16000)
