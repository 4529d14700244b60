"""Single frames of a video file, selected by time and decoded on access."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...base import ReadError


def pyav() -> ModuleType:
    """Return PyAV. Raise ValueError that names the extra if it is missing."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ValueError(
            "videos: PyAV is not installed: pip install 'sensorium[video]', or set videos: false"
        ) from error
    return av


@dataclass(frozen=True)
class VideoFrame:
    """The frame of a file at a time, in s. As an array: uint8 `[H, W, 3]`.

    tolerance: in s; without a frame that close to the time, it is missing (ReadError).
    """

    path: Path
    time: float
    tolerance: float

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.decode(), dtype)

    @property
    def name(self) -> str:
        return f"{self.path} at {self.time:.4f} s"

    def decode(self) -> np.ndarray:
        """Decode from the preceding key frame. Raise ReadError for a missing frame or a broken
        file."""
        av = pyav()
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                early = max(0.0, self.time - self.tolerance)
                container.seek(int(early / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    if frame.time is not None and frame.time >= self.time - self.tolerance:
                        return self._pixels(frame)
        except FileNotFoundError:
            raise ReadError(self.name, "there is no such file", "a video file") from None
        except (av.FFmpegError, IndexError, OSError) as error:
            message = " ".join(str(error).split())
            raise ReadError(
                self.name, f"broken or truncated ({message})", "a whole video file"
            ) from error
        raise ReadError(self.name, "the video ends before this time", "a frame at it")

    def _pixels(self, frame: Any) -> np.ndarray:
        if frame.time > self.time + self.tolerance:
            raise ReadError(self.name, f"the next frame is at {frame.time:.4f} s", "a frame at it")
        pixels: np.ndarray = frame.to_ndarray(format="rgb24")
        return pixels
