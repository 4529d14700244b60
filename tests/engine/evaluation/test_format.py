"""What `evaluate` prints: a line a metric, shuffled scores beside, names explained once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.engine.evaluation import format_evaluation
from sensorium.engine.evaluation.metric_names import NAMES, explain
from sensorium.engine.recipe import find
from sensorium.testing.task_builder import TaskBuilder
from sensorium.tests.tasks.test_task_contract import CASES, LIMITS, OPTIONS, TOKENIZERS


def test_the_shuffled_score_stands_beside_the_score() -> None:
    text = format_evaluation(
        {
            "caption": {
                "exact_match": 0.83,
                "bleu4": 0.5,
                "exact_match_image_shuffled": 0.1,
                "bleu4_image_shuffled": float("nan"),
                "batch_gap": 0.0,
            },
            "caption@other": {"exact_match": 0.25},
            "both": {"mae": 2.0, "mae_a_shuffled": 9.0, "mae_b_shuffled": 2.5},
            "empty": {},
        },
        {"caption": ["image"], "both": ["a", "b"], "empty": []},
    )
    lines, _, names = text.partition("\n\n")
    assert [" ".join(line.split()) for line in lines.splitlines()] == [
        "caption/exact_match 0.8300 (shuffled input 0.1000)",
        "caption/bleu4 0.5000 (shuffled input not defined)",
        "caption/batch_gap 0.0000",
        "caption@other/exact_match 0.2500",
        "both/mae 2.0000 (shuffled a 9.0000, b 2.5000)",
        "empty no metrics",
    ]
    assert [line.split()[0] for line in names.splitlines()] == [
        "exact_match",
        "bleu4",
        "mae",
        "batch_gap",
    ]


def test_every_name_is_explained_in_a_short_line() -> None:
    assert len({name for name, _, _ in NAMES}) == len(NAMES)
    assert all(len(name) + len(text) <= 96 for name, _, text in NAMES)


def test_a_metric_of_a_plug_in_has_no_explanation() -> None:
    assert explain(["my_score"]) == []


def test_a_task_explains_metrics_of_its_own() -> None:
    names = {"my_score": "fraction of rows that please", "mae": "in dB"}
    assert explain(["my_score", "mae", "my_score"], names) == list(names.items())
    text = format_evaluation({"a": {"my_score": 0.5, "f1": 0.5}}, {"a": ["x"]}, names)
    assert "fraction of rows that please" in text and "harmonic mean" in text


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_metrics_of_every_task_are_explained(name: str, case: int) -> None:
    options: dict[str, Any] = dict(OPTIONS[name][case])
    if name in TOKENIZERS:
        options["tokenizer"] = TOKENIZERS[name]
    limits = LIMITS.get(name, {})
    cls = find("task", name, "here")
    builder = TaskBuilder(cls, options, limits.get("decoder", "causal"), limits.get("axes", 1))
    task = builder.task.eval()
    with torch.no_grad():
        batch = builder.prepare(task, builder.rows, training=False)
        batch.features = builder.features()
        predictions = task.predict(batch, builder.context(batch.features))
    metrics = task.metrics()
    metrics.update(predictions, batch.references)
    unknown = [metric for metric in metrics.compute() if not explain([metric], task.metric_names)]
    assert not unknown
