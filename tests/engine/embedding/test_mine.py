"""Mining: margins by their definition, planted pairs among decoys, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensorium.engine.embedding.mine import (
    MinedRows,
    bitext,
    consistent,
    hard_negatives,
    matches,
    neighbours,
    paraphrases,
    shared,
)
from sensorium.engine.utils import ConfigError


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def side(vectors: np.ndarray, name: str = "t", columns: list[Any] | None = None) -> MinedRows:
    texts = [f"{name}{i}" for i in range(len(vectors))]
    return MinedRows([str(i) for i in range(len(vectors))], texts, columns or [], unit(vectors))


def noise(rows: int, seed: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width))


def translated(rows: int = 30) -> tuple[MinedRows, MinedRows]:
    """Twenty pairs and decoys on both sides; a hub is near to all of the second side."""
    base = noise(rows, 0)
    second = base + 0.3 * noise(rows, 1)
    second[20:] = noise(rows - 20, 2)
    first = base.copy()
    first[29] = second.mean(0)
    return side(first, "a"), side(second, "b")


@pytest.mark.parametrize("margin", ["ratio", "distance"])
def test_margins_are_their_definition(margin: Any) -> None:
    first, second = translated()
    cosines, k = first.vectors @ second.vectors.T, 4
    near = np.sort(cosines, 1)[:, -k:].mean(1)
    near_back = np.sort(cosines, 0)[-k:].mean(0)
    means = (near[:, None] + near_back[None]) / 2
    scores = cosines / means if margin == "ratio" else cosines - means
    pairs = bitext(first, second, k, -9.0, margin)
    for a, b, score in pairs:
        assert score == pytest.approx(scores[a, b], abs=1e-5)
    assert len({a for a, _, _ in pairs}) == len({b for _, b, _ in pairs}) == len(pairs)
    assert [p[2] for p in pairs] == sorted((p[2] for p in pairs), reverse=True)


def test_translations_are_mined_and_shuffled_sides_give_fewer() -> None:
    first, second = translated()
    pairs = bitext(first, second, 4, 1.25)
    right = sum(a == b < 20 for a, b, _ in pairs)
    assert right >= 17 and right >= 0.9 * len(pairs)
    unrelated = side(noise(30, 9), "c")  # the control
    assert len(bitext(first, unrelated, 4, 1.25)) < len(pairs)


def test_paraphrases_are_pairs_of_different_texts() -> None:
    vectors = noise(12, 0)
    vectors[6] = vectors[0] + 0.05
    vectors[7] = vectors[1]
    rows = side(vectors)
    rows.texts[7] = rows.texts[1]  # the same text is no paraphrase
    assert [pair[:2] for pair in paraphrases(rows, 3, 0.95)] == [(0, 6)]
    assert paraphrases(rows, 3, 1.01) == []


def test_sentences_of_one_translation_are_paraphrases() -> None:
    rows = side(noise(5, 0), columns=["x", "y", "x", None, None])
    assert [pair[:2] for pair in shared(rows)] == [(0, 2)]


def test_negatives_are_near_and_no_positives() -> None:
    first, second = translated()
    rows = list(hard_negatives(first, second, 3))
    assert [(row, positive) for row, positive, _ in rows] == [(i, i) for i in range(30)]
    cosines = first.vectors @ second.vectors.T
    for row, positive, others in rows:
        allowed = [i for i in np.argsort(-cosines[row]) if i != positive]
        allowed = [i for i in allowed if cosines[row, i] <= cosines[row, positive]]
        assert others == [int(i) for i in allowed[:3] if i in others]
        assert positive not in others
    passed = {row: others for row, _, others in hard_negatives(first, second, 2, skip=1)}
    assert all(passed[row] == others[1:3] for row, _, others in rows[:20])
    far = {row: others for row, _, others in hard_negatives(first, second, 3, margin=0.4)}
    for row, others in far.items():
        assert all(cosines[row, i] <= cosines[row, row] - 0.4 + 1e-6 for i in others)
    grouped = side(first.vectors, "a", [0] * 30), side(second.vectors, "b", [0] * 30)
    assert all(others == [] for _, _, others in hard_negatives(*grouped, 3))


def test_a_pair_whose_positive_ranks_low_is_dropped() -> None:
    """KaLM: kept are those whose positive is among the first; k of all rows keeps everything."""
    first, second = translated()
    ranks = {row: rank for row, _, rank in consistent(first, second, 3)}
    cosines = first.vectors @ second.vectors.T
    for row in range(30):
        rank = 1 + int((cosines[row] > cosines[row, row]).sum())
        assert ranks.get(row) == (rank if rank <= 3 else None)
    assert 15 < len(ranks) < 30
    assert len(list(consistent(first, second, 30))) == 30


def test_rows_belong_together_by_key_or_by_a_column() -> None:
    first = MinedRows(["a", "b"], ["x", "y"], [], np.eye(2, dtype=np.float32))
    second = MinedRows(["b", "c"], ["v", "w"], [], np.eye(2, dtype=np.float32))
    assert matches(first, second) == [None, 0]
    with pytest.raises(ConfigError, match="no row of the first index has a positive"):
        matches(first, MinedRows(["d"], ["v"], [], np.eye(1, 2, dtype=np.float32)))


def test_neighbours_are_those_of_the_whole_product() -> None:
    first, second = unit(noise(300, 0)), unit(noise(40, 1))
    cosines, places = neighbours(first, second, 5)
    np.testing.assert_array_equal(places[:, 0], (first @ second.T).argmax(1))
    assert cosines.shape == (300, 5) and neighbours(first, second, 99)[0].shape == (300, 40)
