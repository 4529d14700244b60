"""Boxes as coordinates: one token a number (Pix2Seq, arXiv 2109.10852).

Legend: `n` boxes of a picture, `L = 4 n` tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from ...base import PositiveFloat, ReadError, only_read_errors
from ...signal_tokens import check_ids
from .encoder import BoxesTokenizer

SIDES = 4  # left, top, right, bottom


class BoxTokenizer(BoxesTokenizer):
    """`[[left, top, right, bottom], ...]` in px, each number one of `bins` tokens.

    bins: tokens, equal parts of `[0, extent]`; a number is decoded to the middle of its bin.
    extent: px, greater than any number; None: the greatest of the training boxes.
    """

    def __init__(
        self, *, bins: Annotated[int, Ge(2)] = 1000, extent: PositiveFloat | None = None
    ) -> None:
        self.bins = self.size = bins
        self.extent = extent

    def fit(self, rows: Iterable[Any]) -> None:
        """Find the greatest coordinate, if `extent` is not set."""
        greatest = max((float(self._checked(row).max(initial=0)) for row in rows), default=0.0)
        if self.extent is None:
            if greatest <= 0:
                raise ValueError("coordinates: the training split has no box; set extent")
            self.extent = greatest

    def encode(self, signals: Sequence[Any]) -> list[Tensor]:
        """Return ids `[4 n]` of each list of boxes. Raise ValueError for a box outside."""
        return [self._ids(self._checked(boxes)) for boxes in signals]

    def decode(self, ids: Sequence[Any]) -> list[list[list[float]]]:
        """Return the boxes of each row of ids, at the middles of their bins. Raise ValueError, with
        the position, for a box that is not whole, or ends before it begins."""
        return [self._boxes(check_ids(row, self.size, "coordinates")) for row in ids]

    def next_ids(self, ids: Sequence[int]) -> tuple[Collection[int], bool]:
        """A right or bottom side is not before its left or top one; a whole box may be the last."""
        place = len(ids) % SIDES
        first = ids[-2] if place >= 2 else 0
        return range(first, self.size), bool(ids) and place == 0

    def state(self) -> dict[str, Any]:
        return {"extent": self._fitted()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.extent = float(state["extent"])

    def _fitted(self) -> float:
        if self.extent is None:
            raise ValueError("coordinates: used before fit; fit it, or set extent")
        return self.extent

    def _checked(self, boxes: Any) -> np.ndarray:
        try:
            array = np.asarray(boxes, dtype=np.float64).reshape(-1, SIDES)
        except (TypeError, ValueError) as error:
            expected = "[[left, top, right, bottom], ...] in px"
            raise ReadError(boxes, f"no list of boxes ({error})", expected) from error
        wrong = np.argwhere(~np.isfinite(array) | (array < 0))
        if len(wrong):
            box, side = wrong[0]
            raise ValueError(f"coordinates: box {box} has {array[box, side]}, expected 0 or more")
        turned = np.flatnonzero((array[:, :2] > array[:, 2:]).any(1))
        if len(turned):
            raise ValueError(
                f"coordinates: box {turned[0]} is {array[turned[0]].tolist()}, expected left, top, "
                "right, bottom, none before its opposite"
            )
        return array

    def _ids(self, boxes: np.ndarray) -> Tensor:
        extent = self._fitted()
        if boxes.size and boxes.max() > extent:
            raise ValueError(f"coordinates: found {boxes.max()} px, expected at most {extent}")
        ids = np.floor(boxes / extent * self.bins).clip(0, self.bins - 1)
        return torch.from_numpy(ids.reshape(-1).astype(np.int64))

    def _boxes(self, ids: list[int]) -> list[list[float]]:
        width = self._fitted() / self.bins
        if len(ids) % SIDES:
            raise ValueError(
                f"coordinates: position {len(ids)}: the sequence stops after {len(ids) % SIDES} of "
                f"{SIDES} sides of box {len(ids) // SIDES + 1}"
            )
        for position, value in enumerate(ids):
            if position % SIDES >= 2 and value < ids[position - 2]:
                raise ValueError(
                    f"coordinates: position {position}: found {value}, expected "
                    f"{ids[position - 2]} or more, the side before"
                )
        return [[(i + 0.5) * width for i in ids[k : k + SIDES]] for k in range(0, len(ids), SIDES)]


@only_read_errors("boxes")
def read(cell: Any) -> list[list[float]]:
    """Return the boxes of a cell: a list of four numbers each, or one such list."""
    try:
        boxes: list[list[float]] = np.asarray(cell, dtype=np.float64).reshape(-1, SIDES).tolist()
    except (TypeError, ValueError) as error:
        expected = "[[left, top, right, bottom], ...] in px"
        raise ReadError(cell, f"no list of boxes ({error})", expected) from error
    return boxes


def example(rng: np.random.Generator) -> list[list[float]]:
    """Return one or two boxes, for dry runs."""
    corners = rng.uniform(0, 60, (int(rng.integers(1, 3)), 2, 2))
    boxes: list[list[float]] = np.sort(corners, axis=1).reshape(-1, SIDES).tolist()
    return boxes
