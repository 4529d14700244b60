"""Pairs in one sequence, losses of candidates, metrics of their order, and their mistakes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.text.tokenizers import BPE, Bytes
from sensorium.tasks.reranking import losses
from sensorium.tasks.reranking.metrics import RerankingMetrics, ndcg, ranked
from sensorium.tasks.reranking.pairs import join_pairs, pair_frame
from sensorium.tasks.reranking.reranking import Reranking


def bpe() -> BPE:
    tokenizer = BPE(size=300)
    tokenizer.fit(["a text of words", "another text"])
    return tokenizer


def joined(tokenizer: Any, pairs: list[tuple[str, str]], length: int, **options: Any) -> Any:
    sides = [tokenizer.encode_batch(texts, special=True) for texts in zip(*pairs, strict=True)]
    return join_pairs(
        pair_frame(tokenizer, **options), sides[0], sides[1], length, tokenizer.pad_id
    )


PAIRS = [("a text", "of words"), ("words", "another text of words"), ("a", "text")]


@pytest.mark.parametrize("make", [Bytes, bpe])
def test_a_pair_is_its_texts_between_the_tokenizer_s_ends(make: Any) -> None:
    tokenizer = make()
    batch = joined(tokenizer, PAIRS, 64)
    for row, (first, second) in enumerate(PAIRS):
        a, b = tokenizer.encode(first), tokenizer.encode(second)
        ids = [tokenizer.bos_id, *a, tokenizer.eos_id, *b, tokenizer.eos_id]
        types = [0] * (len(a) + 2) + [1] * (len(b) + 1)
        real = batch["mask"][row]
        assert batch["ids"][row][real].tolist() == ids
        assert batch["types"][row][real].tolist() == types
        assert set(batch["ids"][row][~real].tolist()) <= {tokenizer.pad_id}


def test_a_template_stands_around_a_pair() -> None:
    batch = joined(Bytes(), PAIRS, 64, template="Q: {query} P: {passage}?")
    text = Bytes().decode(batch["ids"][1][batch["mask"][1]].tolist())
    assert text == "Q: words P: another text of words?"
    for wrong in ("{passage} {query}", "{query}", "{query} {query} {passage}"):
        with pytest.raises(ValueError, match=r"^template: "):
            pair_frame(Bytes(), wrong)


@pytest.mark.parametrize("length", range(5, 20))
def test_the_longer_text_is_cut_first_as_by_the_tokenizers_library(length: int) -> None:
    """The rule of `longest_first` in 🤗 tokenizers."""
    for first, second in itertools.product((1, 3, 6, 9), (2, 5, 6, 11)):
        batch = joined(Bytes(), [("a" * first, "b" * second)], length)
        text = Bytes().decode(batch["ids"][0].tolist())
        room = length - 3
        n1, n2 = sorted((first, second))
        if n1 + n2 > room:
            n2 = max(n1, room - n1) if n1 <= room else n1
            if n1 + n2 > room:
                n1, n2 = room // 2, room // 2 + room % 2
        expected = (n1, n2) if first <= second else (n2, n1)
        assert (text.count("a"), text.count("b")) == expected


def lists(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores and relevances `[4, 5]` of ragged rows; the last has no relevant candidate."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, 5, generator=generator, requires_grad=True)
    relevance = torch.tensor(
        [[1.0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0.5, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    )
    return scores, relevance, torch.arange(5) < torch.tensor([5, 3, 4, 2])[:, None]


def test_losses_are_their_definitions() -> None:
    scores, relevance, mask = lists()
    rows = [(scores[i][mask[i]], relevance[i][mask[i]]) for i in range(4)]
    loss = losses.binary(scores, relevance, mask)
    each = [F.binary_cross_entropy_with_logits(s, r, reduction="sum") for s, r in rows]
    torch.testing.assert_close(loss.total, torch.stack(each).sum())
    assert int(loss.count) == 14
    loss = losses.softmax(scores, relevance, mask)
    each = [-(r / r.sum() * s.log_softmax(0)).sum() for s, r in rows[:3]]
    torch.testing.assert_close(loss.total, torch.stack(each).sum())
    assert int(loss.count) == 3
    for name, function in (
        ("pairwise", lambda d: math.log1p(math.exp(-d))),
        ("hinge", lambda d: max(0.0, 1 - d)),
    ):
        loss = getattr(losses, name)(scores, relevance, mask)
        total = 0.0
        for s, r in rows[:3]:
            values = [
                function((s[i] - s[j]).item())
                for i, j in itertools.permutations(range(len(s)), 2)
                if r[i] > r[j]
            ]
            total += sum(values) / len(values)
        assert float(loss.total) == pytest.approx(total, rel=1e-5)
        assert int(loss.count) == 3
    loss = losses.margin_mse(scores, relevance, mask)
    each = [F.mse_loss(s[0] - s[1:], r[0] - r[1:]) for s, r in rows]
    torch.testing.assert_close(loss.total, torch.stack(each).sum())


@pytest.mark.parametrize("name", ["binary", "softmax", "pairwise", "hinge", "margin_mse"])
def test_padding_of_candidates_is_not_read(name: str) -> None:
    scores, relevance, mask = lists()
    noisy = torch.where(mask, scores, 50.0)
    first = getattr(losses, name)(scores, relevance, mask)
    second = getattr(losses, name)(noisy, torch.where(mask, relevance, 1.0), mask)
    torch.testing.assert_close(first.total, second.total)
    gradient = torch.autograd.grad(first.total, scores)[0]
    assert not gradient[~mask].any() and gradient.isfinite().all()


def test_a_binary_pair_is_the_loss_of_sentence_transformers() -> None:
    """BinaryCrossEntropyLoss and MultipleNegativesRankingLoss apply these to a model's logits."""
    scores, _, _ = lists()
    only = torch.ones(4, 5, dtype=torch.bool)
    one_hot = F.one_hot(torch.zeros(4, dtype=torch.long), 5).float()
    loss = losses.binary(scores, one_hot, only)
    theirs = torch.nn.BCEWithLogitsLoss()(scores.flatten(), one_hot.flatten())
    torch.testing.assert_close(loss.total / loss.count, theirs)
    loss = losses.softmax(scores, one_hot, only)
    theirs = torch.nn.CrossEntropyLoss()(scores, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(loss.total / loss.count, theirs)


def test_metrics_before_and_after() -> None:
    metrics = RerankingMetrics()
    predictions = [{"scores": [0.1, 0.9, 0.5]}, {"scores": [0.3, 0.3]}, {"scores": [1.0]}]
    references = [
        {"relevance": [0.0, 1.0, 0.0], "first_scores": [0.9, 0.5, 0.1]},
        {"relevance": [1.0, 0.0], "first_scores": [0.9, 0.1]},
        {"relevance": [0.0], "first_scores": [0.5]},
    ]
    metrics.update(predictions, references)
    values = metrics.compute()
    assert values["mrr"] == pytest.approx((1 + 1 / 2 + 0) / 3)  # the tie counts against the query
    assert values["before_mrr"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert values["accuracy@1"] == pytest.approx(1 / 3)
    assert values["chance@1"] == pytest.approx((1 / 3 + 1 / 2) / 3)
    assert values["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert "before_ndcg@10" in values


@pytest.mark.parametrize("seed", range(3))
def test_gains_are_those_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import ndcg_score

    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(15, generator=generator).tolist()
    relevance = torch.randint(0, 4, (15,), generator=generator).float().tolist()
    ours = ndcg(ranked(scores, relevance))
    assert ours == pytest.approx(ndcg_score([relevance], [scores], k=10))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"passage": None}, "passage: "),
        ({"passage": "query"}, "passage: "),
        ({"passage": None, "candidates": "list"}, "relevance: "),
        ({"loss": "softmax"}, "candidates: "),
        ({"num_labels": 2}, "num_labels: "),
        ({"loss": "classes", "num_labels": 2}, "relevance: "),
        ({"activation": "softmax"}, "activation: "),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}"):
        Reranking(**options)


@pytest.mark.parametrize("cell", [["x"], [float("nan")], [2.0], [True]])
def test_a_relevance_that_is_none(cell: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"^column 'right'"):
        Reranking(relevance="right").prepare({"right": cell}, None, None)  # type: ignore[arg-type]
