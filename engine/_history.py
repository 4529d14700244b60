"""What a policy remembers of an episode: the windows that training cut out of the data.

Legend: `n` frames of a window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from .recipe import TaskSection
from .utils import RecipeError

Span = tuple[int, int]


def spans_of(section: TaskSection, streams: Container[str], where: str) -> dict[str, Span]:
    """The windows of a task's streams, first and last frame counted from now.

    Raises RecipeError for one that looks into the future: nobody has seen it yet.
    """
    sections = list(section.data.values())
    found = {k: v for s in reversed(sections) for k, v in s.window.items() if k in streams}
    for name, (first, last) in found.items():
        if last > 0:
            raise RecipeError(
                f"{where}.window.{name}: found [{first}, {last}], which looks {last} frames "
                "ahead; an environment has seen none after the frame 0"
            )
    return found


class History:
    """The last frames of every stream; before the first there is the first again."""

    def __init__(self, spans: Mapping[str, Span]) -> None:
        self.spans = dict(spans)
        self._frames = {k: deque[Any](maxlen=1 - first) for k, (first, _) in spans.items()}
        self._now: dict[str, Any] = {}

    def see(self, values: Mapping[str, Any]) -> None:
        """The values of a step, by stream."""
        self._now = dict(values)
        for name, frames in self._frames.items():
            frames.append(values[name])

    def row(self) -> dict[str, Any]:
        """As a row of the data would be: `[n, ...]` where the recipe has a window."""
        return {**self._now, **{name: self._window(name) for name in self._frames}}

    def _window(self, name: str) -> np.ndarray:
        frames, (first, last) = self._frames[name], self.spans[name]
        places = [max(0, len(frames) - 1 + offset) for offset in range(first, last + 1)]
        cells = np.stack([np.asarray(frames[place]) for place in places])
        cells = cells.astype(np.float32) if cells.dtype.kind == "f" else cells
        return cells[:, None] if cells.ndim == 1 else cells


def repeated(value: Any, span: Span) -> Any:
    """A single frame as a whole window; a list of them each; what has steps already, as it is."""
    if isinstance(value, list):
        return [repeated(each, span) for each in value]
    cell = np.asarray(value)
    return np.repeat(cell[None], span[1] - span[0] + 1, axis=0) if cell.ndim == 1 else value
