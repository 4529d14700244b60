"""Observation history of an episode, with the windows of the training data.

Legend: `n` frames of a window.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data import Span


class History:
    """The last frames of every stream; before the first there is the first again."""

    def __init__(self, spans: Mapping[str, Span]) -> None:
        self.spans = dict(spans)
        self._frames = {k: deque[Any](maxlen=1 - first) for k, (first, _) in spans.items()}
        self._now: dict[str, Any] = {}

    def append(self, values: Mapping[str, Any]) -> None:
        """Append copies of a step's values, by stream: an environment may write each observation
        into the same memory."""
        self._now = copy.deepcopy(dict(values))
        for name, frames in self._frames.items():
            frames.append(self._now[name])

    def row(self) -> dict[str, Any]:
        """Return a row as the data would have it: `[n, ...]` where the recipe has a window."""
        return {**self._now, **{name: self._window(name) for name in self._frames}}

    def _window(self, name: str) -> np.ndarray:
        frames, (first, last) = self._frames[name], self.spans[name]
        indices = [max(0, len(frames) - 1 + offset) for offset in range(first, last + 1)]
        cells = np.stack([np.asarray(frames[index]) for index in indices])
        cells = cells.astype(np.float32) if cells.dtype.kind == "f" else cells
        return cells[:, None] if cells.ndim == 1 else cells
