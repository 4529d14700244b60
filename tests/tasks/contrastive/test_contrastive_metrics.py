"""Ranks over a whole split: against sorting, against scikit-learn, and where ties stand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import Tensor
from torch.nn import functional as F

from sensorium.tasks.contrastive import ranking
from sensorium.tasks.contrastive.metrics import RetrievalMetrics

ROWS, DIM = 40, 6
PAIR = [("image", "caption")]


def vectors(seed: int, rows: int = ROWS) -> Tensor:
    return F.normalize(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def metrics_of(
    image: Tensor, caption: Tensor, targets: list[dict[str, Any]] | None = None, **options: Any
) -> RetrievalMetrics:
    built = RetrievalMetrics(PAIR, **options)
    targets = targets or [{}] * len(image)
    half = len(image) // 2
    for part in (slice(0, half), slice(half, None)):  # a split comes in batches
        rows = zip(image[part].tolist(), caption[part].tolist(), strict=True)
        built.update([{"image": a, "caption": b} for a, b in rows], targets[part])
    return built


def by_sorting(scores: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """The same by a sort of each query's candidates (no ties)."""
    first = []
    for line, good in zip(scores, right, strict=True):
        order = np.argsort(-line)
        first.append(1 + int(np.argmax(good[order])))
    ranks = np.array(first)
    result = {f"recall@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    result["mrr"] = float((1 / ranks).mean())
    result["median_rank"] = float(np.median(ranks))
    result["ndcg@10"] = float(ndcg_score(right.astype(float), scores, k=10))
    result["chance@1"] = float((right.sum(1) / right.shape[1]).mean())
    return result


GROUPS = {
    "none": None,
    "threes": [i % 14 for i in range(ROWS)],
    "twenties": [i % 2 for i in range(ROWS)],
}


@pytest.mark.parametrize("blocks", [(512, 8192), (7, 3)])
@pytest.mark.parametrize("groups", GROUPS)
def test_every_measure_is_that_of_a_sort(
    groups: str, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "QUERIES", blocks[0])
    monkeypatch.setattr(ranking, "CANDIDATES", blocks[1])
    image, caption, known = vectors(0), vectors(1), GROUPS[groups]
    targets = [{} if known is None else {"group": known[i]} for i in range(ROWS)]
    result = metrics_of(image, caption, targets).compute()
    label = np.array(known or range(ROWS))
    right = label[:, None] == label[None]
    scores = (image @ caption.T).numpy()
    for way, expected in (
        ("image_to_caption", by_sorting(scores, right)),
        ("caption_to_image", by_sorting(scores.T, right.T)),
    ):
        for name, value in expected.items():
            assert result[f"{way}_{name}"] == pytest.approx(value, abs=1e-6), (way, name)
    for name in ("recall@1", "mrr"):
        both = (result[f"image_to_caption_{name}"] + result[f"caption_to_image_{name}"]) / 2
        assert result[name] == pytest.approx(both)
    gap = (image.mean(0) - caption.mean(0)).norm()
    assert result["image_caption_gap"] == pytest.approx(float(gap), abs=1e-6)


def test_a_match_by_a_column_asks_among_its_rows_alone() -> None:
    image, caption = vectors(0), vectors(1)
    regions = ["head", "knee", "head", "spine"] * (ROWS // 4)
    targets = [{"match": region} for region in regions]
    result = metrics_of(image, caption, targets, match="region").compute()
    each: list[tuple[int, dict[str, float]]] = []
    for region in set(regions):
        rows = [i for i, r in enumerate(regions) if r == region]
        each.append((len(rows), metrics_of(image[rows], caption[rows]).compute()))
    for name in ("image_to_caption_recall@1", "caption_to_image_mrr", "image_to_caption_chance@1"):
        mean = sum(n * values[name] for n, values in each) / ROWS
        assert result[f"{name}_same_region"] == pytest.approx(mean)
    assert result["image_to_caption_chance@1"] == pytest.approx(1 / ROWS)
    assert result["image_to_caption_chance@1_same_region"] == pytest.approx(3 / ROWS)


def test_a_match_that_no_row_has_is_not_a_number() -> None:
    result = metrics_of(vectors(0), vectors(1), match="region").compute()
    assert math.isnan(result["image_to_caption_recall@1_same_region"])
    assert not math.isnan(result["image_to_caption_recall@1"])


def test_a_model_that_sees_nothing_finds_nothing() -> None:
    """All vectors equal, but for the noise of a batch: ties are the query's loss."""
    same = vectors(0, 1).expand(ROWS, -1)
    noise = 1e-7 * torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(1))
    result = metrics_of(same, same + noise).compute()
    assert result["recall@1"] == result["image_to_caption_recall@10"] == 0
    assert result["image_to_caption_median_rank"] == ROWS


def test_rows_that_show_one_signal_are_one_answer() -> None:
    """Five captions of a picture are five rows: its wrong copies must not crowd the ranks."""
    pictures, captions = vectors(0, 8), vectors(1)
    image = pictures.repeat_interleave(5, 0) + 1e-7
    targets = [{"group": i // 5} for i in range(ROWS)]
    result = metrics_of(image, captions, targets).compute()
    scores = (pictures @ captions.T).numpy()
    right = np.arange(8)[:, None] == np.arange(ROWS)[None] // 5
    for way, expected in (
        ("image_to_caption", by_sorting(scores, right)),
        ("caption_to_image", by_sorting(scores.T, right.T)),
    ):
        for name, value in expected.items():
            assert result[f"{way}_{name}"] == pytest.approx(value, abs=1e-6), (way, name)


def test_what_is_written_names_the_nearest_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.tasks.contrastive.ranking.CANDIDATES", 7)  # several blocks
    image, caption = vectors(0), vectors(1)
    built = metrics_of(image, caption)
    keys = [f"row{i}" for i in range(ROWS)]
    rows = built.answers(keys)
    scores = image @ caption.T
    for i, row in enumerate(rows):
        prediction = row["image_to_caption"]
        order = scores[i].argsort(descending=True)[:5].tolist()
        assert prediction["nearest"] == [keys[index] for index in order]
        assert prediction["rank"] == 1 + int((scores[i] > scores[i, i]).sum())


def test_a_long_split_takes_little_memory() -> None:
    """Nothing as large as all similarities is ever there."""
    rows, dim = 3000, 8
    a = F.normalize(torch.randn(rows, dim), dim=1)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    items = ranking.Items(a, torch.arange(rows), torch.zeros(rows, dtype=torch.long))
    with Watch():
        result = ranking.search(items, items)
    assert largest <= ranking.QUERIES * (rows + 1) < rows * rows / 4
    assert bool((result.ranks == 1).all())
