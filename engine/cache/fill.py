"""The cache: samples and features that were computed once, stored under a hash of their content.

Two levels. *Samples*: outputs of `Processor.prepare`, for any encoder. *Features*:
outputs of a frozen encoder. This file fills stores; the keys come from `keys.py`,
how a batch becomes records in `records.py`, how they lie on disk in `store.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...modalities.paths import cache_root
from ..utils import RuntimeFailure
from .admin import StoreInfo, list_stores, remove_stores, verify
from .keys import add_content_hash, content_hash, encoder_identity, processor_identity, weights_hash
from .records import PRECISIONS, from_records, record_to_sample, sample_to_record, to_records
from .shard import Record, pack
from .store import CONTENT, CacheWarning, Store

__all__ = [
    "CONTENT",
    "PRECISIONS",
    "CacheWarning",
    "Filled",
    "Record",
    "Store",
    "StoreInfo",
    "add_content_hash",
    "cache_root",
    "content_hash",
    "encoder_identity",
    "estimate",
    "fill",
    "from_records",
    "list_stores",
    "processor_identity",
    "record_to_sample",
    "remove_stores",
    "require_space",
    "sample_to_record",
    "to_records",
    "verify",
    "weights_hash",
]


class Filled(NamedTuple):
    """What `fill` did: rows computed now, and the keys of rows that gave no record."""

    computed: int
    skipped: list[str]


def estimate(records: Sequence[Record], count: int) -> int:
    """Bytes on disk of `count` records like these."""
    each = sum(pack("", record).nbytes for record in records) / len(records)
    return int(count * (each + 100))  # 100: key, place and checksum in the index


def require_space(root: Path, needed: int) -> None:
    """Raise RuntimeFailure where the disk has less room than is needed."""
    existing = next(p for p in (root, *root.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise RuntimeFailure(
            f"cache {root}: needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; set "
            "SENSORIUM_CACHE to a larger disk, or store in a smaller precision"
        )


def fill(
    store: Store,
    keys: Sequence[str],
    compute: Callable[[list[int]], Iterable[Record | None]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Compute the records that are missing, and only those.

    compute: places in `keys` -> a record each, in order; None for a row that cannot be read
    (it stays missing). progress: called with (rows done, rows in all). May be killed at any
    time: sealed shards are kept. Raise RuntimeFailure if the disk is too small.
    """
    missing = set(store.missing(keys))
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        if key in missing:
            first.setdefault(key, i)
    indices = list(first.values())
    computed, skipped = 0, list[str]()
    with store.writer() as writer:
        for start in range(0, len(indices), batch_size):
            store.refresh()  # another process may have been here
            batch = [i for i in indices[start : start + batch_size] if keys[i] not in store]
            records = list(compute(batch)) if batch else []
            if len(records) != len(batch):
                raise RuntimeFailure(f"cache: {len(batch)} rows returned {len(records)} records")
            if start == 0 and (examples := [r for r in records if r is not None]):
                require_space(store.folder, estimate(examples, len(indices)))
            for i, record in zip(batch, records, strict=True):
                if record is None:
                    skipped.append(keys[i])
                else:
                    writer.put(keys[i], record)
                    computed += 1
            if progress is not None:
                progress(min(start + batch_size, len(indices)), len(indices))
    return Filled(computed, skipped)
