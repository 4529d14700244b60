"""CIDEr-D: the consensus of a text with its references (Vedantam, Zitnick and Parikh 2015).

For n-grams of n = 1..4, with `h_k(s)` the count of k in s, `I` the rows of the set and
`df_k` the rows one of whose references has k:

    g_k(s)   = h_k(s) * log(|I| / max(1, df_k))
    sim_n    = exp(-(l(c) - l(s))^2 / (2 * 6^2)) * sum_k min(g_k(c), g_k(s)) * g_k(s)
               / (|g(c)| * |g(s)|)
    CIDEr-D  = 10 * mean over n and over the references s of sim_n(c, s)

Frequencies are raw counts, as in the authors' program. An n-gram of every row weighs nothing,
so a set of one row scores 0, and a text shorter than n words has nothing to score there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ORDER = 4
SIGMA = 6.0

Gram = tuple[str, ...]
Vector = tuple[list[dict[Gram, float]], list[float], int]
"""Weights of the n-grams and their norm, for each n; number of words."""


def cider_d(texts: Sequence[list[str]], references: Sequence[Sequence[list[str]]]) -> list[float]:
    """Return the score of each text (a list of words) given its references; 0 to 10."""
    counted = [[_grams(text) for text in row] for row in references]
    frequency = Counter(gram for row in counted for gram in set().union(*row))
    scores = []
    for text, row, counts in zip(texts, references, counted, strict=True):
        candidate = _vector(_grams(text), len(text), frequency, len(texts))
        similar = [
            _similarity(candidate, _vector(count, len(reference), frequency, len(texts)))
            for reference, count in zip(row, counts, strict=True)
        ]
        scores.append(10.0 * sum(similar) / len(similar))
    return scores


def _grams(text: Sequence[str]) -> Counter[Gram]:
    """Count each n-gram of a text, n = 1..4."""
    return Counter(
        tuple(text[start : start + n])
        for n in range(1, ORDER + 1)
        for start in range(len(text) - n + 1)
    )


def _vector(counts: Counter[Gram], length: int, frequency: Counter[Gram], rows: int) -> Vector:
    weights: list[dict[Gram, float]] = [{} for _ in range(ORDER)]
    for gram, count in counts.items():
        weights[len(gram) - 1][gram] = count * math.log(rows / max(1, frequency[gram]))
    norms = [math.sqrt(sum(w * w for w in vector.values())) for vector in weights]
    return weights, norms, length


def _similarity(candidate: Vector, reference: Vector) -> float:
    """Return the mean over n of the clipped cosine, damped by the difference in length."""
    total = 0.0
    for weights, reference_weights, a, b in zip(
        candidate[0], reference[0], candidate[1], reference[1], strict=True
    ):
        if a and b:
            total += sum(
                min(w, reference_weights.get(g, 0.0)) * reference_weights.get(g, 0.0)
                for g, w in weights.items()
            ) / (a * b)
    return total / ORDER * math.exp(-((candidate[2] - reference[2]) ** 2) / (2 * SIGMA**2))
