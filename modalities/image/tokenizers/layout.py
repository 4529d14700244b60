"""A grid of codes as one sequence with its size in it (Lumina-mGPT, arXiv 2408.02657).

    <start> <height h> <width w> (w codes <row>) x h <end>

so that any grid parses back from its tokens alone, and a malformed sequence names the position at
which it cannot go on.

Legend: `K` codes, `h`, `w` rows and columns of the grid.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...signal_tokens import check_ids

WHO = "picture tokens"


@dataclass(frozen=True)
class GridLayout:
    """codes: `K`, whose ids come first; then those of the row, the start, the end, and of the sizes
    1 to `max_side`, which heights and widths share."""

    codes: int
    max_side: int

    @property
    def row(self) -> int:
        return self.codes

    @property
    def start(self) -> int:
        return self.codes + 1

    @property
    def end(self) -> int:
        return self.codes + 2

    @property
    def size(self) -> int:
        return self.codes + 3 + self.max_side

    def serialize(self, grid: Tensor) -> Tensor:
        """grid `[h, w]` long -> ids `[h (w + 1) + 4]`. Raise ValueError for a grid with more than
        `max_side` rows or columns, or none."""
        height, width = grid.shape
        if not (0 < height <= self.max_side and 0 < width <= self.max_side):
            raise ValueError(
                f"{WHO}: found a grid of {height} x {width}, expected sides of 1 to "
                f"{self.max_side}; raise max_side, or make pictures smaller with resize"
            )
        rows = torch.cat([grid, grid.new_full((height, 1), self.row)], 1).flatten()
        first = [self.start, self.end + height, self.end + width]
        return torch.cat([grid.new_tensor(first), rows, grid.new_tensor([self.end])])

    def parse(self, ids: Tensor | Sequence[int]) -> Tensor:
        """ids `[L]` -> grid `[h, w]`. Raise ValueError, with the position, what stands there and
        what should, for a sequence that is no grid."""
        values = check_ids(ids, self.size, WHO)
        for position, value in enumerate(values):
            allowed, label = self._expected(values[:3], position)
            if value not in allowed:
                raise ValueError(
                    f"{WHO}: position {position}: found {self.describe(value)}, expected {label}"
                )
        if not values or values[-1] != self.end:
            label = self._expected(values[:3], len(values))[1]
            raise ValueError(f"{WHO}: position {len(values)}: the sequence stops, expected {label}")
        height, width = (value - self.end for value in values[1:3])
        body = torch.tensor(values[3:-1]).view(height, width + 1)
        return body[:, :width].contiguous()

    def next_ids(self, ids: Sequence[int]) -> tuple[Collection[int], bool]:
        """Return the ids that may follow a correct beginning, and whether it is a whole grid: one
        ends with its end token."""
        complete = bool(ids) and ids[-1] == self.end
        return self._expected(list(ids[:3]), len(ids))[0], complete

    def describe(self, value: int) -> str:
        """Return the name of a token for a message."""
        names = {self.row: "<row>", self.start: "<start>", self.end: "<end>"}
        code = f"code {value}" if value < self.codes else f"<size {value - self.end}>"
        return names.get(value, code)

    def _expected(self, first: Sequence[int], position: int) -> tuple[range, str]:
        """Return the ids that may stand at a position, given the first three, and their name."""
        if position == 0:
            return range(self.start, self.start + 1), "<start>"
        if position < 3:
            side = "height" if position == 1 else "width"
            return range(self.end + 1, self.size), f"a {side}, <size 1> to <size {self.max_side}>"
        height, width = (value - self.end for value in first[1:3])
        row, column = divmod(position - 3, width + 1)
        if row >= height:
            past = position - 3 - height * (width + 1)
            ends = range(self.end, self.end + 1) if not past else range(0)
            return ends, f"<end> after {height} rows" if not past else "nothing after <end>"
        if column == width:
            return range(self.row, self.row + 1), f"<row> after row {row + 1} of {height}"
        return range(self.codes), f"code {column + 1} of {width} in row {row + 1} of {height}"
