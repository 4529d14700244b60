"""Tar shards of the WebDataset form (`0001.jpg`, `0001.txt`, ...) as a source.

The members of a row are those of one name up to its first dot, wherever they lie in the shard. A
column a suffix, in lower case; the cells of pictures and sounds are `{"path":, "bytes":}`, of
`txt` texts, of `cls` and `id` integers, of `json` its value, of `npy` arrays, else bytes.
"""

from __future__ import annotations

import copy
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ....modalities.base import Source, StreamingSource, Unreadable
from ...utils import ConfigError, find_files, fingerprint_of
from .files import FileRows, Files
from .json_rows import decode_json

KEY, URL = "__key__", "__url__"
"""Columns of every row: the members' common name, and the shard."""


def webdataset(*, path: str | list[str], streaming: bool = True) -> Source:
    """Tar shards. streaming: False reads rows by index; the shards must not be compressed."""
    return TarStream(path=path) if streaming else Tar(path=path)


class Tar(Files):
    """Tar shards, a row by index."""

    def read_file(self, file: Path) -> FileRows:
        return Shard(file, seekable=True)


class TarStream(StreamingSource):
    """Tar shards, read in order."""

    def __init__(self, *, path: str | list[str]) -> None:
        self.files = find_files(path)
        first = Shard(self.files[0])
        if not len(first):
            raise ValueError(f"{self.files[0]}: has no rows")
        self.columns = first.columns
        self.ignored: dict[str, str] = dict(first.ignored)  # of the shards read so far

    def shards(self) -> Sequence[StreamingSource]:
        shards = []
        for file in self.files:
            shard = copy.copy(self)  # of the same columns
            shard.files = [file]
            shards.append(shard)
        return shards

    def row_count(self) -> int | None:
        """Count by the headers of the members; a compressed shard is not read for that."""
        if not all(_is_plain(file) for file in self.files):
            return None
        return sum(len(Shard(file)) for file in self.files)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for file in self.files:
            try:
                shard = Shard(file)
                self.ignored |= shard.ignored
                with tarfile.open(file) as tar:
                    for row in range(len(shard)):
                        yield dict.fromkeys(self.columns) | shard.extract(tar, row)
            except (OSError, EOFError, ValueError, tarfile.TarError) as error:
                line = str(error) if str(file) in str(error) else f"{file}: {error}"
                raise ConfigError(line) from error

    def fingerprint(self) -> str:
        return fingerprint_of(self.files)


class Shard(FileRows):
    """One shard: which members make which row, found in one pass over the headers.

    seekable: members are read by their place in the file.
    """

    def __init__(self, file: Path, seekable: bool = False) -> None:
        self.file, self.faults = file, {}
        self.ignored: dict[str, str] = {}
        self.members: dict[str, dict[str, tarfile.TarInfo]] = {}
        doubled: dict[str, str] = {}
        for member in _members(file, seekable):
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            stem, dot, suffix = name.partition(".")
            if not (stem and dot and suffix):
                self.ignored[f"{file.name}/{member.name}"] = "its name is not KEY.SUFFIX"
                continue
            key = f"{folder}/{stem}" if folder else stem
            fields = self.members.setdefault(key, {})
            if suffix.lower() in fields:
                doubled[key] = f"{file.name}: there are two members {key}.{suffix.lower()}"
            fields[suffix.lower()] = member
        self.keys = list(self.members)
        self.faults = {i: doubled[key] for i, key in enumerate(self.keys) if key in doubled}
        suffixes = dict.fromkeys(s for fields in self.members.values() for s in fields)
        self.columns = (*suffixes, KEY, URL)

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        return self.keys[index]

    def row(self, index: int) -> dict[str, Any]:
        with self.file.open("rb") as file:
            return self._row(index, lambda member: _read_at(file, member))

    def cell(self, index: int, column: str) -> Any:
        if column in (KEY, URL):
            return {KEY: self.keys[index], URL: str(self.file)}[column]
        member = self.members[self.keys[index]].get(column)
        if member is None:
            return None
        with self.file.open("rb") as file:
            return decode_member(column, member.name, _read_at(file, member))

    def extract(self, tar: tarfile.TarFile, index: int) -> dict[str, Any]:
        """Return a row, its members read from the open shard; cells of a fault are unreadable."""
        if index in self.faults:
            return dict.fromkeys(self.columns, Unreadable(self.faults[index]))

        def read(member: tarfile.TarInfo) -> bytes:
            file = tar.extractfile(member)
            return b"" if file is None else file.read()

        return self._row(index, read)

    def _row(self, index: int, read: Callable[[tarfile.TarInfo], bytes]) -> dict[str, Any]:
        key = self.keys[index]
        cells = {
            suffix: decode_member(suffix, member.name, read(member))
            for suffix, member in self.members[key].items()
        }
        return cells | {KEY: key, URL: str(self.file)}


def _is_plain(file: Path) -> bool:
    """Return whether a shard begins with the header of a tar file, not of a compressed one."""
    with file.open("rb") as shard:
        return shard.read(262)[257:] == b"ustar"


def _members(file: Path, seekable: bool) -> list[tarfile.TarInfo]:
    """Return the files of a shard. Raise ValueError if it is no tar, or not whole."""
    try:
        with tarfile.open(file, "r:" if seekable else "r:*") as tar:
            members = [member for member in tar if member.isfile()]
            if not seekable:
                return members
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        cure = "; a compressed one is read with streaming: true" if seekable else ""
        raise ValueError(f"{file}: is no tar file, or not whole ({error}){cure}") from error
    size = file.stat().st_size
    for member in members:
        if member.offset_data + member.size > size:
            raise ValueError(f"{file}: ends within its member {member.name}; copy it again")
    return members


def _read_at(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)


def decode_member(suffix: str, name: str, data: bytes) -> Any:
    """Return the cell of a member. What cannot be decoded is `Unreadable`."""
    last = suffix.rpartition(".")[2]
    if _MEDIA.fullmatch(last) or suffix.endswith("nii.gz"):
        return {"path": name, "bytes": data}
    try:
        return _DECODERS[last](data) if last in _DECODERS else data
    except (ValueError, OverflowError, EOFError) as error:
        reason = " ".join(str(error).split())
        return Unreadable(f"member {name}: cannot be read as {last} ({reason})")


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig")


def _integer(data: bytes) -> int:
    text = data.decode("ascii").strip()
    if "_" in text:  # which Python passes over
        raise ValueError(f"{text!r} is no integer")
    return int(text)


def _array(data: bytes) -> Any:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


_DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("txt", "text", "transcript"), _text),
    **dict.fromkeys(("cls", "cls2", "index", "inx", "id"), _integer),
    **dict.fromkeys(("json", "jsn"), decode_json),
    "npy": _array,
    "npz": _arrays,
}
_MEDIA = re.compile(
    "bmp|gif|jpe?g|jpe|jfif|jp2|png|p[gbp]m|tga|tiff?|webp|avif|heic"
    "|wav|flac|ogg|opus|mp3|aiff?|au|nii|dcm"
)
