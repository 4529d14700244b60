"""Sparse vectors, late interaction, guides and queues in the contrastive task, against
sentence-transformers or the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sensorium.modalities.base import Features
from sensorium.tasks.common import l2_normalize
from sensorium.tasks.contrastive.candidates import Queue
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.tasks.contrastive.similarity import flops, from_json, maxsim, to_json
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.contrastive.negative_cases import (
    DIM,
    NAMES,
    ROWS,
    SCALE,
    context,
    mean_loss,
    task_of,
    vectors_of,
)


class Sparse(torch.nn.Module):
    """A SparseEncoder's stand-in."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


def test_sparse_training_is_the_splade_loss() -> None:
    """Ranking by the dot product, one FLOPS term for queries and one for documents."""
    from sentence_transformers.sparse_encoder import losses

    vectors = {n: v.relu() for n, v in vectors_of(names=NAMES[:3]).items()}
    task = Contrastive(
        streams=["query", "passage"],
        dim=None,
        similarity="dot",
        flops={"query": 0.3, "passage": 0.2},
        flops_warmup=0.5,
        hard_negatives={"passage": ["wrong"]},
    )
    task.build({"query": DIM}, {})
    batch = prepare_batch(task, [{}] * ROWS)
    ours = task.loss(batch, context(vectors).at(1, 0.5)).total / ROWS
    ranking = losses.SparseMultipleNegativesRankingLoss(Sparse(), scale=1.0)
    splade = losses.SpladeLoss(Sparse(), ranking, 0.2, 0.3)
    values = splade([{"sentence_embedding": vectors[n]} for n in NAMES[:3]], None)
    forth = ranking.compute_loss_from_embeddings([vectors[n] for n in NAMES[:3]], None)
    back = ranking.compute_loss_from_embeddings([vectors["passage"], vectors["query"]], None)
    expected = (forth + back) / 2 + sum(v for n, v in values.items() if n != "base_loss")
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    early = task.loss(batch, context(vectors).at(0, 0.25)).total / ROWS
    quarter = (forth + back) / 2 + (ours - (forth + back) / 2) / 4
    torch.testing.assert_close(early, quarter, rtol=1e-5, atol=1e-5)
    assert flops(torch.ones(4, 3)) == 3


