"""Losses of scores against sentence-transformers, options that are refused, and all forms in two
processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from sensorium.tasks.common import l2_normalize
from sensorium.tasks.contrastive import candidates, contrastive, scores, similarity
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.tasks.contrastive.losses import cosent
from sensorium.tasks.contrastive.scores import ScoreMetrics
from sensorium.testing.context import prepare_batch
from sensorium.tests.tasks.contrastive.negative_cases import (
    DIM,
    NAMES,
    ROWS,
    SCALE,
    context,
    mean_loss,
    task_of,
    theirs,
    vectors_of,
)
from sensorium.tests.tasks.contrastive.test_contrastive_negatives_options import Lockstep

SCORES = [0.1, 0.9, 0.9, 0.3, 0.0]


def cells(values: Any) -> list[dict[str, Any]]:
    return [{"score": value} for value in values]


def test_cosent_is_that_of_sentence_transformers() -> None:
    vectors = vectors_of(names=NAMES[:2])
    ours = mean_loss(task_of(loss="cosent", scores="score"), vectors, cells(SCORES))
    other = theirs("CoSENTLoss", [*vectors.values()], torch.tensor(SCORES), scale=SCALE)
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    level = mean_loss(task_of(loss="cosent", scores="score"), vectors, cells([0.5] * ROWS))
    assert level == 0  # nothing is ordered: the control
    assert cosent(torch.ones(3), torch.arange(3.0)).item() > 0


@pytest.mark.parametrize("as_list", [True, False])
def test_margin_mse_is_that_of_sentence_transformers(as_list: bool) -> None:
    """Their similarity is the dot product, and their labels the margins."""
    vectors = vectors_of()
    given = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
    hard = {"passage": "wrong" if as_list else ["wrong", "worse"]}
    task = Contrastive(
        streams=["query", "passage"],
        dim=DIM,
        similarity="dot",
        loss="margin_mse",
        scores="score",
        hard_negatives=hard,
    )
    inputs, counts = vectors, {}
    if as_list:
        inputs = {n: vectors[n] for n in NAMES[:2]}
        inputs["wrong"] = torch.stack([vectors["wrong"], vectors["worse"]], 1).flatten(0, 1)
        counts = {"wrong": [2] * ROWS}
    ours = mean_loss(task, inputs, cells(given.tolist()), **counts)
    margins = given[:, :1] - given[:, 1:]
    other = theirs("MarginMSELoss", [*vectors.values()], margins)
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    shuffled = mean_loss(task, inputs, cells(given.flip(0).tolist()), **counts)
    assert (shuffled - ours).abs() > 1e-2  # the control
    with pytest.raises(ValueError, match="row '0': has 2 scores, expected 3"):
        mean_loss(task, inputs, cells(given[:, :2].tolist()), **counts)


@pytest.mark.parametrize("value", ["high", None, float("nan"), True])
def test_a_score_that_is_no_number_is_named(value: object) -> None:
    with pytest.raises(ValueError, match="column 'score': found"):
        mean_loss(task_of(loss="cosent", scores="score"), vectors_of(), cells([value] * ROWS))


def test_scores_are_evaluated_as_scipy_does() -> None:
    vectors = {n: l2_normalize(v).detach() for n, v in vectors_of(names=NAMES[:2]).items()}
    metrics = ScoreMetrics([("query", "passage")], "cosine", [4])
    rows = [{n: v[i].tolist() for n, v in vectors.items()} for i in range(ROWS)]
    metrics.update(rows, cells(SCORES))
    values = metrics.compute()
    cosines = (vectors["query"] * vectors["passage"]).sum(1).numpy()
    assert values["spearman"] == pytest.approx(stats.spearmanr(cosines, SCORES).statistic, abs=1e-6)
    assert values["pearson"] == pytest.approx(stats.pearsonr(cosines, SCORES).statistic, abs=1e-6)
    assert set(values) == {"spearman", "pearson", "dim4_spearman"}


PAIRS: list[dict[str, Any]] = [
    {"loss": "cosent", "scores": "score"},
    {"loss": "margin_mse", "scores": "score", "hard_negatives": {"passage": ["wrong"]}},
    {"queue_size": 4},
    {"similarity": "dot", "flops": {"passage": 0.5}, "flops_warmup": 0.0},
    {"similarity": "maxsim", "hard_negatives": {"passage": ["wrong"]}},
    {"guide": {"query": "worse", "passage": "wrong"}},
]


@pytest.mark.parametrize("options", PAIRS, ids=lambda options: "-".join(options))
def test_two_processes_are_one(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    every = {n: v.detach().requires_grad_() for n, v in vectors_of(6).items()}
    many = options.get("loss") == "margin_mse"
    values = [[0.1 * i, 0.3 + i] if many else 0.1 * i for i in range(6)]

    def total(start: int, stop: int) -> Tensor:
        options.setdefault("similarity", "cosine")
        temperature = None if many else 1 / SCALE
        task = Contrastive(
            streams=["query", "passage"], dim=DIM, temperature=temperature, **options
        )
        task.build({"query": DIM}, {})
        keys = [str(i) for i in range(start, stop)]
        batch = prepare_batch(task, [{"score": v} for v in values[start:stop]], keys)
        local = context({n: v[start:stop] for n, v in every.items()})
        first = task.loss(batch, local).total
        return first + task.loss(batch, local).total  # the queue is full at the second

    one = total(0, 6)
    world = Lockstep(2)
    for module in (contrastive, candidates, scores, similarity):
        monkeypatch.setattr(module, "all_gather_with_grad", world.gather, raising=False)
    monkeypatch.setattr(similarity, "all_reduce_max", lambda values: values.max())
    two = torch.stack(world.run(lambda rank: total(*((0, 4), (4, 6))[rank]))).sum()
    torch.testing.assert_close(two, one)
    leaves = [every[n] for n in NAMES[:2]]
    torch.testing.assert_close(
        torch.autograd.grad(two, leaves), torch.autograd.grad(one, leaves), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "cosent"}, "scores: found none with loss: cosent"),
        ({"scores": "score"}, "scores: found score with loss: infonce"),
        ({"loss": "margin_mse", "scores": "s"}, "hard_negatives: loss: margin_mse"),
        (
            {"loss": "cosent", "scores": "s", "hard_negatives": {"passage": "x"}},
            "hard_negatives: loss: cosent",
        ),
        ({"loss": "cosent", "scores": "s", "hardness": 1.0}, "hardness: loss: cosent compares no"),
        ({"loss": "cosent", "scores": "s", "queue_size": 4}, "queue_size: loss: cosent"),
        ({"flops": {"query": 1.0}}, "flops: makes vectors sparse"),
        ({"flops": {"image": 1.0}, "similarity": "dot"}, "flops: 'image' is not one of"),
        ({"similarity": "maxsim", "queue_size": 4}, "queue_size: holds one vector a row"),
        ({"similarity": "dot", "matryoshka": [2]}, "matryoshka: the coordinates"),
        ({"dim": None, "matryoshka": [2]}, "matryoshka: its widths are prefixes of dim"),
        ({"guide": {"query": "look"}}, "guide: stands for query"),
        ({"guide": {"query": "passage", "passage": "x"}}, "guide: 'passage' is learned"),
        ({"guide_margin": 0.1}, "guide_margin: found without guide"),
        ({"loss": "cosent", "scores": "s", "main_metric": "mrr"}, "main_metric: found mrr"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Contrastive(**{"streams": ["query", "passage"], "dim": DIM, **options})
