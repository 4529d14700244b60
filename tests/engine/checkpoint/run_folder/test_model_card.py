"""A run's card says what made it and how well it does, and says it anew once it is evaluated."""

from __future__ import annotations

from pathlib import Path

from sensorium.engine.checkpoint import load_model
from sensorium.engine.checkpoint.model_card import _metrics
from sensorium.engine.evaluation import evaluate
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train

RECIPE = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 8},
        }
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "target": "word",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 40},
                "test": {"source": "digits", "split": "test", "limit": 16},
            },
        }
    },
    "train": {"steps": 2, "batch_size": 8},
}


def test_the_card_holds_the_command_and_then_the_evaluation(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(parse_recipe(RECIPE), run, show=False, command="sensorium train it.yaml train.steps=2")
    card = (run / "README.md").read_text()
    assert "Trained by `sensorium train it.yaml train.steps=2`." in card
    assert "Not evaluated yet" in card

    result = evaluate(load_model(run), folder=run)
    card = (run / "README.md").read_text()
    assert "Trained by `sensorium train it.yaml train.steps=2`." in card
    assert f"| digit | accuracy | {result['digit']['accuracy']:.4g} |" in card
    assert (run / "recipe.yaml").read_text().startswith("# sensorium train it.yaml train.steps=2\n")


def test_a_metric_that_is_not_defined_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"digit": {"hd95": null, "dice": 0.0}}')
    messages = _metrics(tmp_path)
    assert "| digit | hd95 | not defined |" in messages and "| digit | dice | 0 |" in messages
