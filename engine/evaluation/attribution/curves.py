"""Deletion and insertion: whether a map names the cells that a prediction rests on.

Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .cells import Cells
from .methods import Baseline, baseline_of
from .scorer import Scorer


@dataclass(frozen=True)
class Curves:
    """Probability of a prediction over the share of the cells that is taken away, or put in, the
    highest of the map first. random: the same in a random order. A good map has a small area under
    the curve of deletion and a large one under that of insertion."""

    shares: list[float]
    deletion: list[float]
    insertion: list[float]
    random_deletion: list[float]
    random_insertion: list[float]

    def areas(self) -> dict[str, float]:
        """Return the area under each curve, 0 to 1 for probabilities."""
        names = ("deletion", "insertion", "random_deletion", "random_insertion")
        return {n: float(np.trapezoid(getattr(self, n), self.shares)) for n in names}


def curves(
    scorer: Scorer,
    cells: Cells,
    values: np.ndarray,
    *,
    steps: int = 10,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> Curves:
    """Return the curves of a map `grid` of the whole prediction. Its probability is the geometric
    mean of its words'."""
    count = len(cells)
    counts = sorted({round(i * count / steps) for i in range(steps + 1)})
    random = np.random.default_rng(seed).permutation(count)
    order = np.argsort(-values.ravel(), kind="stable")
    lines = {
        f"{prefix}{kind}": _curve(scorer, cells, chosen, counts, kind, baseline)
        for prefix, chosen in (("", order), ("random_", random))
        for kind in ("deletion", "insertion")
    }
    return Curves([n / count for n in counts], **lines)


def _curve(
    scorer: Scorer,
    cells: Cells,
    order: np.ndarray,
    counts: Sequence[int],
    kind: str,
    baseline: Baseline,
) -> list[float]:
    value = scorer.tensor(cells.place)[0]
    other = baseline_of(value, cells, baseline).clone()
    start, end = (value, other) if kind == "deletion" else (other, value)
    variants = [cells.replaced(start, end, [int(k) for k in order[:n]]) for n in counts]
    scores = scorer.score_many(cells.place, variants).mean(1)
    return [float(score) for score in scores.clamp(max=0).exp()]
