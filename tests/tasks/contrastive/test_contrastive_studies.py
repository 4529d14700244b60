"""Several series of one study share a report: what the loss may not depend on, and the batches."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn import functional as F

from sensorium.engine.data import BatchSampler
from sensorium.modalities.base import Features
from sensorium.modalities.mri.phantom import Phantom
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.testing.context import StubContext, prepare_batch

STUDIES = ["a", "b", "a", "c", "b", "a"]
ROWS, DIM = len(STUDIES), 8


def loss_of(studies: list[str], volume: Tensor, report: Tensor, **options: Any) -> Tensor:
    task = Contrastive(streams=["volume", "report"], dim=DIM, positive_group="study", **options)
    vectors = {"volume": volume, "report": report}
    features = {name: Features.dense(v[:, None], pooled=v) for name, v in vectors.items()}
    batch = prepare_batch(task, [{"study": study} for study in studies])
    result = task.loss(batch, StubContext(features))
    return (result.total / result.count).detach()


def some(seed: int) -> Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def volume() -> Tensor:
    return some(0)


@pytest.fixture
def report() -> Tensor:
    """One report a study: rows of a study have the same vector."""
    vectors_of_studies = dict(zip("abc", some(1), strict=False))
    return torch.stack([vectors_of_studies[study] for study in STUDIES])


def test_the_order_of_the_batch_is_nothing(volume: Tensor, report: Tensor) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = [STUDIES[i] for i in order]
    torch.testing.assert_close(
        loss_of(shuffled, volume[order], report[order]), loss_of(STUDIES, volume, report)
    )


def test_series_of_a_study_may_change_places(volume: Tensor, report: Tensor) -> None:
    swapped = volume[[2, 1, 0, 3, 4, 5]]  # two of study a
    torch.testing.assert_close(loss_of(STUDIES, swapped, report), loss_of(STUDIES, volume, report))
    other = volume[[1, 0, 2, 3, 4, 5]]  # of two studies
    assert not torch.allclose(loss_of(STUDIES, other, report), loss_of(STUDIES, volume, report))


def test_studies_of_one_series_are_plain_infonce(volume: Tensor, report: Tensor) -> None:
    result = loss_of([str(i) for i in range(ROWS)], volume, some(1))
    a, b = (F.normalize(v, dim=1) for v in (volume, some(1)))
    torch.testing.assert_close(
        result, ClipLoss()(a, b, torch.tensor(1 / 0.07)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("studies", [STUDIES, list("uvwxyz")])
def test_a_model_that_says_nothing_pays_the_log_of_the_batch(studies: list[str]) -> None:
    same = torch.ones(ROWS, DIM)
    assert float(loss_of(studies, same, same)) == pytest.approx(math.log(ROWS), rel=1e-6)


def test_a_perfect_match_of_studies_pays_the_log_of_their_series() -> None:
    """Orthonormal studies: a row's target is shared by the series of its study."""
    vectors = torch.eye(DIM)[[ord(study) - ord("a") for study in STUDIES]]
    counts = Counter(STUDIES)
    expected = sum(math.log(counts[study]) for study in STUDIES) / ROWS
    assert float(loss_of(STUDIES, vectors, vectors, temperature=0.01)) == pytest.approx(
        expected, abs=1e-5
    )
    one = torch.eye(ROWS, DIM)
    assert float(loss_of(list("uvwxyz"), one, one, temperature=0.01)) < 1e-6


def test_regions_come_equally_often_in_batches_of_phantoms() -> None:
    source = Phantom(subjects=60, sequences=("T2w",))
    regions = [source[i]["region"] for i in range(len(source))]
    counts = Counter(regions)
    assert max(counts.values()) > 2 * min(counts.values())  # healthy rows are of no region
    kinds = len(counts)
    plan = BatchSampler({"match": 60}, kinds, 0, order="balanced", column={"match": regions})
    batches = plan.batches()
    for _ in range(3):
        batch = [regions[address.row] for address in next(batches)]
        assert len(set(batch)) == kinds
