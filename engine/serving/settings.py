"""What a server allows: sizes of requests and inputs, batches, waiting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServeSettings:
    """api_key: what `Authorization: Bearer` must hold; None lets everyone in.

    batch, wait_ms: requests of one kind that are answered together, and how long the first of them
    waits for others. max_waiting: requests of a model that may wait; more are refused with 429.
    threads: that read and prepare inputs. memory_bytes: of features that are remembered, a model.

    max_bytes: of a request. max_pixels, max_voxels, max_seconds: of a picture, a volume, a sound,
    by its header, before it is decoded. files: the folder of uploaded files; by default a
    temporary one. max_files_bytes: of all of them.
    """

    api_key: str | None = None
    batch: int = 16
    wait_ms: float = 5.0
    max_waiting: int = 256
    threads: int = 4
    memory_bytes: int = 2**28
    max_bytes: int = 100_000_000
    max_pixels: int = 100_000_000
    max_voxels: int = 200_000_000
    max_seconds: float = 3600.0
    files: Path | None = None
    max_files_bytes: int = 2_000_000_000
