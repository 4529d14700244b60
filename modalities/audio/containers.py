"""Parts of a file that libsndfile does not see: lengths unknown to its writer, and further
streams behind the first.

A program that writes a WAV, AIFF, AU or CAF into a pipe leaves 0 or a huge number where the length
stands. Ogg and MP3 files may be chained (`cat a.ogg b.ogg`, RFC 3533), as may FLAC; libsndfile
reads the first.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_UNKNOWN = 0x7FFFF000
"""A length of this or more, in a shorter file, is one that was not known: sox writes 0x7FFFF000,
arecord 0x7FFFFF00, ffmpeg 0xFFFFFFFF."""
RIFF_LIMIT = 0xFFFFFFFF


@dataclass(frozen=True)
class ByteRange:
    """Bytes `start` to `stop` of a file, some of them replaced: `(place, bytes)`."""

    start: int
    stop: int
    patches: tuple[tuple[int, bytes], ...] = ()


class ByteRangeFile(io.RawIOBase):
    """A part of a buffer as a file for libsndfile."""

    def __init__(self, buffer: memoryview, part: ByteRange) -> None:
        self._buffer, self._part, self._place = buffer, part, 0
        self._size = part.stop - part.start

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._place + size)
        first = self._part.start + self._place
        content = bytearray(self._buffer[first : self._part.start + stop])
        for offset, patch in self._part.patches:
            low, high = max(offset, first), min(offset + len(patch), first + len(content))
            if low < high:
                content[low - first : high - first] = patch[low - offset : high - offset]
        self._place += len(content)
        return bytes(content)

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)


def byte_ranges(buffer: memoryview, end: float | None = None) -> Sequence[ByteRange]:
    """Return the parts of a file that are decoded one after the other; none where libsndfile reads
    it unchanged. end: s of the file that are needed; a FLAC whose first stream holds them is not
    searched for others, for which all of it must be read."""
    head = bytes(buffer[:12])
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        return _wav(buffer)
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _aiff(buffer)
    if head[:4] == b"caff":
        return _caf(buffer)
    if head[:4] == b".snd":
        return _au(buffer)
    starts = [0]
    if head[:4] == b"OggS":
        starts = _ogg(buffer)
    elif head[:4] == b"fLaC":
        starts = [0] if end is not None and end <= _flac_seconds(buffer) else _flac(buffer)
    elif head[:3] == b"ID3" or _is_frame(head):
        starts = _mp3(buffer)
    if len(starts) == 1:
        return ()
    ends = [*starts[1:], len(buffer)]
    return [ByteRange(start, stop) for start, stop in zip(starts, ends, strict=True)]


def _wav(buffer: memoryview) -> Sequence[ByteRange]:
    """Return the file with the lengths that it has, where its own are unknown."""
    kind, size = bytes(buffer[:4]), len(buffer)
    order = ">" if kind == b"RIFX" else "<"
    offset, long_size, size_offset, align = 12, 0, None, 1
    while offset + 8 <= size:
        name = bytes(buffer[offset : offset + 4])
        (length,) = struct.unpack_from(f"{order}I", buffer, offset + 4)
        start = offset + 8
        if name == b"ds64" and start + 16 <= size:
            size_offset = offset
            (long_size,) = struct.unpack_from(f"{order}Q", buffer, start + 8)
        if name == b"fmt " and start + 14 <= size:
            (align,) = struct.unpack_from(f"{order}H", buffer, start + 12)
        if name == b"data":
            break
        offset = start + length + length % 2
    else:
        return ()
    available = size - start
    if length == RIFF_LIMIT and kind == b"RF64":
        unknown = long_size == 0 or long_size >= 1 << 62
    elif length == 0:
        unknown = not _is_chunk(buffer, start)
    else:
        unknown = length >= LEAST_UNKNOWN and length > available
    available -= available % max(1, align)
    if not unknown or available <= 0 or size > RIFF_LIMIT:
        return ()
    patches = [
        (0, b"RIFX" if order == ">" else b"RIFF"),
        (4, struct.pack(f"{order}I", start + available + available % 2 - 8)),
        (start - 4, struct.pack(f"{order}I", available)),
    ]
    patches += [] if size_offset is None else [(size_offset, b"JUNK")]
    return [ByteRange(0, start + available, tuple(patches))]


_PLAIN = {b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64"}
"""Kinds of AIFC whose samples are not compressed."""


def _aiff(buffer: memoryview) -> Sequence[ByteRange]:
    """The file with the lengths that it has, where its own are unknown."""
    offset, size, frames_offset, frame = 12, len(buffer), 0, 0
    while offset + 8 <= size:
        name = bytes(buffer[offset : offset + 4])
        (length,) = struct.unpack_from(">I", buffer, offset + 4)
        start = offset + 8
        if name == b"COMM" and start + 18 <= size:
            channels, _, bits = struct.unpack_from(">HIH", buffer, start)
            kind = bytes(buffer[start + 18 : start + 22]) if length > 18 else b"NONE"
            frame = channels * -(-bits // 8) if kind in _PLAIN else 0
            frames_offset = start + 2
        if name == b"SSND":
            break
        offset = start + length + length % 2
    else:
        return ()
    available = size - start
    unknown = length == 0 or (length >= LEAST_UNKNOWN and length > available)
    if not unknown or not frame or available <= 8:
        return ()
    patches = (
        (4, struct.pack(">I", size - 8)),
        (frames_offset, struct.pack(">I", (available - 8) // frame)),
        (offset + 4, struct.pack(">I", available)),
    )
    return [ByteRange(0, size, patches)]


def _caf(buffer: memoryview) -> Sequence[ByteRange]:
    """The file with its real length where the header has -1: all that follows."""
    offset, size = 8, len(buffer)
    while offset + 12 <= size:
        (length,) = struct.unpack_from(">q", buffer, offset + 4)
        if bytes(buffer[offset : offset + 4]) == b"data":
            unknown = length == -1 or length >= 1 << 62
            if not unknown or size <= offset + 16:
                return ()
            return [ByteRange(0, size, ((offset + 4, struct.pack(">q", size - offset - 12)),))]
        if length < 0:
            return ()
        offset += 12 + length
    return ()


def _au(buffer: memoryview) -> Sequence[ByteRange]:
    """The file with its real length where the header has 0 and more follows."""
    if len(buffer) < 24:
        return ()
    start, length = struct.unpack_from(">II", buffer, 4)
    if length or len(buffer) <= start:
        return ()
    return [ByteRange(0, len(buffer), ((8, struct.pack(">I", len(buffer) - start)),))]


def _is_chunk(buffer: memoryview, offset: int) -> bool:
    """Return True where a chunk that fits begins, or the file ends."""
    if offset + 8 > len(buffer):
        return offset == len(buffer)
    name = bytes(buffer[offset : offset + 4])
    (length,) = struct.unpack_from("<I", buffer, offset + 4)
    return name.isascii() and name.strip().isalnum() and offset + 8 + length <= len(buffer)


def _ogg(buffer: memoryview) -> list[int]:
    """Return where streams begin behind others: pages that begin one, and do not follow such a
    page."""
    starts: list[int] = []
    offset, size, beginning = 0, len(buffer), False
    while offset + 27 <= size and bytes(buffer[offset : offset + 4]) == b"OggS":
        begins = bool(buffer[offset + 5] & 2)
        if begins and not beginning:
            starts.append(offset)
        beginning, segments = begins, buffer[offset + 26]
        offset += 27 + segments + sum(buffer[offset + 27 : offset + 27 + segments])
    return starts or [0]


def _flac_seconds(buffer: memoryview) -> float:
    """The length of the first stream by its STREAMINFO; 0 if it has none."""
    if len(buffer) < 26:
        return 0.0
    packed = int.from_bytes(buffer[18:26], "big")  # 20 bits rate, 3 channels, 5 bits, 36 samples
    rate = packed >> 44
    return (packed & ((1 << 36) - 1)) / rate if rate else 0.0


def _flac(buffer: memoryview) -> list[int]:
    """Return where a further stream begins: its mark and the header of its first block."""
    content, starts = bytes(buffer), [0]
    while True:
        offset = content.find(b"fLaC", starts[-1] + 4)
        while offset >= 0 and content[offset + 4 : offset + 8] not in (
            b"\x00\x00\x00\x22",
            b"\x80\x00\x00\x22",
        ):
            offset = content.find(b"fLaC", offset + 4)
        if offset < 0:
            return starts
        starts.append(offset)


def _mp3(buffer: memoryview) -> list[int]:
    """Return where a further stream begins: behind the bytes that a Xing header counts."""
    starts = [0]
    while (stop := _xing_end(buffer, starts[-1])) is not None:
        for tag, length in ((b"TAG", 128), (b"LYRICSBEGIN", 0)):
            if bytes(buffer[stop : stop + len(tag)]) == tag:
                stop += length
        head = bytes(buffer[stop : stop + 3])
        if head != b"ID3" and not _is_frame(head):
            break
        if len(buffer) - stop < 200:  # less than two frames: the length was off a little
            break
        starts.append(stop)
    return starts


def _is_frame(head: bytes) -> bool:
    """Return True for the first bytes of an MPEG frame."""
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _xing_end(buffer: memoryview, offset: int) -> int | None:
    """Return the end of the MP3 stream at a place; None without a header."""
    head = bytes(buffer[offset : offset + 10])
    if head[:3] == b"ID3" and len(head) == 10:
        offset += 10 + sum(
            byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    frame = bytes(buffer[offset : offset + 200])
    mark = max(frame.find(b"Xing"), frame.find(b"Info"))
    if mark < 0 or len(frame) < mark + 16:
        return None
    (flags,) = struct.unpack_from(">I", frame, mark + 4)
    if not flags & 2:
        return None
    (length,) = struct.unpack_from(">I", frame, mark + 8 + 4 * (flags & 1))
    stop = offset + length
    return stop if offset < stop < len(buffer) else None
