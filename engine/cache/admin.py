"""All stores under a cache root: what `sensorium cache ls`, `rm` and `verify` do."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...modalities.paths import address_of
from ..utils import ConfigError, transfer_missing
from .shard import OLD_SUFFIX, SUFFIX, BrokenShard, OtherVersion, Shard
from .store import LEVELS, Level, Store


@dataclass(frozen=True)
class StoreInfo:
    """A store as it lies on disk. nbytes: bytes. used: seconds since 1970."""

    id: str
    level: Level
    path: Path
    identity: dict[str, Any]
    records: int
    nbytes: int
    used: float


def sync_stores(root: Path, address: str, *, upload: bool) -> int:
    """Copy shards and identities to object storage, or from there, which the other side lacks;
    return the number of files. A shard is written once and under a name of its own. Raise
    ConfigError for a place that is no object storage."""
    place = address_of(address)
    if place is None:
        raise ConfigError(f"{address}: is no address of object storage; expected s3://bucket/cache")

    def fits(name: str) -> bool:
        path = PurePosixPath(name)
        whole = path.suffix == SUFFIX or path.name == "identity.json"
        return path.parts[0] in LEVELS and len(path.parts) == 3 and whole

    return transfer_missing(root, place, fits, upload)


def list_stores(root: Path) -> list[StoreInfo]:
    """Return the stores under a root, the one used last first."""
    folders = [
        (level, path)
        for level in LEVELS
        for path in (root / level).glob("*")
        if path.is_dir() and not path.name.startswith(".")
    ]
    return sorted((_info(level, path) for level, path in folders), key=lambda info: -info.used)


def remove_stores(root: Path, which: str, *, older_than: float = 0.0) -> list[StoreInfo]:
    """Remove `all` stores, or the one whose id begins with `which`; return what was removed.

    older_than: only those that were not used for this many seconds. Raise ValueError where
    `which` fits no store or several.
    """
    stores = list_stores(root)
    if which != "all":
        stores = [info for info in stores if which and info.id.startswith(which)]
        if len(stores) != 1:
            fit = ", ".join(info.id[:12] for info in stores) or "none"
            raise ValueError(f"cache {root}: {which!r} fits {len(stores)} stores ({fit}), not one")
    stores = [info for info in stores if time.time() - info.used >= older_than]
    for info in stores:
        # Renamed first: if this is killed in between, no half of a store is left behind.
        trash = info.path.with_name(f".trash-{uuid.uuid4().hex}")
        info.path.replace(trash)
        shutil.rmtree(trash)
    for trash in (t for level in LEVELS for t in (root / level).glob(".trash-*")):
        shutil.rmtree(trash, ignore_errors=True)
    return stores


def verify(root: Path) -> dict[str, list[str]]:
    """Check every store; return the keys that were dropped, by the store's id."""
    stores = (Store(root, info.level, info.identity) for info in list_stores(root) if info.identity)
    return {store.id: store.verify() for store in stores}


def _info(level: Level, path: Path) -> StoreInfo:
    records = nbytes = 0
    for shard in (*path.glob(f"*{SUFFIX}*"), *path.glob(f"*{OLD_SUFFIX}*")):
        try:
            nbytes += shard.stat().st_size
            records += len(Shard(shard).keys)
        except (BrokenShard, OtherVersion, FileNotFoundError):
            continue  # damaged: opening the store sets it aside; gone: somebody is verifying
    identity_file = path / "identity.json"
    identity = (
        json.loads(identity_file.read_text(encoding="utf-8"))["identity"]
        if identity_file.exists()
        else {}
    )
    used = (identity_file if identity_file.exists() else path).stat().st_mtime
    return StoreInfo(path.name, level, path, identity, records, nbytes, used)
