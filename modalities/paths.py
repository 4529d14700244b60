"""Folders of the cache, shared by all modalities."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$SENSORIUM_CACHE`, else `$XDG_CACHE_HOME/sensorium`, else `~/.cache/sensorium`."""
    own = os.environ.get("SENSORIUM_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sensorium"
