"""Hard negatives, margins and prefixes: the losses of sentence-transformers on the same vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.tasks.common import l2_normalize
from sensorium.tasks.contrastive.losses import likely_false_negatives
from sensorium.tests.tasks.contrastive.negative_cases import (
    DIM,
    NAMES,
    ROWS,
    SCALE,
    Precomputed,
    mean_loss,
    task_of,
    theirs,
    vectors_of,
)


def both_ways(vectors: dict[str, Tensor], negatives: Sequence[str], **options: Any) -> Tensor:
    """Their loss is of one direction; only passages have hard negatives."""
    query, passage = vectors["query"], vectors["passage"]
    hard = [vectors[name] for name in negatives]
    forth = theirs("MultipleNegativesRankingLoss", [query, passage, *hard], **options)
    return (forth + theirs("MultipleNegativesRankingLoss", [passage, query], **options)) / 2


@pytest.mark.parametrize("negatives", [(), ("wrong",), ("wrong", "worse")])
@pytest.mark.parametrize("hardness", [0.0, 3.0])
def test_ranking_loss_is_that_of_sentence_transformers(
    negatives: Sequence[str], hardness: float
) -> None:
    vectors = vectors_of(names=("query", "passage", *negatives))
    hard = {"passage": list(negatives)} if negatives else None
    ours = mean_loss(task_of(hard_negatives=hard, hardness=hardness), vectors)
    mode = {"hardness_mode": "all_negatives", "hardness_strength": hardness}
    other = both_ways(vectors, negatives, scale=SCALE, **(mode if hardness else {}))
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(ours, list(vectors.values()))
    torch.testing.assert_close(
        mine, torch.autograd.grad(other, list(vectors.values())), rtol=1e-4, atol=1e-5
    )


def test_prefixes_add_the_losses_of_sentence_transformers() -> None:
    from sentence_transformers import losses

    vectors = vectors_of(names=NAMES[:3])
    options = {"hard_negatives": {"passage": ["wrong"]}}
    ours = mean_loss(task_of(matryoshka=[2, 4], matryoshka_weights=[0.5, 2.0], **options), vectors)

    def matryoshka(names: Sequence[str]) -> Tensor:
        model = Precomputed()
        ranking = losses.MultipleNegativesRankingLoss(model, scale=SCALE)
        module = losses.MatryoshkaLoss(model, ranking, [DIM, 4, 2], [1.0, 2.0, 0.5])
        return module([{"sentence_embedding": vectors[n]} for n in names], None)

    other = (matryoshka(["query", "passage", "wrong"]) + matryoshka(["passage", "query"])) / 2
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    plain = mean_loss(task_of(matryoshka=[4], matryoshka_weights=[0.0], **options), vectors)
    torch.testing.assert_close(plain, mean_loss(task_of(**options), vectors))


def test_a_list_of_negatives_is_as_many_streams() -> None:
    vectors = vectors_of()
    named = mean_loss(task_of(hard_negatives={"passage": ["wrong", "worse"]}), vectors)
    lists = {n: vectors[n] for n in NAMES[:2]}
    lists["wrong"] = torch.stack([vectors["wrong"], vectors["worse"]], 1).flatten(0, 1)
    task = task_of(hard_negatives={"passage": "wrong"})
    assert task.streams["wrong"].many and task.inputs() == ("query", "passage")
    torch.testing.assert_close(mean_loss(task, lists, wrong=[2] * ROWS), named)
    none = lists | {"wrong": torch.zeros(0, DIM)}
    plain = mean_loss(task_of(), vectors_of())
    torch.testing.assert_close(mean_loss(task, none, wrong=[0] * ROWS), plain)


@pytest.mark.parametrize("loss", ["infonce", "siglip", "hinge"])
def test_without_in_batch_negatives_a_row_sees_its_own_alone(loss: str) -> None:
    """Rows then are batches of one; with them they are not."""
    vectors, counts = vectors_of(), [2, 0, 1, 0, 2]
    extra = {"hinge_margin": 0.3} if loss == "hinge" else {}
    options: dict[str, Any] = {"loss": loss, "hard_negatives": {"passage": "wrong"}, **extra}
    ours = mean_loss(task_of(in_batch_negatives=False, **options), vectors, wrong=counts)
    joint = mean_loss(task_of(**options), vectors, wrong=counts)
    ends = torch.tensor(counts).cumsum(0).tolist()
    single = []
    for row, count in enumerate(counts):
        one = {n: vectors[n][row : row + 1] for n in NAMES[:2]}
        one["wrong"] = vectors["wrong"][ends[row] - count : ends[row]]
        single.append(mean_loss(task_of(**options), one, wrong=[count]))
    torch.testing.assert_close(ours, torch.stack(single).mean())
    assert (joint - ours).abs() > 1e-3  # the control


def test_hinge_is_the_triplet_loss_of_sentence_transformers() -> None:
    """TripletLoss counts every triplet alike; the way back has no hard negative, and costs 0."""
    from sentence_transformers.losses import TripletDistanceMetric

    vectors = vectors_of(names=NAMES[:3])
    options = {"loss": "hinge", "hinge_margin": 0.7, "hard_negatives": {"passage": ["wrong"]}}
    ours = mean_loss(task_of(in_batch_negatives=False, **options), vectors)
    other = theirs(
        "TripletLoss",
        [vectors[n] for n in NAMES[:3]],
        distance_metric=TripletDistanceMetric.COSINE,
        triplet_margin=0.7,
    )
    torch.testing.assert_close(2 * ours, other, rtol=1e-5, atol=1e-5)


def test_sigmoid_counts_a_hard_negative_once() -> None:
    vectors = vectors_of(names=NAMES[:3])
    task = task_of(loss="siglip", bias=-2.0, hard_negatives={"passage": ["wrong"]})
    query, wrong = (l2_normalize(vectors[n]) for n in ("query", "wrong"))
    extra = F.softplus(SCALE * query @ wrong.T - 2).sum() / ROWS
    plain = mean_loss(task_of(loss="siglip", bias=-2.0), vectors)
    torch.testing.assert_close(mean_loss(task, vectors), plain + extra)


def test_a_likely_false_negative_has_no_part() -> None:
    """A copy of the positive as hard negative: dropped with a margin, felt without."""
    vectors = vectors_of(names=NAMES[:2])
    copies = vectors | {"wrong": vectors["passage"].detach().clone().requires_grad_()}
    hard: dict[str, Any] = {"hard_negatives": {"passage": ["wrong"]}, "in_batch_negatives": False}
    filtered = mean_loss(task_of(false_negative_margin=0.05, **hard), copies)
    assert filtered.item() == pytest.approx(0, abs=1e-6)
    assert mean_loss(task_of(**hard), copies).item() > 0.1
    cosines = torch.tensor([[0.9, 0.86, 0.5, 0.95]])
    positive = torch.tensor([[True, False, False, False]])
    dropped = likely_false_negatives(cosines, torch.tensor([0.9]), positive, 0.05)
    assert dropped.tolist() == [[False, True, False, True]]


def test_soft_targets_of_what_is_left_sum_to_one() -> None:
    """With a margin that drops negatives, the targets of the others are shared anew."""
    names = ("query", "passage", "look")
    vectors = vectors_of(names=names)
    soft = {"loss": "soft", "soft_target_streams": {"query": "look"}}
    filtered = mean_loss(task_of(false_negative_margin=0.1, **soft), vectors)
    query, passage, look = (l2_normalize(vectors[n]) for n in names)
    cosines, total = query @ passage.T, torch.zeros(())
    for row in range(ROWS):
        weights = (1 + look[row] @ look.T) / 2
        for scores, goal in ((cosines[row], weights), (cosines[:, row], torch.eye(ROWS)[row])):
            left = scores <= scores[row] - 0.1
            left[row] = True
            log_probs = (SCALE * scores[left]).log_softmax(0)
            total = total - (goal[left] / goal[left].sum() * log_probs).sum() / 2
    torch.testing.assert_close(filtered, total / ROWS)
    assert (filtered - mean_loss(task_of(**soft), vectors)).abs() > 1e-2  # the control
