"""Where many predictions look: a place that decides them all is a shortcut."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analyses import Subject
from .cells import find_cells
from .methods import Baseline, occlusion
from .scorer import Scorer

Rows = list[dict[str, Any]]


def places(
    subject: Subject,
    stream: str | None = None,
    cells: int | None = None,
    baseline: Baseline = "mean",
    top: int = 10,
) -> Rows:
    """The cells of a signal (patches, voxels, frames) on which the predictions of all rows rest.

    `share`: of the changes of the predictions' scores if one cell at a time is replaced, those of
    this cell. `largest`: fraction of the rows in which no cell changes them more. `chance`: 1 /
    cells. One cell with most of the share in most rows is a mark that gives the answer away (a
    scanner's stamp, the silence before a word); use few rows (`--limit 50`).

    stream: the task's only input. cells: how many along each axis; by default the encoder's
    tokens. baseline: replacement of a cell, `mean` or `zero`. top: how many are listed.
    """
    name = subject.stream(stream)
    shares: dict[tuple[int, ...], np.ndarray] = {}
    firsts: dict[tuple[int, ...], np.ndarray] = {}
    for index in range(len(subject.rows)):
        scorer = Scorer.of(subject.model, subject.task, subject.rows.source[index])
        found = find_cells(scorer, name, cells)
        change = np.abs(occlusion(scorer, found, baseline)).sum(0)
        grid = found.grid
        shares[grid] = shares.get(grid, np.zeros(grid)) + change / max(change.sum(), 1e-12)
        firsts[grid] = firsts.get(grid, np.zeros(grid)) + ((change == change.max()) & (change > 0))
    if len(shares) > 1:
        raise ValueError(
            f"cells: the rows have {len(shares)} grids, {', '.join(map(str, list(shares)[:2]))} "
            "among them; set cells=N"
        )
    ((grid, total),) = shares.items()
    order = np.argsort(-total, axis=None, kind="stable")[:top]
    rows: Rows = []
    for place in zip(*np.unravel_index(order, grid), strict=True):
        rows.append(
            {
                "cell": " ".join(str(int(i)) for i in place),
                "share": float(total[place]) / len(subject.rows),
                "largest": float(firsts[grid][place]) / len(subject.rows),
                "chance": 1 / total.size,
            }
        )
    return rows
