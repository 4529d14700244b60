"""Validation in training: the best weights, an early end, and nothing else is changed by it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from recipe_changes import train
from safetensors.torch import load_file

from sensorium.engine.data import SkippedRows
from sensorium.engine.evaluation import Evaluator
from sensorium.engine.evaluation.evaluator import EvaluationResult
from sensorium.engine.recipe import Validate
from sensorium.engine.utils import read_metrics


def held(**rule: Any) -> dict[str, Any]:
    return {
        "tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}},
        **train(steps=12, validate={"every": 2, "metric": "digit/accuracy", **rule}),
    }


def scripted(
    monkeypatch: pytest.MonkeyPatch, values: list[float], metric: str = "accuracy"
) -> None:
    """Let validation return these values of a metric."""
    left = iter(values)

    def score(self: Any, rows: Any, **options: Any) -> EvaluationResult:
        self.model.eval()
        value = 0.0 if options.get("limit") == 1 else next(left)  # one batch: is there a metric?
        return EvaluationResult({metric: value}, [], [], [], SkippedRows())

    monkeypatch.setattr(Evaluator, "score", score)


@pytest.mark.parametrize(
    ("values", "mode", "end", "best"),
    [
        ([0.1, 0.5, 0.2, 0.3, 0.9, 0.9], "max", 8, 4),
        ([0.9, 0.5, 0.6, 0.4, 0.4, 0.4], "min", 12, 8),
        ([float("nan"), 0.2, 0.1, 0.3, 0.1, 0.1], "max", 12, 8),
    ],
)
def test_training_ends_early_and_the_best_weights_are_kept(
    runner: Any,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float],
    mode: str,
    end: int,
    best: int,
) -> None:
    recipe = runner.recipe(held(patience=2, mode=mode), train(checkpoint={"every": 2, "keep": 9}))
    scripted(monkeypatch, values)
    runner.train(recipe, "run")
    run = runner.folder / "run"
    assert runner.losses("run")[-1][0] == end
    remaining = load_file(run / "model.safetensors")
    then = load_file(run / "checkpoints" / f"step-{best:08d}" / "model.safetensors")
    last = load_file(run / "checkpoints" / f"step-{end:08d}" / "model.safetensors")
    assert all(torch.equal(remaining[name], then[name]) for name in remaining)
    assert any(not torch.equal(remaining[name], last[name]) for name in remaining)
    assert not (run / "best.safetensors").exists()


def test_the_best_is_remembered_over_a_resume(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = runner.recipe(held(), train(checkpoint={"every": 4}))
    with monkeypatch.context() as patch:
        scripted(patch, [0.1, 0.9, 0.2])
        runner.cut(recipe, "run", 7)
    with monkeypatch.context() as patch:  # killed again, when its weights are being written
        scripted(patch, [0.2, 0.3, 0.4, 0.5])
        patch.setattr(import_module("sensorium.engine.training.train"), "save_run", _raising)
        with pytest.raises(InterruptedError):
            runner.train(recipe, "run", resume=True)
    scripted(monkeypatch, [])  # every step was done
    model = runner.train(recipe, "run", resume=True)
    scripted(monkeypatch, [0.1, 0.9, 0.2, 0.2, 0.3, 0.4])
    whole = runner.train(recipe, "whole")
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def _raising(*args: Any, **options: Any) -> None:
    raise InterruptedError


def test_validation_changes_no_loss(runner: Any) -> None:
    with_it = runner.recipe(
        held(), {"inputs": {"image": {"encoder": {"dropout": 0.2, "norm": True}}}}
    )
    without = runner.changed(with_it, {"train": {"validate": None}})
    assert runner.values(with_it, "with") == runner.values(without, "without")
    lines = read_metrics(runner.folder / "with")
    result = [x["step"] for x in lines if "validation" in x]
    assert result == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("metric", "smallest"),
    [
        *((f"speak/{name}", True) for name in ("wer", "cer", "l1_gripper", "age/mae", "rmse")),
        *((f"speak/{name}", True) for name in ("unigram_loss", "loss", "perplexity", "last_mase")),
        *((f"speak/{name}", True) for name in ("image_to_text_median_rank", "centre_error")),
        *((f"speak/{name}", False) for name in ("accuracy", "image_to_text_recall@1", "r2", "map")),
        *((f"speak/{name}", False) for name in ("mrr", "fact_f1", "exact_match", "iou")),
        *((f"speak/{name}", False) for name in ("last_word_accuracy", "token_accuracy", "auroc")),
    ],
)
def test_the_best_value_of_an_error_is_the_smallest(metric: str, smallest: bool) -> None:
    assert Validate(every=1, metric=metric).minimizes is smallest
    assert Validate(every=1, metric=metric, mode="max").minimizes is False
    assert Validate(every=1, metric=metric, mode="min").minimizes is True


def test_training_on_a_loss_keeps_the_weights_of_the_smallest(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runner.recipe(held(patience=1, metric="digit/loss"))
    scripted(monkeypatch, [0.9, 0.5, 0.6], "loss")
    runner.train(recipe, "run")
    assert runner.losses("run")[-1][0] == 6
