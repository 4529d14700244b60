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
from sensorium.engine.utils import read_metrics


def held(**rule: Any) -> dict[str, Any]:
    return {
        "tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}},
        **train(steps=12, validate={"every": 2, "metric": "digit/accuracy", **rule}),
    }


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validation says what is written here."""
    left = iter(values)

    def score(self: Any, rows: Any, **options: Any) -> EvaluationResult:
        self.model.eval()
        value = 0.0 if options.get("limit") == 1 else next(left)  # one batch: is there a metric?
        return EvaluationResult({"accuracy": value}, [], [], [], SkippedRows())

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
    shop: Any,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float],
    mode: str,
    end: int,
    best: int,
) -> None:
    recipe = shop.recipe(held(patience=2, mode=mode), train(checkpoint={"every": 2, "keep": 9}))
    scripted(monkeypatch, values)
    shop.train(recipe, "run")
    run = shop.folder / "run"
    assert shop.losses("run")[-1][0] == end
    remaining = load_file(run / "model.safetensors")
    then = load_file(run / "checkpoints" / f"step-{best:08d}" / "model.safetensors")
    last = load_file(run / "checkpoints" / f"step-{end:08d}" / "model.safetensors")
    assert all(torch.equal(remaining[name], then[name]) for name in remaining)
    assert any(not torch.equal(remaining[name], last[name]) for name in remaining)
    assert not (run / "best.safetensors").exists()


def test_the_best_is_remembered_over_a_resume(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = shop.recipe(held(), train(checkpoint={"every": 4}))
    with monkeypatch.context() as patch:
        scripted(patch, [0.1, 0.9, 0.2])
        shop.cut(recipe, "run", 7)
    with monkeypatch.context() as patch:  # killed again, when its weights are being written
        scripted(patch, [0.2, 0.3, 0.4, 0.5])
        patch.setattr(import_module("sensorium.engine.training.train"), "save_run", _raising)
        with pytest.raises(InterruptedError):
            shop.train(recipe, "run", resume=True)
    scripted(monkeypatch, [])  # every step was done
    model = shop.train(recipe, "run", resume=True)
    scripted(monkeypatch, [0.1, 0.9, 0.2, 0.2, 0.3, 0.4])
    whole = shop.train(recipe, "whole")
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def _raising(*args: Any, **options: Any) -> None:
    raise InterruptedError


def test_validation_changes_no_loss(shop: Any) -> None:
    with_it = shop.recipe(
        held(), {"inputs": {"image": {"encoder": {"dropout": 0.2, "norm": True}}}}
    )
    without = shop.changed(with_it, {"train": {"validate": None}})
    assert shop.values(with_it, "with") == shop.values(without, "without")
    lines = read_metrics(shop.folder / "with")
    result = [x["step"] for x in lines if "validation" in x]
    assert result == [2, 4, 6, 8, 10, 12]