def tokens(rows: int, longest: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([1 + i % longest for i in range(rows)])
    values = torch.randn(rows, longest, DIM, generator=generator, requires_grad=True)
    return Features(values, torch.arange(longest) < lengths[:, None])


def definition(query: Features, passage: Features) -> Tensor:
    """ColBERT, equation 3, token by token."""
    scores = torch.zeros(len(query.tokens), len(passage.tokens))
    for i in range(len(query.tokens)):
        for j in range(len(passage.tokens)):
            q = l2_normalize(query.tokens[i][query.mask[i]])
            p = l2_normalize(passage.tokens[j][passage.mask[j]])
            scores[i, j] = (q @ p.T).max(1).values.sum()
    return scores


def test_late_interaction_is_its_definition() -> None:
    """In the loss both ways, in metrics, and after JSON; padding and the order of a passage's
    tokens are without effect."""
    query, passage = tokens(4, 3, 0), tokens(4, 5, 1)
    task = Contrastive(streams=["query", "passage"], dim=DIM, similarity="maxsim")
    batch, stub = prepare_batch(task, [{}] * 4), StubContext({"query": query, "passage": passage})
    scores = definition(query, passage)
    rows = torch.arange(4)
    both = (torch.nn.functional.cross_entropy(s, rows) for s in (scores, scores.T))
    torch.testing.assert_close(task.loss(batch, stub).total / 4, sum(both) / 2)
    with torch.no_grad():
        predictions = task.predict(batch, stub)
    sides = [from_json([p[n] for p in predictions]) for n in ("query", "passage")]
    torch.testing.assert_close(maxsim(*sides), scores.detach())
    torch.testing.assert_close(maxsim(sides[0], sides[1].flip(1)), scores.detach())
    metrics = task.metrics()
    metrics.update(predictions, [{}] * 4)
    best = {"query_to_passage": scores.argmax(1), "passage_to_query": scores.argmax(0)}
    for direction, first in best.items():
        share = (first == rows).float().mean().item()
        assert metrics.compute()[f"{direction}_recall@1"] == pytest.approx(share)
    own = maxsim(sides[0], sides[0]).diagonal()
    torch.testing.assert_close(own, query.mask.sum(1).float())  # a query against itself


def test_sparse_predictions_survive_json() -> None:
    vectors = torch.tensor([[0.0, 1.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert to_json(vectors, "dot")[0] == {"indices": [1, 3], "values": [1.5, 2.0], "dim": 4}
    assert torch.equal(from_json(to_json(vectors, "dot")), vectors)


def test_a_guide_drops_what_it_places_nearer_than_the_positive() -> None:
    """With a guide of equal vectors every negative is nearer by a margin; a far one drops none."""
    names = (*NAMES[:3], "look", "read", "see")
    vectors = vectors_of(names=names)
    guide = {"query": "look", "passage": "read", "wrong": "see"}
    hard = {"passage": ["wrong"]}
    task = task_of(hard_negatives=hard, guide=guide, guide_margin=0.1)
    assert [n for n, use in task.streams.items() if use.training_only] == [
        "look",
        "read",
        "wrong",
        "see",
    ]
    query, passage, wrong = (l2_normalize(vectors[n]) for n in NAMES[:3])
    look, read, see = (l2_normalize(vectors[n]) for n in ("look", "read", "see"))
    total = torch.zeros(())
    documents, guides = torch.cat([passage, wrong]), torch.cat([read, see])
    for row in range(ROWS):
        for own, others, near, far in (
            (query, documents, look, guides),
            (passage, query, read, look),
        ):
            left = near[row] @ far.T <= near[row] @ far[row] - 0.1
            left[row] = True
            total = (
                total
                - (SCALE * own[row] @ others[left].T).log_softmax(0)[
                    left.nonzero()[:, 0].tolist().index(row)
                ]
            )
    ours = mean_loss(task, vectors)
    torch.testing.assert_close(ours, total / 2 / ROWS)
    open_guide = task_of(hard_negatives=hard, guide=guide, guide_margin=-2.0)
    torch.testing.assert_close(
        mean_loss(open_guide, vectors), mean_loss(task_of(hard_negatives=hard), vectors)
    )


def queued(task: Contrastive, vectors: dict[str, Tensor], keys: list[str]) -> Tensor:
    batch = prepare_batch(task, [{}] * len(keys), keys)
    return task.loss(batch, context(vectors)).total / len(keys)


def test_the_queue_holds_earlier_rows_and_never_the_positive() -> None:
    task = task_of(queue_size=8)
    task.build({"query": DIM}, {})
    assert task.streams["query"].ema == "stream"
    first, second = vectors_of(names=NAMES[:2]), vectors_of(7, names=NAMES[:2])
    keys = [f"a{i}" for i in range(ROWS)]
    plain = task_of()
    torch.testing.assert_close(queued(task, first, keys), mean_loss(plain, first))  # it is empty
    torch.testing.assert_close(queued(task, first, keys), mean_loss(plain, first) + 0, atol=1.0,
                               rtol=0)  # fmt: skip
    task = task_of(queue_size=8)
    task.build({"query": DIM}, {})
    queued(task, first, keys)
    # All the same rows again: of the five queued ones each row skips its own alone.
    again = queued(task, first, keys)
    query, passage = (l2_normalize(first[n]) for n in NAMES[:2])
    total = torch.zeros(())
    for a, b in ((query, passage), (passage, query)):
        for row in range(ROWS):
            others = torch.cat([b, b[[i for i in range(ROWS) if i != row]]])
            total = total - (SCALE * a[row] @ others.T).log_softmax(0)[row]
    torch.testing.assert_close(again, total / 2 / ROWS)
    queued(task, second, [f"b{i}" for i in range(7)])
    assert task.queue is not None
    assert int((task.queue.rows != 0).sum()) == 8  # the oldest are gone
    held = task.queue.vectors("passage")
    newest = l2_normalize(second["passage"]).detach()
    assert all(((held - v).abs().sum(1) < 1e-5).any() for v in newest)
    restored = task_of(queue_size=8)
    restored.build({"query": DIM}, {})
    restored.load_state_dict(task.state_dict())
    torch.testing.assert_close(queued(restored, first, keys), queued(task, first, keys))


def test_rows_of_one_group_are_no_negatives_of_the_queue() -> None:
    queue = Queue(3, {"a": 2})
    queue.push({"a": torch.ones(2, 2)}, torch.tensor([7, 8]), torch.tensor([1, 0]))
    out = queue.excluded(torch.tensor([9, 8]), torch.tensor([1, 0]))
    assert out.tolist() == [[True, False, True], [False, True, True]]
