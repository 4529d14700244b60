"""Analyses of vectors: equal to what defines them, and to scikit-learn where it has the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import multivariate_normal, ortho_group

from sensorium.engine.evaluation.analyses import evidence, frozen, geometry, probes


def features(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


@pytest.mark.parametrize(("rows", "width"), [(40, 6), (10, 30), (12, 12)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.3, 5.0)])
def test_evidence_is_the_exact_gaussian_density(
    rows: int, width: int, alpha: float, beta: float
) -> None:
    x = features(rows, width)
    y = features(rows, 1, seed=1)[:, 0]
    covariance = np.eye(rows) / beta + x @ x.T / alpha
    exact = multivariate_normal(np.zeros(rows), covariance).logpdf(y) / rows
    assert evidence.log_evidence(x, y, alpha, beta) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("rows", "width"), [(200, 8), (20, 40)])
def test_logme_is_a_maximum_of_the_evidence(rows: int, width: int) -> None:
    x = features(rows, width)
    y = x @ features(width, 1, seed=2)[:, 0] + features(rows, 1, seed=3)[:, 0]
    best = evidence.logme(x, y)
    grid = itertools.product(np.logspace(-3, 3, 13), repeat=2)
    assert best >= max(evidence.log_evidence(x, y, a, b) for a, b in grid) - 1e-2


def test_logme_is_that_of_scikit_learns_bayesian_ridge() -> None:
    from sklearn.linear_model import BayesianRidge

    x = features(60, 5)
    y = x @ np.arange(5) + features(60, 1, seed=3)[:, 0]
    ridge = BayesianRidge(
        alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, tol=1e-9, max_iter=500,
        fit_intercept=False, compute_score=True,
    ).fit(x, y)  # fmt: skip
    assert evidence.logme(x, y) == pytest.approx(ridge.scores_[-1] / len(y), abs=1e-5)


@pytest.mark.parametrize("classes", [True, False])
def test_logme_ranks_informative_features_above_noise(classes: bool) -> None:
    number = features(100, 1, seed=4)[:, 0]
    target = np.where(number > 0, "yes", "no") if classes else number
    informative = np.concatenate([number[:, None] * 3, features(100, 7)], 1)
    assert evidence.logme(informative, target) > evidence.logme(features(100, 8), target) + 0.05


def test_a_rotation_of_features_changes_nothing() -> None:
    x, y = features(50, 6), features(50, 1, seed=1)[:, 0]
    turned = x @ ortho_group.rvs(6, random_state=0)
    assert evidence.logme(turned, y) == pytest.approx(evidence.logme(x, y), rel=1e-6)
    assert geometry.cka(turned * 3 + 1, x) == pytest.approx(1)
    assert geometry.rsa(turned, x) == pytest.approx(1)


def test_probe_is_scikit_learns_and_its_controls_are_at_chance() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat(["a", "b"], [30, 50])
    x = features(80, 5) + (labels == "a")[:, None] * 2
    result = probes.linear_probe(x, labels, folds=4)
    split = StratifiedKFold(4, shuffle=True, random_state=0)
    scores = []
    for train, test in split.split(x, labels):
        scale = StandardScaler().fit(x[train])
        fitted = LogisticRegression(max_iter=2000).fit(scale.transform(x[train]), labels[train])
        scores.append(fitted.score(scale.transform(x[test]), labels[test]))
    assert result["score"] == pytest.approx(np.mean(scores))
    assert result["score"] > 0.9
    assert result["chance"] == pytest.approx(50 / 80, abs=0.02)
    assert result["shuffled"] < 0.8
    assert cross_val_score is not None


def test_a_probe_of_numbers_is_a_share_of_variance() -> None:
    x = features(100, 4)
    y = x @ np.ones(4)
    assert probes.linear_probe(x, y)["score"] > 0.99
    assert abs(probes.linear_probe(features(100, 4, seed=9), y)["score"]) < 0.3


def test_a_class_of_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="smallest with 1 rows"):
        probes.linear_probe(features(4, 2), np.array(["a", "a", "a", "b"]))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_abx_of_equals_is_a_half(distance: probes.Distance) -> None:
    labels = np.repeat(["a", "b"], 30)
    equal = np.ones((60, 4))
    assert probes.abx(probes.distances(equal, distance), labels) == 0.5
    same = probes.abx(probes.distances(features(60, 4), distance), labels)
    assert same == pytest.approx(0.5, abs=0.1)
    apart = features(60, 4) + np.where(labels == "a", 9, -9)[:, None]
    assert probes.abx(probes.distances(apart, distance), labels) == 1


def test_abx_is_its_definition() -> None:
    labels = np.array(["a", "a", "a", "b", "b"])
    d = probes.distances(features(5, 3))
    pairs = []
    for first, second in (("a", "b"), ("b", "a")):
        triples = [
            (d[a, x] < d[b, x]) + 0.5 * (d[a, x] == d[b, x])
            for x in np.flatnonzero(labels == first)
            for a in np.flatnonzero(labels == first)
            for b in np.flatnonzero(labels == second)
            if a != x
        ]
        pairs.append(np.mean(triples))
    assert probes.abx(d, labels) == pytest.approx(np.mean(pairs))


def test_warping_forgives_speed() -> None:
    slow = np.repeat(features(4, 3), 3, axis=0)
    fast = features(4, 3)
    d = probes.warped_distances([slow, fast, features(4, 3, seed=5)])
    assert d[0, 1] == pytest.approx(0, abs=1e-6)
    assert d[0, 2] > 0.05
    assert np.allclose(d, d.T)


def test_isotropy_of_directions_that_are_alike_and_of_one() -> None:
    alike = np.concatenate([np.eye(4), -np.eye(4)])
    assert geometry.isotropy(alike)["isotropy"] == pytest.approx(1)
    assert geometry.isotropy(alike)["effective_rank"] == pytest.approx(4)
    one = np.ones((8, 4)) + 1e-3 * features(8, 4)
    narrow = geometry.isotropy(one)
    assert narrow["isotropy"] < 0.2
    assert narrow["mean_cosine"] == pytest.approx(1, abs=1e-4)
    assert narrow["effective_rank"] < 1.1


def test_mean_cosine_is_the_mean_over_pairs() -> None:
    from sklearn.metrics.pairwise import cosine_similarity

    x = features(9, 4)
    pairs = cosine_similarity(x)[np.triu_indices(9, 1)]
    assert geometry.isotropy(x)["mean_cosine"] == pytest.approx(pairs.mean())


def test_alignment_and_uniformity_are_the_paper_s() -> None:
    x, y = features(10, 4), features(10, 4, seed=1)
    assert geometry.alignment(x, 5 * x) == pytest.approx(0)
    a, b = geometry.normalized(x), geometry.normalized(y)
    assert geometry.alignment(x, y) == pytest.approx(np.mean(np.linalg.norm(a - b, axis=1) ** 2))
    pairs = [np.exp(-2 * np.sum((p - q) ** 2)) for p, q in itertools.combinations(a, 2)]
    assert geometry.uniformity(x) == pytest.approx(np.log(np.mean(pairs)))
    assert geometry.uniformity(np.ones((5, 3))) == pytest.approx(0)


@pytest.mark.parametrize("measure", [geometry.cka, geometry.rsa])
def test_unrelated_sets_are_less_alike(
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    x = features(200, 4)
    assert measure(x, x) == pytest.approx(1)
    assert measure(x, features(200, 4, seed=1)) < 0.2


def test_groups_that_share_a_direction_are_alike() -> None:
    x = 0.1 * features(30, 3)
    groups = np.repeat(["da", "nb", "fi"], 10)
    x += np.select(
        [(groups == "da")[:, None], (groups == "nb")[:, None]],
        [[1, 0, 0], [1, 0.2, 0]],
        [0, 0, 1],
    )
    names, cosines = geometry.group_similarity(x, groups)
    assert names == ["da", "fi", "nb"]
    assert np.allclose(np.diag(cosines), 1)
    assert cosines[0, 2] > 0.9 > cosines[0, 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_associations_are_found_and_their_direction(sign: int) -> None:
    """WEAT's statistic by hand; unrelated targets have a small effect, the control."""
    near, far = features(6, 8, 1) + 2, features(6, 8, 2) - 2
    x, y = features(9, 8, 3) + sign, features(9, 8, 4) - sign
    effect, share = geometry.association((x, y), (near, far))
    scores = [
        np.mean([v @ a / np.linalg.norm(v) / np.linalg.norm(a) for a in near])
        - np.mean([v @ b / np.linalg.norm(v) / np.linalg.norm(b) for b in far])
        for v in (*x, *y)
    ]
    expected = (np.mean(scores[:9]) - np.mean(scores[9:])) / np.std(scores, ddof=1)
    assert effect == pytest.approx(expected) and sign * effect > 1.5
    assert (share < 0.01) is (sign > 0)
    unrelated, chance = geometry.association((features(9, 8, 5), features(9, 8, 6)), (near, far))
    assert abs(unrelated) < abs(effect) and 0.01 < chance <= 1


class TwoStreams:
    """What `alignment` asks of a subject: two streams of the same rows."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.values = {"a": {"output": first}, "b": {"output": second}}

    def stream(self, name: str) -> str:
        return name

    def features(self, name: str) -> dict[str, np.ndarray]:
        return self.values[name]


def test_streams_that_coincide_are_aligned_and_shifted_ones_are_not() -> None:
    x = features(40, 6)
    (row,) = frozen.alignment(TwoStreams(x, 2 * x), ["a", "b"])  # type: ignore[arg-type]
    assert row["alignment"] == pytest.approx(0)
    assert row["shifted"] > 1
    assert row["uniformity a"] == pytest.approx(row["uniformity b"])
    with pytest.raises(ValueError, match="their widths are 6 and 4"):
        frozen.alignment(TwoStreams(x, features(40, 4)), ["a", "b"])  # type: ignore[arg-type]
