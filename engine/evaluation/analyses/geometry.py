"""The geometry of a set of vectors, and how alike two sets are.

Legend: `N` rows, `D`, `E` widths. Rows of two sets belong together.
"""

from __future__ import annotations

import numpy as np


def isotropy(vectors: np.ndarray) -> dict[str, float]:
    """Return how evenly vectors `[N, D]` use the directions of their space.

    `isotropy`: `min Z(c) / max Z(c)` over the eigenvectors c of V'V and their opposites, with
    `Z(c) = sum exp(c . v)` of vectors of unit length; 1 if all directions are alike (Mu &
    Viswanath, "All-but-the-Top", 2018, equation 7). `mean_cosine`: between different rows; 0 if
    they point everywhere.
    `effective_rank`: exponential of the entropy of the singular values' shares (Roy & Vetterli
    2007), 1 to min(N, D).
    """
    units = normalized(vectors)
    _, directions = np.linalg.eigh(units.T @ units)
    partition = np.exp(units @ np.concatenate([directions, -directions], 1)).sum(0)
    total = units.sum(0)
    count = len(units)
    pairs = count * (count - 1)
    values = np.linalg.svd(units, compute_uv=False)
    shares = values / values.sum()
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum()
    return {
        "isotropy": float(partition.min() / partition.max()),
        "mean_cosine": float((total @ total - count) / pairs) if pairs else float("nan"),
        "effective_rank": float(np.exp(entropy)),
    }


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean squared distance of pairs on the unit sphere, 0 if they coincide (Wang &
    Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere", 2020)."""
    return float(((normalized(first) - normalized(second)) ** 2).sum(1).mean())


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    """Return the log of the mean of `exp(-t |x - y|^2)` over different rows on the unit sphere; 0
    if all coincide, lower if they spread (Wang & Isola 2020)."""
    units = normalized(vectors)
    squared = np.maximum(2 - 2 * units @ units.T, 0)
    rows, columns = np.triu_indices(len(units), 1)
    return float(np.log(np.exp(-t * squared[rows, columns]).mean()))


def cka(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear centred kernel alignment of `[N, D]` and `[N, E]`, 0 to 1; rotations,
    scales and shifts change nothing (Kornblith et al. 2019)."""
    x, y = centred(first), centred(second)
    between = np.linalg.norm(x.T @ y) ** 2
    within = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(between / within) if within else float("nan")


def rsa(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation of the cosine similarities of all pairs of rows (Kriegeskorte et
    al. 2008)."""
    from scipy.stats import spearmanr

    rows, columns = np.triu_indices(len(first), 1)
    similar = [(normalized(v) @ normalized(v).T)[rows, columns] for v in (first, second)]
    return float(spearmanr(*similar).statistic)


def group_similarity(vectors: np.ndarray, groups: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the names of the groups (languages, domains) and `[G, G]` cosines between the means of
    their vectors (mPLM-Sim, 2023)."""
    names = np.unique(groups)
    means = normalized(np.stack([np.asarray(vectors)[groups == n].mean(0) for n in names]))
    return [str(name) for name in names], means @ means.T


def association(
    targets: tuple[np.ndarray, np.ndarray],
    attributes: tuple[np.ndarray, np.ndarray],
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the effect size of an association test, -2 to 2, and the share of random divisions of
    the targets that have as large a one (WEAT: Caliskan et al. 2017).

    targets: vectors `[X, D]` and `[Y, D]`. attributes: `[A, D]` and `[B, D]`. Positive: the first
    targets are nearer to the first attributes than the second ones are.
    """
    vectors = normalized(np.concatenate(targets))
    near, far = (normalized(side) for side in attributes)
    scores, first = (vectors @ near.T).mean(1) - (vectors @ far.T).mean(1), len(targets[0])
    spread = scores.std(ddof=1)

    def difference(values: np.ndarray) -> float:
        return float(values[:first].mean() - values[first:].mean())

    rng, observed = np.random.default_rng(seed), difference(scores)
    drawn = [difference(rng.permutation(scores)) for _ in range(permutations)]
    share = float(np.mean([value >= observed - 1e-12 for value in drawn]))
    return (observed / float(spread) if spread else 0.0), share


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Return rows of unit length; zeros stay zeros."""
    values = np.asarray(vectors, np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def centred(vectors: np.ndarray) -> np.ndarray:
    """Return vectors less their mean."""
    values = np.asarray(vectors, np.float64)
    return values - values.mean(0)
