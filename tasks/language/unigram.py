"""The unigram baseline: tokens predicted from how often each occurs, whatever stands beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor


class Unigram:
    """Frequencies of the ids of a vocabulary of `size`, one more of each (Laplace), so that no id
    is impossible."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.counts: Counter[int] = Counter()

    def add(self, ids: Tensor) -> None:
        """Count ids `[N]`."""
        self.counts.update(ids.tolist())

    def nll(self, ids: Iterable[int]) -> float:
        """Return the sum of `-log p` of ids, in nats."""
        total = math.log(self.counts.total() + self.size)
        return sum(total - math.log(self.counts[i] + 1) for i in ids)


def unigram_scores(
    models: Mapping[str, Unigram],
    training: Iterable[tuple[str, Tensor]],
    held_out: Iterable[tuple[str, Tensor]],
) -> Iterator[tuple[str, float, int]]:
    """Yield the name, the sum of `-log p` and the number of each held-out ids `[N]`, by models that
    counted the training ids of their name."""
    for name, ids in training:
        models[name].add(ids)
    for name, ids in held_out:
        yield name, models[name].nll(ids.tolist()), len(ids)
