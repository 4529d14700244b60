"""Hashes of values that are equal in every process and version."""

from __future__ import annotations

import hashlib


def stable_hash(value: object) -> int:
    """Return a 63-bit hash of a value; 0 for None."""
    if value is None:
        return 0
    text = f"{type(value).__name__}:{value}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1 or 1
