"""A file of sound, by path, bytes or file object -> its samples, by libsndfile.

The format is detected by content, never by name. Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

import io
import mmap
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..base import ReadError
from .containers import ByteRangeFile, byte_ranges
from .downmix import SURROUND

SOUND = "a sound that libsndfile can decode (WAV, FLAC, OGG, MP3, AIFF...)"
LEAD = 12 * 1152
"""Samples decoded ahead of a segment: an MP3 frame needs the state of the frames before it."""
ENDLESS = 1 << 62
"""More frames than this are a number unknown to the writer (FLAC from a pipe)."""
LARGE = 1 << 26
"""More frames than this are decoded block by block."""
BLOCK = 1 << 18
"""Frames decoded at a time there, and where their number is not known."""

_SHORT = re.compile(r"^ *(?:data|Data Size) *: (\d+) \(should be (\d+)\)", re.M)
_TORN = re.compile(r"Junk after the last page|> file length|does not match value from 'ds64'")

CONVERTED = "WAV or FLAC (ffmpeg -i its_name sound.flac converts it)"
_FOREIGN = {
    "MP4 or M4A (AAC, ALAC)": (4, b"ftyp"),
    "AMR": (0, b"#!AMR"),
    "WMA": (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    "WebM or Matroska": (0, b"\x1a\x45\xdf\xa3"),
    "AAC": (0, b"\xff\xf1"),
}
"""Formats by where in the file their signs are."""

CHANNEL_MAP = 0x1100
"""libsndfile's command SFC_GET_CHANNEL_MAP_INFO."""
SPEAKERS = {1: "mono", 2: "front", 3: "front", 4: "center", 5: "front", 6: "front", 7: "center"}
SPEAKERS |= dict.fromkeys((8, 9, 10, 14, 15), "surround") | {11: "lfe", 12: "front", 13: "front"}
"""Its places of loudspeakers."""
VORBIS_SURROUND = ("front", "center", "front", "surround", "surround", "lfe")
"""The order of six channels in Ogg."""

Decoded = tuple[np.ndarray, int, tuple[str, ...]]
"""Samples `[C, N]`, their rate in Hz, and the loudspeaker of each channel where it is known."""


def decode_file(source: Any, start: float, end: float | None, name: object) -> Decoded:
    """Return the samples from `start` to `end` seconds of a file. Raise ReadError."""
    with _opened(source, name) as (file, buffer):
        _check_kind(bytes(buffer[:16]), name)
        parts = byte_ranges(buffer, end)
        if len(parts) < 2:
            return _decode(ByteRangeFile(buffer, parts[0]) if parts else file, start, end, name)
        return _chained([ByteRangeFile(buffer, part) for part in parts], start, end, name)


def _check_kind(head: bytes, name: object) -> None:
    """Raise ReadError for a format that is known and not decoded."""
    kind = next((k for k, (place, sign) in _FOREIGN.items() if head[place:].startswith(sign)), None)
    if kind is not None:
        raise ReadError(name, f"is {kind}, which libsndfile does not decode", CONVERTED)


@contextmanager
def _opened(source: Any, name: object) -> Iterator[tuple[Any, memoryview]]:
    """A file for libsndfile, without a name that it could take the format from, and its bytes."""
    if isinstance(source, (str, Path)):
        try:
            with Path(source).open("rb") as file:
                if not file.seek(0, io.SEEK_END):
                    raise ReadError(name, "it is empty", SOUND)
                file.seek(0)
                with (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                    memoryview(mapped) as buffer,
                ):
                    yield file.fileno(), buffer
        except OSError as error:
            reason = error.strerror or str(error)
            raise ReadError(name, reason, "a file that can be read") from error
        return
    if hasattr(source, "read"):
        if hasattr(source, "seek"):
            source.seek(0)  # it may have been read before
        source = source.read()
    if not isinstance(source, (bytes, bytearray, memoryview)):
        raise ReadError(name, f"it returns {type(source).__name__}, not bytes", "a binary file")
    if not len(source):
        raise ReadError(name, "it is empty", SOUND)
    yield io.BytesIO(source), memoryview(source).cast("B")


@contextmanager
def _sound_file(file: Any, name: object) -> Iterator[Any]:
    try:
        opened = soundfile.SoundFile(file, closefd=False)
    except (soundfile.SoundFileError, TypeError) as error:
        raise ReadError(name, "no sound, or a broken header", SOUND) from error
    with opened:
        _check_whole(opened, name)
        try:
            yield opened
        except soundfile.SoundFileError as error:
            raise ReadError(name, f"broken or truncated ({error})", "a whole file") from error


