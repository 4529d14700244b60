"""Pictures of an episode as a file to look at: a GIF by Pillow, an MP4 by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from .catalogue import optional
from .errors import RecipeError


def _gif(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    pause = max(20, round(1000 / fps))  # viewers slow down whatever asks for less
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=pause, loop=0)


def _mp4(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    av = optional("av")
    height, width = (side - side % 2 for side in frames[0].shape[:2])  # yuv420p wants even sides
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


WRITERS: dict[str, Callable[[Path, Sequence[np.ndarray], float], None]] = {
    ".gif": _gif,
    ".mp4": _mp4,
}


def write_film(path: Path, frames: Sequence[np.ndarray], fps: float) -> Path:
    """Write frames uint8 `[H, W, 3]`; the suffix says how. RecipeError for another suffix."""
    if path.suffix not in WRITERS:
        raise RecipeError(f"{path.name}: found {path.suffix!r}, expected {' or '.join(WRITERS)}")
    if not frames:
        raise RecipeError(f"{path.name}: the environment draws no picture of itself")
    WRITERS[path.suffix](path, frames, fps)
    return path
