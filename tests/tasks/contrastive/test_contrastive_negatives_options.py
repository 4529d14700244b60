"""Hard negatives in two processes, in metrics, and options that are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.tasks.contrastive import candidates, contrastive, similarity
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.tasks.contrastive.metrics import RetrievalMetrics
from sensorium.testing.context import prepare_batch
from sensorium.tests.tasks.contrastive.negative_cases import (
    DIM,
    NAMES,
    ROWS,
    context,
    task_of,
    vectors_of,
)


def test_prefixes_have_metrics() -> None:
    vectors = vectors_of(names=NAMES[:2])
    rows = [{n: v[i].tolist() for n, v in vectors.items()} for i in range(ROWS)]
    metrics, short = (
        RetrievalMetrics([("query", "passage")], widths=widths) for widths in ([3], [])
    )
    metrics.update(rows, [{}] * ROWS)
    short.update([{n: v[:3] for n, v in row.items()} for row in rows], [{}] * ROWS)
    assert metrics.compute()["dim3_recall@1"] == short.compute()["recall@1"]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"loss": "siglip", "matryoshka": [4]},
    {"loss": "hinge", "hinge_margin": 0.3, "false_negative_margin": 0.1},
    {"in_batch_negatives": False, "hardness": 2.0},
]
COUNTS = [2, 0, 1, 0, 0, 2]
"""Hard negatives of six rows; two processes have rows 0 to 3, and 4 and 5."""


class Lockstep:
    """`all_gather_with_grad` among threads that stand for processes, one graph for all."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=20)
        self.local = threading.local()
        self.tensors: list[Tensor] = [torch.zeros(0)] * count

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        rank = self.local.rank
        self.tensors[rank] = rows
        self.barrier.wait()
        tensors = list(self.tensors)
        self.barrier.wait()
        return torch.cat(tensors), sum(len(t) for t in tensors[:rank])

    def run(self, function: Callable[[int], Tensor]) -> list[Tensor]:
        def call(rank: int) -> Tensor:
            self.local.rank = rank
            return function(rank)

        with ThreadPoolExecutor(len(self.tensors)) as pool:
            return list(pool.map(call, range(len(self.tensors))))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_two_processes_are_one(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    every = vectors_of(6)
    ends = [0, *torch.tensor(COUNTS).cumsum(0).tolist()]

    def total(start: int, stop: int) -> Tensor:
        task = task_of(hard_negatives={"passage": "wrong"}, **options)
        local = {n: every[n][start:stop] for n in NAMES[:2]}
        local["wrong"] = every["wrong"][ends[start] : ends[stop]]
        batch = prepare_batch(task, [{}] * (stop - start))
        batch.items = {"wrong": torch.tensor(COUNTS[start:stop])}
        return task.loss(batch, context(local)).total

    one = total(0, 6)
    world = Lockstep(2)
    for module in (contrastive, candidates, similarity):
        monkeypatch.setattr(module, "all_gather_with_grad", world.gather)
    two = torch.stack(world.run(lambda rank: total(*((0, 4), (4, 6))[rank]))).sum()
    torch.testing.assert_close(two, one)
    leaves = [every[n] for n in NAMES[:3]]
    torch.testing.assert_close(
        torch.autograd.grad(two, leaves), torch.autograd.grad(one, leaves), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_batch_negatives": False}, "in_batch_negatives: found false without hard_negatives"),
        ({"hard_negatives": {"image": "x"}}, "hard_negatives: 'image' is not one of query"),
        ({"hard_negatives": {"passage": []}}, "hard_negatives: passage: found no stream"),
        ({"hard_negatives": {"passage": "query"}}, "'query' is used twice"),
        ({"hard_negatives": {"passage": ["x", "x"]}}, "'x' is used twice"),
        (
            {
                "hard_negatives": {"passage": "t"},
                "teachers": [{"query": "t", "passage": "u"}],
            },
            "'t' is a teacher",
        ),
        ({"loss": "hinge"}, "hinge_margin: found none with loss: hinge"),
        ({"hinge_margin": 0.2}, r"hinge_margin: found 0\.2 with loss: infonce"),
        ({"loss": "hinge", "hinge_margin": 0.0}, r"hinge_margin: found 0\.0, expected more"),
        ({"loss": "hinge", "hinge_margin": 0.1, "temperature": 0.1}, "temperature: loss: hinge"),
        ({"loss": "hinge", "hinge_margin": 0.1, "hardness": 1.0}, "hardness: weighs logits"),
        ({"hardness": -1.0}, "hardness: found -1"),
        ({"matryoshka": [DIM]}, f"matryoshka: found {DIM}, expected widths of 1 to {DIM - 1}"),
        ({"matryoshka": [0]}, "matryoshka: found 0"),
        ({"matryoshka": [2, 2]}, "expected different widths"),
        ({"matryoshka": [2], "matryoshka_weights": [1.0, 2.0]}, "matryoshka_weights: found 2"),
        ({"matryoshka_weights": [1.0]}, "matryoshka_weights: found 1, expected one for each"),
        ({"false_negative_margin": -2.5}, "false_negative_margin: found -2.5"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Contrastive(**{"streams": ["query", "passage"], "dim": DIM, **options})
