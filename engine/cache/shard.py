"""One file of the cache: many records, written once, read by memory map.

    records (each array on a 64-byte boundary) | index (JSON) | footer (fixed size)

The index holds the keys, where each record begins, its layout (names, dtypes and shapes of
its arrays) and its CRC-32. The footer holds where the index is, its CRC-32, and the time
that the file was given when it was sealed: another time means that somebody touched it.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import uuid
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..utils import sync_folder

Record = dict[str, np.ndarray]
"""The arrays of one row, by name."""

BF16 = np.dtype([("bfloat16", "<u2")])
"""numpy has no bfloat16: its bits, under a dtype that says what they are."""

SUFFIX = ".shard"
_ALIGN = 64
_MAGIC = b"SENSOR01"
_FOOTER = struct.Struct("<QQQQQ8s")  # index start, index bytes, its crc, rows, sealed ns, magic

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]  # name, dtype, shape of each array


class BrokenShard(ValueError):
    """A file that is not a whole shard: cut short, or its index does not match its checksum."""


class Packed(NamedTuple):
    """A record as it will lie in the file."""

    key: str
    layout: Layout
    data: memoryview  # n bytes, a multiple of the alignment
    crc: int


class Footer(NamedTuple):
    start: int
    size: int
    crc: int
    rows: int
    sealed: int
    magic: bytes


def pack(key: str, record: Record) -> Packed:
    """Copy a record into one block of bytes; raises TypeError for arrays of objects."""
    arrays = {name: np.asarray(array, order="C") for name, array in record.items()}
    layout = tuple((name, _dtype_name(name, a.dtype), a.shape) for name, a in arrays.items())
    places, size = _places(layout)
    data = np.zeros(size, np.uint8)
    for array, (_, _, _, offset) in zip(arrays.values(), places, strict=True):
        data[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
    return Packed(key, layout, data.data, zlib.crc32(data.data))


def write_shard(folder: Path, rows: Iterable[Packed]) -> Path:
    """Write the rows beside, then move them into place: a reader sees all of them or nothing."""
    name = f"{os.getpid():07d}-{uuid.uuid4().hex[:12]}"
    part, path = folder / f"{name}.part", folder / f"{name}{SUFFIX}"
    layouts: dict[Layout, int] = {}
    keys, kinds, starts, crcs = [], [], [], []
    with part.open("wb") as file:
        for row in rows:
            keys.append(row.key)
            kinds.append(layouts.setdefault(row.layout, len(layouts)))
            starts.append(file.tell())
            crcs.append(row.crc)
            file.write(row.data)
        start = file.tell()
        table = {"layouts": list(layouts), "keys": keys, "kinds": kinds, "starts": starts}
        index = json.dumps({**table, "crcs": crcs}, separators=(",", ":")).encode()
        sealed = int(time.time()) // 2 * 2 * 10**9  # even seconds: what every file system can keep
        footer = Footer(start, len(index), zlib.crc32(index), len(keys), sealed, _MAGIC)
        file.write(index)
        file.write(_FOOTER.pack(*footer))
        file.flush()
        os.fsync(file.fileno())
    os.utime(part, ns=(sealed, sealed))
    part.replace(path)
    sync_folder(folder)
    return path


def read_footer(path: Path) -> Footer:
    """The footer of a shard; raises BrokenShard where the file is not whole."""
    size = path.stat().st_size
    if size < _FOOTER.size:
        raise BrokenShard(f"{path}: {size} bytes, a shard has at least {_FOOTER.size}")
    with path.open("rb") as file:
        file.seek(size - _FOOTER.size)
        footer = Footer(*_FOOTER.unpack(file.read(_FOOTER.size)))
    if footer.magic != _MAGIC:
        raise BrokenShard(f"{path}: ends in {footer.magic!r}, a shard ends in {_MAGIC!r}")
    whole = footer.start + footer.size + _FOOTER.size
    if whole != size:
        raise BrokenShard(f"{path}: {size} bytes, its footer says {whole}")
    return footer


class Shard:
    """A shard that is open for reading. `keys[i]` is the key of row i."""

    def __init__(self, path: Path) -> None:
        footer = read_footer(path)
        with path.open("rb") as file:
            file.seek(footer.start)
            index = file.read(footer.size)
        if zlib.crc32(index) != footer.crc:
            raise BrokenShard(f"{path}: its index does not match its checksum")
        table = json.loads(index)
        self.path, self.footer = path, footer
        self.keys: list[str] = table["keys"]
        if len(self.keys) != footer.rows:
            raise BrokenShard(f"{path}: {len(self.keys)} keys, its footer says {footer.rows}")
        self._layouts: list[Layout] = [
            tuple((n, d, tuple(s)) for n, d, s in layout) for layout in table["layouts"]
        ]
        self._places = [_places(layout) for layout in self._layouts]
        self._kinds: list[int] = table["kinds"]
        self._starts: list[int] = table["starts"]
        self._crcs: list[int] = table["crcs"]
        self._map: mmap.mmap | None = None

    @property
    def nbytes(self) -> int:
        return self.footer.start + self.footer.size + _FOOTER.size

    @property
    def touched(self) -> bool:
        """True where the file's time is not the one that it was sealed with."""
        return self.path.stat().st_mtime_ns != self.footer.sealed

    def settle(self) -> None:
        """Give the file the time that it was sealed with, after its records were checked."""
        os.utime(self.path, ns=(self.footer.sealed, self.footer.sealed))

    @property
    def is_open(self) -> bool:
        return self._map is not None

    def open(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def release(self) -> None:
        """Let go of the memory map; arrays that were given out keep theirs."""
        self._map = None

    def read(self, row: int) -> Record:
        """The record of a row: read-only views of the memory map."""
        buffer, start = self.open(), self._starts[row]
        return {
            name: np.ndarray(shape, dtype, buffer, start + offset)
            for name, dtype, shape, offset in self._places[self._kinds[row]][0]
        }

    def corrupt(self) -> list[int]:
        """The rows whose bytes do not match their checksum."""
        return [i for i in range(len(self.keys)) if zlib.crc32(self._bytes(i)) != self._crcs[i]]

    def without(self, rows: Collection[int]) -> Path | None:
        """Replace the file by one that lacks these rows; None where nothing is left."""
        kept = [
            Packed(self.keys[i], self._layouts[self._kinds[i]], self._bytes(i), self._crcs[i])
            for i in range(len(self.keys))
            if i not in rows
        ]
        path = write_shard(self.path.parent, kept) if kept else None
        self.path.unlink(missing_ok=True)
        return path

    def _bytes(self, row: int) -> memoryview:
        start, size = self._starts[row], self._places[self._kinds[row]][1]
        return memoryview(self.open())[start : start + size]


def _dtype_name(name: str, dtype: np.dtype) -> str:
    if dtype == BF16:
        return "bfloat16"
    if dtype.kind not in "biufc":
        raise TypeError(f"cache: array {name!r} has dtype {dtype}, expected numbers or bool")
    return dtype.str


def _places(layout: Layout) -> tuple[list[tuple[str, np.dtype, tuple[int, ...], int]], int]:
    """Where the arrays of a layout lie in its record, and the record's size in bytes."""
    places, offset = [], 0
    for name, kind, shape in layout:
        dtype = BF16 if kind == "bfloat16" else np.dtype(kind)
        places.append((name, dtype, shape, offset))
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        offset += -(-size // _ALIGN) * _ALIGN
    return places, offset
