"""One file of the cache: many records, written once, read by memory map.

A shard is a safetensors file, which other programs open too. Records of one layout (names, dtypes
and shapes of their arrays) are stacked: the array `tokens` of all records of layout 0 is the tensor
`0/tokens`, `[rows, ...]`. The file's metadata holds the keys in that order, the layouts, a CRC-32 a
record, the time that the file was given when it was sealed (another time means that somebody
touched it), and a CRC-32 of all of this.
"""

from __future__ import annotations

import bisect
import itertools
import json
import mmap
import os
import struct
import time
import uuid
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from ..utils import atomic_path

Record = dict[str, np.ndarray]
"""The arrays of one row, by name."""

BF16 = np.dtype([("bfloat16", "<u2")])
"""numpy has no bfloat16: its bits, under a dtype that names their meaning."""

SUFFIX, OLD_SUFFIX = ".safetensors", ".shard"
"""Of a shard, and of one of version 1, which nobody reads any more."""
FORMAT, VERSION = "sensorium", "2"
KINDS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8"])
"""dtypes that a safetensors file can hold, beside bfloat16."""

_LENGTH = struct.Struct("<Q")  # the length of the header comes first

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]  # name, dtype, shape of each array


class BrokenShard(ValueError):
    """A file that is not a whole shard: cut short, or its index does not match its checksum."""


class OtherVersion(ValueError):
    """A shard of another version of this format."""


class Packed(NamedTuple):
    """A record as it will be written."""

    key: str
    layout: Layout
    arrays: tuple[np.ndarray, ...]
    crc: int

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


def pack(key: str, record: Record) -> Packed:
    """Copy a record; raise TypeError for arrays of another kind than numbers or bool."""
    arrays = {name: _native(name, np.asarray(array)) for name, array in record.items()}
    layout = tuple((name, _dtype_name(a.dtype), a.shape) for name, a in arrays.items())
    return Packed(key, layout, tuple(arrays.values()), _checksum(arrays.values()))