def _decode(file: Any, start: float, end: float | None, name: object) -> Decoded:
    with _sound_file(file, name) as opened:
        samples = _samples(opened, start, end, name)
        return samples, opened.samplerate, _speakers(opened)


def _chained(files: list[ByteRangeFile], start: float, end: float | None, name: object) -> Decoded:
    """Return the streams of a chain, one after the other; they have one rate and number of
    channels."""
    decoded: list[np.ndarray] = []
    kind: tuple[int, int] | None = None
    speakers: tuple[str, ...] = ()
    for number, file in enumerate(files, 1):
        with _sound_file(file, name) as opened:
            layout = (opened.samplerate, opened.channels)
            if kind not in (None, layout):
                raise ReadError(
                    name,
                    f"is a chain of {len(files)} streams, of which number {number} has "
                    f"{layout[0]} Hz and {layout[1]} channels, the first {kind}",
                    "streams of one kind; decode it first",
                )
            kind, speakers = layout, _speakers(opened)
            decoded.append(_samples(opened, 0.0, None, name))
    samples, rate = np.concatenate(decoded, 1), opened.samplerate
    first, last = round(start * rate), None if end is None else round(end * rate)
    if first >= samples.shape[1]:
        raise _beyond(start, samples.shape[1] / rate, name)
    return np.ascontiguousarray(samples[:, first:last]), rate, speakers


def _samples(file: Any, start: float, end: float | None, name: object) -> np.ndarray:
    """Return samples `[C, N]` of a segment; announced samples that are missing are an
    error."""
    first = round(start * file.samplerate)
    if file.frames > ENDLESS:
        samples = _until_the_end(file, None if end is None else round(end * file.samplerate))
        if first >= samples.shape[1]:
            raise _beyond(start, samples.shape[1] / file.samplerate, name)
        return np.ascontiguousarray(samples[:, first:])
    last = file.frames if end is None else min(file.frames, round(end * file.samplerate))
    if file.frames and first >= file.frames:
        raise _beyond(start, file.frames / file.samplerate, name)
    lead = min(first, LEAD)
    if first > lead:
        file.seek(first - lead)
    count = last - first + lead
    if count > LARGE:  # a number that may be wrong: memory is taken for what there is
        samples = _until_the_end(file, count)
    else:
        samples = file.read(count, dtype="float32", always_2d=True).T
    if samples.shape[1] < count:
        wrong = f"truncated: {samples.shape[1]} of {count} samples"
        raise ReadError(name, wrong, "a whole file")
    return np.ascontiguousarray(samples[:, lead:])


def _until_the_end(file: Any, last: int | None) -> np.ndarray:
    """Return all frames that there are, up to `last`: `[C, N]`."""
    blocks: list[np.ndarray] = [np.empty((file.channels, 0), np.float32)]
    count = 0
    while last is None or count < last:
        size = BLOCK if last is None else min(BLOCK, last - count)
        block = np.empty((size, file.channels), np.float32)
        frames = soundfile._snd.sf_readf_float(
            file._file, soundfile._ffi.cast("float*", soundfile._ffi.from_buffer(block)), size
        )
        blocks.append(block[:frames].T)
        count += frames
        if frames < size:
            break
    return np.concatenate(blocks, 1)


def _beyond(start: float, seconds: float, name: object) -> ReadError:
    wrong = f"a segment from {start} s of a sound of {seconds:.3f} s"
    return ReadError(name, wrong, "less than that")


def _speakers(file: Any) -> tuple[str, ...]:
    """Return the loudspeaker of each channel; nothing if neither file nor format defines it."""
    count = file.channels
    positions = soundfile._ffi.new("int[]", count)
    has_map = soundfile._snd.sf_command(
        file._file, CHANNEL_MAP, positions, soundfile._ffi.sizeof(positions)
    )
    if has_map and all(position in SPEAKERS for position in positions):
        return tuple(SPEAKERS[position] for position in positions)
    if count != 6 or file.format == "AIFF":
        return ()
    if file.format in ("OGG", "FLAC"):  # whose formats define it
        return VORBIS_SURROUND if file.format == "OGG" else SURROUND
    warnings.warn(
        "audio: six channels without a channel mask are taken for 5.1, so that the fourth is the "
        "bass channel and left out; name one by channel: 0 to 5 if they are microphones",
        stacklevel=2,
    )
    return SURROUND


def _check_whole(file: Any, name: object) -> None:
    """Warnings of libsndfile that do not stop it: less data than the header announces."""
    notes = file.extra_info
    short = _SHORT.search(notes)
    if short and int(short[2]) < int(short[1]):
        raise ReadError(name, f"truncated: {short[2]} of {short[1]} bytes", "a whole file")
    if _TORN.search(notes):
        raise ReadError(name, "truncated, or its length is wrong", "a whole file")
