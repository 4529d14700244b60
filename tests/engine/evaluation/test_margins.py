"""Margins of error: an identity for means, any metric of a task, and what an evaluation shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sensorium.engine.evaluation import format_evaluation, main_metric, read_table
from sensorium.engine.evaluation.margins import GROUPS, QUANTILE, margins
from sensorium.tasks.contrastive.metrics import RetrievalMetrics
from sensorium.tasks.speech.metrics import SpeechMetrics
from sensorium.tasks.text.captioning import CaptionMetrics


class Share:
    """The mean of the predictions, and a metric that some groups do not define."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, predictions: Sequence[float], targets: Sequence[Mapping[str, Any]]) -> None:
        self.values += predictions

    def compute(self) -> dict[str, float]:
        return {"share": float(np.mean(self.values)), "none": math.nan}


def test_the_margin_of_a_mean_is_that_of_its_groups_means() -> None:
    values = np.random.default_rng(1).random(10 * GROUPS)
    task: Any = SimpleNamespace(metrics=Share)
    result = margins(task, values.tolist(), [{}] * len(values), seed=0)
    group = np.random.default_rng(0).permutation(len(values)) % GROUPS
    means = [values[group == number].mean() for number in range(GROUPS)]
    expected = QUANTILE * np.std(means, ddof=1) / math.sqrt(GROUPS)
    assert result == pytest.approx({"share_margin": expected})


def test_few_rows_have_no_margin() -> None:
    task: Any = SimpleNamespace(metrics=Share)
    assert margins(task, [1.0] * (2 * GROUPS - 1), [{}] * (2 * GROUPS - 1)) == {}


def rows(kind: str) -> tuple[list[Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    if kind == "vectors":
        vectors = rng.standard_normal((60, 2, 4)).tolist()
        return [{"a": a, "b": b} for a, b in vectors], [{"group": i} for i in range(60)]
    texts = [f"one two {'three' if rng.random() < 0.5 else 'four'}" for _ in range(60)]
    target = {"text": "one two three", "references": ["one two three"]}
    return [{"text": text} for text in texts], [target] * 60


@pytest.mark.parametrize(
    ("kind", "build", "metric"),
    [
        ("vectors", lambda: RetrievalMetrics([("a", "b")]), "recall@1"),
        ("texts", SpeechMetrics, "wer"),
        ("texts", CaptionMetrics, "exact_match"),
    ],
)
def test_metrics_of_every_kind_have_one(kind: str, build: Any, metric: str) -> None:
    predictions, targets = rows(kind)
    task: Any = SimpleNamespace(metrics=build)
    assert 0 < margins(task, predictions, targets)[f"{metric}_margin"] < 1


def test_a_margin_stands_beside_its_metric_and_is_none_itself() -> None:
    values = {"exact": 0.5, "exact_margin": 0.125, "exact_image_shuffled": 0.25, "batch_gap": 0.0}
    table = read_table("caption", values, ["image"], None, 100)
    assert table.rows == [("exact", 0.5, [0.25])] and table.margins == {"exact": 0.125}
    text = format_evaluation({"caption": values}, {"caption": ("image",)})
    assert "0.5000 ± 0.1250" in text and "exact_margin" not in text


def test_the_first_metric_is_the_recipes_or_the_tasks() -> None:
    def plan(metric: str | None, main: str | None) -> Any:
        rule = SimpleNamespace(metric=metric)
        recipe = SimpleNamespace(train=SimpleNamespace(validate_=rule))
        task = SimpleNamespace(task=SimpleNamespace(main_metric=main))
        return SimpleNamespace(recipe=recipe, tasks={"match": task})

    assert main_metric(plan("match/mrr", "recall@1"), "match@held_out") == "match/mrr"
    assert main_metric(plan("other/mrr", "recall@1"), "match") == "match/recall@1"
    assert main_metric(plan(None, None), "match") is None
