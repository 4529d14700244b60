"""Video files of an episode: GIF by Pillow and MP4 by PyAV, both through imageio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..recipe import import_optional
from ..utils import ConfigError, atomic_path


def _gif(frames: np.ndarray, fps: float) -> dict[str, Any]:
    # Viewers slow down animations of less than 20 ms a frame.
    return {"plugin": "pillow", "image": frames, "duration": max(20, round(1000 / fps)), "loop": 0}


def _mp4(frames: np.ndarray, fps: float) -> dict[str, Any]:
    import_optional("av")
    height, width = (side - side % 2 for side in frames.shape[1:3])  # yuv420p wants even sides
    codec = {"codec": "libx264", "out_pixel_format": "yuv420p"}
    return {"plugin": "pyav", "image": frames[:, :height, :width], "fps": fps, **codec}


FORMATS: dict[str, Callable[[np.ndarray, float], dict[str, Any]]] = {".gif": _gif, ".mp4": _mp4}
"""Suffix -> arguments of `imageio.v3.imwrite` for frames uint8 `[T, H, W, 3]` and a frame rate."""


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> Path:
    """Write frames uint8 `[H, W, 3]` in the format of the suffix, and return the path.

    Raise ConfigError for another suffix, or without a frame.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path.name}: found {path.suffix!r}, expected {' or '.join(FORMATS)}")
    if not frames:
        raise ConfigError(f"{path.name}: the environment draws no picture of itself")
    arguments = FORMATS[path.suffix](np.stack(frames), fps)
    with atomic_path(path) as beside:
        import_optional("imageio.v3").imwrite(beside, **arguments)
    return path