def write_shard(folder: Path, rows: Iterable[Packed]) -> Path:
    """Write the rows beside, then move them into place: a reader sees all of them or nothing."""
    path = folder / f"{os.getpid():07d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
    layouts: dict[Layout, list[Packed]] = {}
    for row in rows:
        layouts.setdefault(row.layout, []).append(row)
    tensors = {
        f"{i}/{name}": _stacked([row.arrays[column] for row in group])
        for i, (layout, group) in enumerate(layouts.items())
        for column, (name, _, _) in enumerate(layout)
    }
    ordered = [row for group in layouts.values() for row in group]
    sealed = int(time.time()) // 2 * 2 * 10**9  # even seconds: what every file system can keep
    index = {
        "keys": [row.key for row in ordered],
        "layouts": [[len(group), layout] for layout, group in layouts.items()],
        "crcs": [row.crc for row in ordered],
        "sealed": sealed,
    }
    fields = {key: json.dumps(value, separators=(",", ":")) for key, value in index.items()}
    metadata = {"format": FORMAT, "version": VERSION, **fields, "crc": _index_crc(fields)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
        os.utime(temporary, ns=(sealed, sealed))
    return path


class Group(NamedTuple):
    """The rows of one layout: (name, dtype, shape, where the first row lies, bytes a row)."""

    layout: Layout
    columns: list[tuple[str, np.dtype, tuple[int, ...], int, int]]


class Shard:
    """A shard that is open for reading. `keys[i]` is the key of row i.

    Raise BrokenShard for a file that is not whole, OtherVersion for one of another version.
    """

    def __init__(self, path: Path) -> None:
        try:
            start, header = _read_header(path)
            index = _read_index(header)
            spans = {name: entry["data_offsets"] for name, entry in header.items()}
            layouts = index["layouts"]
            self._groups = [_group(i, each, start, spans) for i, each in enumerate(layouts)]
        except OtherVersion as error:
            raise OtherVersion(f"{path}: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BrokenShard(f"{path}: {error}") from error
        self.path = path
        self.nbytes = path.stat().st_size
        if self.nbytes != (
            expected := start + max((high for _, high in spans.values()), default=0)
        ):
            raise BrokenShard(f"{path}: {self.nbytes} bytes, its header has {expected}")
        self.keys: list[str] = index["keys"]
        self._crcs: list[int] = index["crcs"]
        self._sealed: int = index["sealed"]
        self._ends = list(itertools.accumulate(count for count, _ in layouts))
        self._map: mmap.mmap | None = None

    @property
    def modified(self) -> bool:
        """True where the file's time is not the one that it was sealed with."""
        return self.path.stat().st_mtime_ns != self._sealed

    def restore_time(self) -> None:
        """Give the file the time that it was sealed with, after its records were checked."""
        os.utime(self.path, ns=(self._sealed, self._sealed))

    @property
    def is_open(self) -> bool:
        return self._map is not None

    def open(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def release(self) -> None:
        """Release the memory map; arrays that were returned keep theirs."""
        self._map = None

    def read(self, row: int) -> Record:
        """Return the record of a row: read-only views of the memory map."""
        buffer, (group, index) = self.open(), self._locate(row)
        return {
            name: np.ndarray(shape, dtype, buffer, start + index * size)
            for name, dtype, shape, start, size in group.columns
        }

    def corrupt(self) -> list[int]:
        """Return the rows whose bytes do not match their checksum."""
        rows = range(len(self.keys))
        return [i for i in rows if _checksum(self.read(i).values()) != self._crcs[i]]

    def without(self, rows: Collection[int]) -> Path | None:
        """Replace the file by one that lacks these rows; None where nothing is left."""
        remaining = [
            Packed(key, self._locate(i)[0].layout, tuple(self.read(i).values()), self._crcs[i])
            for i, key in enumerate(self.keys)
            if i not in rows
        ]
        path = write_shard(self.path.parent, remaining) if remaining else None
        self.path.unlink(missing_ok=True)
        return path

    def _locate(self, row: int) -> tuple[Group, int]:
        number = bisect.bisect_right(self._ends, row)
        return self._groups[number], row - (self._ends[number - 1] if number else 0)


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the data of a safetensors file begins, and its header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_LENGTH.size)
        length = _LENGTH.unpack(first)[0] if len(first) == _LENGTH.size else size
        if _LENGTH.size + length > size:
            raise ValueError(f"{size} bytes, its header alone has {length}")
        header: dict[str, Any] = json.loads(file.read(length))
    return _LENGTH.size + length, header


def _read_index(header: dict[str, Any]) -> dict[str, Any]:
    """Take the metadata out of a header, and return it."""
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ValueError(f"format {metadata['format']!r}, expected {FORMAT!r}")
    if metadata["version"] != VERSION:
        raise OtherVersion(f"version {metadata['version']}, expected {VERSION}")
    fields = {name: metadata[name] for name in ("keys", "layouts", "crcs", "sealed")}
    if _index_crc(fields) != metadata["crc"]:
        raise ValueError("its index does not match its checksum")
    return {name: json.loads(text) for name, text in fields.items()}


def _group(number: int, index: Any, start: int, spans: dict[str, tuple[int, int]]) -> Group:
    """Return where the rows of a layout lie. index: their number, and the layout."""
    rows, layout = index[0], tuple((n, d, tuple(s)) for n, d, s in index[1])
    columns = []
    for name, kind, shape in layout:
        dtype = BF16 if kind == "bfloat16" else np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        low, high = spans[f"{number}/{name}"]
        if high - low != rows * size:
            raise ValueError(f"{name!r} has {high - low} bytes, not {rows} times {size}")
        columns.append((name, dtype, shape, start + low, size))
    return Group(layout, columns)


def _native(name: str, array: np.ndarray) -> np.ndarray:
    """Return a copy, in C order and the byte order of the format."""
    if array.dtype == BF16:
        return array.copy(order="C")
    if array.dtype.newbyteorder("=").str[1:] not in KINDS:
        raise TypeError(f"cache: array {name!r} has dtype {array.dtype}, expected numbers or bool")
    return array.astype(array.dtype.newbyteorder("<"), order="C")


def _dtype_name(dtype: np.dtype) -> str:
    return "bfloat16" if dtype == BF16 else dtype.str


def _stacked(arrays: list[np.ndarray]) -> torch.Tensor:
    if arrays[0].dtype == BF16:
        bits = np.stack([array.view(np.int16) for array in arrays])
        return torch.from_numpy(bits).view(torch.bfloat16)
    return torch.from_numpy(np.stack(arrays))


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def _index_crc(fields: dict[str, str]) -> str:
    return f"{zlib.crc32('|'.join(fields.values()).encode()):08x}"
