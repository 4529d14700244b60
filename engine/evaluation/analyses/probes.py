"""Probes of frozen features: a linear model with cross-validation, and ABX without training.

Conneau & Kiela, "SentEval", 2018; Krasnowska-Kieras & Wroblewska, "Evaluation of sentence
embeddings in downstream and linguistic probing tasks", 2018; Schatz et al., "Evaluating speech
features with the Minimal-Pair ABX task", 2013.

Legend: `N` rows, `D` width.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np

Distance = Literal["cosine", "euclidean"]


def linear_probe(
    features: np.ndarray, target: np.ndarray, *, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Return the cross-validated score of a linear model on standardized features, and its
    controls.

    `score`: accuracy of a logistic regression for classes, R^2 of a ridge regression for numbers.
    `chance`: of the most frequent class (of the mean). `shuffled`: of the same probe if the targets
    are permuted among the rows. Raise ValueError if a class has fewer than two rows.
    """
    from sklearn.model_selection import cross_val_score

    numbers = np.issubdtype(target.dtype, np.floating)
    split, probe, dummy = _estimators(target, numbers, folds, seed)
    permuted = target[np.random.default_rng(seed).permutation(len(target))]
    return {
        "score": float(cross_val_score(probe, features, target, cv=split).mean()),
        "chance": float(cross_val_score(dummy, features, target, cv=split).mean()),
        "shuffled": float(cross_val_score(probe, features, permuted, cv=split).mean()),
    }


def _estimators(target: np.ndarray, numbers: bool, folds: int, seed: int) -> tuple[Any, Any, Any]:
    """Return the splits, the probe and the constant prediction of scikit-learn."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if numbers:
        split = KFold(min(folds, len(target)), shuffle=True, random_state=seed)
        probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 7)))
        return split, probe, DummyRegressor()
    labels, counts = np.unique(target, return_counts=True)
    if len(labels) < 2 or counts.min() < 2:
        counted = f"{len(labels)} classes, the smallest with {counts.min()} rows"
        raise ValueError(f"probe: found {counted}; expected two classes of two rows or more")
    split = StratifiedKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return split, probe, DummyClassifier(strategy="most_frequent")


def distances(vectors: np.ndarray, distance: Distance = "cosine") -> np.ndarray:
    """Return `[N, N]` distances of vectors `[N, D]`."""
    from scipy.spatial.distance import cdist

    values = np.asarray(vectors, np.float64)
    if distance == "cosine":
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        return np.asarray(1 - values @ values.T)
    return np.asarray(cdist(values, values, distance))


def warped_distances(sequences: list[np.ndarray]) -> np.ndarray:
    """Return `[N, N]` distances of sequences `[T, D]`: the mean angle between frames along the best
    path of dynamic time warping."""
    units = [s / np.maximum(np.linalg.norm(s, axis=1, keepdims=True), 1e-12) for s in sequences]
    result = np.zeros((len(units), len(units)))
    for i, j in itertools.combinations(range(len(units)), 2):
        angles = np.arccos(np.clip(units[i] @ units[j].T, -1, 1)) / np.pi
        result[i, j] = result[j, i] = warped(angles)
    return result


def warped(costs: np.ndarray) -> float:
    """Return the mean cost along the cheapest monotone path through `[T, U]` costs."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1), dtype=int)
    total[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            before = min(((i, j), (i, j + 1), (i + 1, j)), key=lambda place: total[place])
            total[i + 1, j + 1] = total[before] + costs[i, j]
            steps[i + 1, j + 1] = steps[before] + 1
    return float(total[-1, -1] / steps[-1, -1])


def abx(distance: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of triples in which X is nearer to A, of the same class, than to B of
    another one; ties count a half. It is averaged over ordered pairs of classes, so that 0.5 is
    chance.

    distance: `[N, N]`. Raise ValueError if fewer than two classes, or none with two rows.
    """
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    pairs = [
        (first, second)
        for first, second in itertools.permutations(members, 2)
        if len(members[first]) > 1
    ]
    if not pairs:
        raise ValueError("abx: expected two classes, one of them with two rows or more")
    return float(np.mean([_abx(distance, members[a], members[b]) for a, b in pairs]))


def _abx(distance: np.ndarray, same: np.ndarray, other: np.ndarray) -> float:
    shares = []
    for x in same:
        near = distance[x, same[same != x]][:, None]
        far = distance[x, other][None]
        shares.append(np.mean((near < far) + 0.5 * (near == far)))
    return float(np.mean(shares))
