"""Figures of a benchmark, with intervals by bootstrap over studies.

A resample is how often each study was drawn, so that two models are weighed by the same ones
(paired), and a study's series stay together: they are no independent answers.

Legend: `R` resamples, `S` studies, `N` rows, `K` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MIDDLE = (0.025, 0.975)
"""Of the resamples: the 95 % interval."""


def draws(studies: int, count: int = 2000, seed: int = 0) -> np.ndarray:
    """Return `[1 + R, S]` how often each study counts: once in the first row, as drawn in the
    others."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(studies, np.full(studies, 1 / studies), size=count)
    return np.concatenate([np.ones((1, studies), dtype=int), counts])


@dataclass(frozen=True)
class BootstrapMetric:
    """of: the weights of rows `[R, N]` -> `[R]`. study: `[N]` the place of each row's study among
    all. better: 1 where more is better, -1 where less is. chance: the score without any model."""

    of: Callable[[np.ndarray], np.ndarray]
    study: np.ndarray
    better: int = 1
    chance: float | None = None

    def over(self, drawn: np.ndarray) -> np.ndarray:
        """Return `[R]` the figure of every resample; NaN where it drew none of the rows."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.of(drawn[:, self.study].astype(float))

    def beyond(self, drawn: np.ndarray) -> bool:
        """Return whether the interval excludes chance, on the better side."""
        if self.chance is None:
            return False
        return interval(self.better * (self.over(drawn) - self.chance))[0] > 0


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of the resamples, without the first, which is the figure itself."""
    low, high = np.nanquantile(values[1:], MIDDLE)
    return float(low), float(high)


def ratio(
    above: Sequence[float],
    study: Sequence[int],
    below: Sequence[float] | None = None,
    *,
    better: int = 1,
    chance: float | None = None,
) -> BootstrapMetric:
    """Return the ratio of two sums over rows; by default the mean."""
    top = np.asarray(above, dtype=float)
    under = np.ones_like(top) if below is None else np.asarray(below, dtype=float)
    return BootstrapMetric(
        lambda w: (w @ top) / (w @ under), np.asarray(study, int), better, chance
    )


def auroc(scores: np.ndarray, targets: np.ndarray, study: Sequence[int]) -> BootstrapMetric:
    """scores `[N, K]`, wanted `[N]` places of classes: the mean over classes of one against the
    rest, ties counted half."""
    pair_counts = [_pairs(scores[:, k], targets == k) for k in range(scores.shape[1])]
    usable = [pair_count for pair_count, k in zip(pair_counts, range(scores.shape[1]), strict=True)
              if 0 < (targets == k).sum() < len(targets)]  # fmt: skip
    return BootstrapMetric(
        lambda w: np.mean([pair_count(w) for pair_count in usable], axis=0),
        np.asarray(study, int),
        1,
        0.5,
    )


def _pairs(scores: np.ndarray, yes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weights `[R, N]` -> the weighted share of pairs (yes, no) in which yes scores higher."""
    order = np.argsort(scores, kind="stable")
    ranked, truth = scores[order], yes[order].astype(float)
    first = np.searchsorted(ranked, ranked, "left")
    last = np.searchsorted(ranked, ranked, "right")

    def share(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        no = ordered * (1 - truth)
        below = np.concatenate([np.zeros((len(no), 1)), no.cumsum(1)], 1)
        won = (below[:, first] + below[:, last]) / 2
        pairs = (ordered * truth).sum(1) * no.sum(1)
        return np.asarray((ordered * truth * won).sum(1) / pairs)

    return share


def recall(ranked: Sequence[Sequence[int]], same: np.ndarray, k: int) -> list[float]:
    """ranked: of each query, candidates from the nearest on. same `[N, C]` bool: which of them
    state the same. 1 where one of the first k does."""
    return [float(same[row, list(best[:k])].any()) for row, best in enumerate(ranked)]


def chance_of_recall(same: np.ndarray, k: int) -> float:
    """Of an order by chance: the share of queries with a right answer among the first k."""
    candidates, right = same.shape[1], same.sum(1)
    missed = np.ones(len(same))
    for drawn in range(min(k, candidates)):
        missed *= np.clip(candidates - right - drawn, 0, None) / (candidates - drawn)
    return float((1 - missed).mean())


def compared(
    first: BootstrapMetric, second: BootstrapMetric, drawn: np.ndarray
) -> tuple[float, float, float]:
    """How much better `first` is than `second`, and the interval of the difference over the same
    resamples."""
    difference = first.better * (first.over(drawn) - second.over(drawn))
    return float(difference[0]), *interval(difference)


def verdict(first: BootstrapMetric, second: BootstrapMetric, drawn: np.ndarray) -> str:
    """`holds`, `tie` (both beyond chance), `tie at chance` or `below`."""
    _, low, high = compared(first, second, drawn)
    if low > 0:
        return "holds"
    if high < 0:
        return "below"
    both = first.beyond(drawn) and second.beyond(drawn)
    return "tie, both beyond chance" if both else "tie at chance, does not count"


def format_interval(measure: BootstrapMetric | None, drawn: np.ndarray, digits: int = 2) -> str:
    """Format `0.91 (0.88 to 0.93)`; a dash without a value."""
    if measure is None or not len(measure.study):
        return "-"
    values = measure.over(drawn)
    low, high = interval(values)
    return f"{values[0]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
