"""A store of records on disk: filled once, resumable, read by memory map.

    <root>/<level>/<id>/identity.json      the identity of the records, in readable form
    <root>/<level>/<id>/*.safetensors      records; see `shard.py`

The id is the SHA-256 of the identity, so that anything that changes it is another store.
Shards appear whole or not at all, and no two processes write the same file: a killed
process loses only records not yet sealed, and several may fill and read one store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ..utils import make_folder, remove_parts, write_text
from .shard import (
    OLD_SUFFIX,
    SUFFIX,
    BrokenShard,
    OtherVersion,
    Packed,
    Record,
    Shard,
    pack,
    write_shard,
)

Level = Literal["samples", "features"]
LEVELS: tuple[Level, ...] = ("samples", "features")

CONTENT = "@content"
"""The array of a record that holds the hash of its source."""

_SEAL_BYTES = 64 * 2**20
_SEAL_ROWS = 100_000  # safetensors reads headers of up to 100 MB
_SEAL_SECONDS = 60.0  # the most that a killed fill by a slow encoder loses
_STALE_SECONDS = 3600.0  # a shard is written in seconds: an older `.part` has no writer
_OPEN_SHARDS = 256  # each map holds a file descriptor, and 1,024 is a common limit


class CacheWarning(UserWarning):
    """Something in the cache was damaged and will be made again."""


def identity_hash(level: str, identity: Mapping[str, Any]) -> str:
    """Return the id of a store; raises TypeError where the identity is not JSON."""
    try:
        text = json.dumps({"level": level, "identity": identity}, sort_keys=True)
    except TypeError as error:
        raise TypeError(f"cache: the identity of a store must be JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Records by key. Opening reads the indices of the shards; nothing is written before
    `writer()`. Damaged shards are set aside with a `CacheWarning` and their keys are missing.
    """

    def __init__(self, root: Path, level: Level, identity: Mapping[str, Any]) -> None:
        self.root, self.level, self.identity = Path(root), level, dict(identity)
        self.id = identity_hash(level, self.identity)
        self.folder = self.root / level / self.id
        self._shards: dict[str, Shard] = {}
        self._where: dict[str, tuple[Shard, int]] = {}
        self._open: deque[Shard] = deque()
        self._dropped: set[str] = set()
        self._other_version: set[str] = set()
        self.refresh()
        if self._other_version or any(self.folder.glob(f"*{OLD_SUFFIX}")):
            text = "shards of another version are ignored; remove them: sensorium cache rm"
            warnings.warn(
                f"cache: {self.folder}: {text} {self.id[:12]}", CacheWarning, stacklevel=2
            )
        with contextlib.suppress(OSError):  # a read-only cache, or a store not yet begun
            os.utime(self.folder / "identity.json")  # when it was last used

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.root, self.level, self.identity))

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: object) -> bool:
        return key in self._where

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(shard.nbytes for shard in self._shards.values())

    def has(self, keys: Iterable[str]) -> bool:
        return all(key in self._where for key in keys)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that have no record, in order, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._where]

    def get(self, keys: Sequence[str]) -> list[Record]:
        """Return the records of the keys: read-only views of memory maps. Raise KeyError."""
        try:
            return [self._read(key) for key in keys]
        except FileNotFoundError:  # another process rewrote a shard while verifying
            self.refresh()
            return [self._read(key) for key in keys]

    def writer(self) -> Writer:
        """Begin to add records; use it in a `with` block."""
        make_folder(self.folder)
        identity_file = self.folder / "identity.json"
        if not identity_file.exists():
            identity = {"level": self.level, "identity": self.identity}
            write_text(identity_file, json.dumps(identity, indent=2))
        remove_parts(self.folder, _STALE_SECONDS)
        return Writer(self)

    def refresh(self) -> None:
        """See what other processes added or took away."""
        names = set()
        if self.folder.is_dir():
            names = {entry.name for entry in os.scandir(self.folder) if entry.name.endswith(SUFFIX)}
        if removed := self._shards.keys() - names:
            for name in removed:
                self._shards.pop(name).release()
            self._where = {}
            for shard in self._shards.values():
                self._index(shard)
        for name in sorted(names - self._shards.keys() - self._other_version):
            if loaded := self._load(self.folder / name):
                self._shards[loaded.path.name] = loaded
                self._index(loaded)

    def verify(self, content: Callable[[str], str | None] | None = None) -> list[str]:
        """Check every record, drop the bad ones, and return the keys that are now missing (with
        those that were dropped when the store was opened).

        content: key -> hash of the record's source today (`content_hash`), or None
        where that is not known; a record made from something else is dropped too.
        """
        before = self._dropped | set(self._where)
        for shard in list(self._shards.values()):
            bad = set(shard.corrupt())
            if content is not None:
                bad |= {i for i, k in enumerate(shard.keys) if _outdated(shard.read(i), content(k))}
            if bad:
                shard.without(bad)
            shard.release()
        for broken in self.folder.glob(f"*{SUFFIX}.broken"):
            broken.unlink(missing_ok=True)
        self.refresh()
        return sorted(before - self._where.keys())

    def _index(self, shard: Shard) -> None:
        self._where.update((key, (shard, i)) for i, key in enumerate(shard.keys))

    def _read(self, key: str) -> Record:
        location = self._where.get(key)
        if location is None:
            raise KeyError(f"cache {self.folder}: no record {key!r} among {len(self)}")
        shard, row = location
        if not shard.is_open:
            self._open.append(shard)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popleft().release()
        return shard.read(row)

    def _load(self, path: Path) -> Shard | None:
        """Open a shard; set aside one that is not whole, drop a touched one's bad records."""
        try:
            shard = Shard(path)
            bad = shard.corrupt() if shard.modified else []
        except FileNotFoundError:  # another process is verifying
            return None
        except OtherVersion:
            self._other_version.add(path.name)
            return None
        except BrokenShard as error:
            warnings.warn(f"cache: set aside: {error}", CacheWarning, stacklevel=3)
            with contextlib.suppress(OSError):  # a read-only cache
                path.replace(path.with_name(path.name + ".broken"))
            return None
        if bad:
            text = f"cache: {path}: dropped {len(bad)} of {len(shard.keys)} records: wrong checksum"
            warnings.warn(text, CacheWarning, stacklevel=3)
            self._dropped.update(shard.keys[i] for i in bad)
            remaining = shard.without(bad)
            return Shard(remaining) if remaining else None
        if shard.modified:
            with contextlib.suppress(OSError):  # a read-only cache: it is checked again next time
                shard.restore_time()
        shard.release()
        return shard


class Writer:
    """Collects records in memory and seals them into shards of about 64 MB or one minute."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[Packed] = []
        self._bytes, self._since = 0, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()  # after an error too: the records that are here are whole

    def put(self, key: str, record: Record) -> None:
        """Add a record; it can be read once its shard is sealed."""
        row = pack(key, record)
        self._rows.append(row)
        self._bytes += row.nbytes
        full = self._bytes >= _SEAL_BYTES or len(self._rows) >= _SEAL_ROWS
        if full or time.monotonic() - self._since >= _SEAL_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the collected records as a shard."""
        if self._rows:
            write_shard(self._store.folder, self._rows)
            self._store.refresh()
        self._rows, self._bytes, self._since = [], 0, time.monotonic()


def _outdated(record: Record, today: str | None) -> bool:
    return today is not None and CONTENT in record and record[CONTENT].tobytes().hex() != today
