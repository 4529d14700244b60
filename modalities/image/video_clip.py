"""Clips: pictures that follow one another at a known rate.

Legend: `T` frames, `H` height, `W` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import ReadError


@dataclass(frozen=True)
class Clip:
    """frames: `[T, H, W, 3]` uint8. fps: frames a second."""

    frames: np.ndarray
    fps: float

    def at(self, fps: float) -> np.ndarray:
        """Return the frames at another rate: of each moment the frame that is shown then."""
        count = max(1, round(len(self.frames) / self.fps * fps))
        indices = ((np.arange(count) + 0.5) / fps * self.fps).astype(int)
        frames: np.ndarray = self.frames[indices.clip(max=len(self.frames) - 1)]
        return frames


def is_clip(source: Any) -> bool:
    """Return True for a clip, an array with `fps`, or a cell `{"frames":, "fps":}`."""
    if isinstance(source, Mapping):
        return "frames" in source
    return isinstance(source, Clip) or (hasattr(source, "__array__") and hasattr(source, "fps"))


def read_clip(source: Any) -> Clip:
    """Return a value for which `is_clip` is true as a clip. Raise `ReadError` for other shapes,
    types, rates."""
    if isinstance(source, Mapping):
        frames, fps = source["frames"], source.get("fps")
    else:
        frames, fps = getattr(source, "frames", source), source.fps
    array = np.asarray(frames)
    right = "uint8 [T, H, W, 3] with at least one frame"
    if array.ndim != 4 or array.shape[3] != 3 or not array.size or array.dtype != np.uint8:
        raise ReadError(source, f"a clip of {array.dtype} {array.shape}", right)
    if not isinstance(fps, (int, float)) or not 0 < fps < float("inf"):
        raise ReadError(source, f"a clip at {fps!r} frames a second", "fps above 0")
    return Clip(array, float(fps))
