"""Contrastive recipes in training: processes, chunks, locked towers, biases, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from sensorium.engine.checkpoint import load_model
from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load
from sensorium.engine.model import build
from sensorium.engine.model.parameters import is_frozen
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.image.datasets.digits import Digits
from sensorium.modalities.text.transformers import TransformersText
from sensorium.tests.engine.training.recipes.contrastive_recipes import (
    BERT,
    LOSSES,
    PAIR,
    TEXT,
    asked,
    composed,
)

NO_DROPOUT = {"hidden_dropout_prob": None, "attention_probs_dropout_prob": None}
LLAMA = {"type": "causal_lm", "config": {"model_type": "llama", **NO_DROPOUT}}


def texts(**changes: Any) -> dict[str, Any]:
    return {"inputs": {"caption": {"encoder": changes}}}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_are_one_with_twice_the_batch(runner: Any, loss: str) -> None:
    runner.train(runner.recipe(PAIR, LOSSES[loss], {"train": {"batch_size": 16}}), "one")
    done = runner.go(runner.recipe(PAIR, LOSSES[loss]), "two", processes=2)
    assert done.returncode == 0, done.stderr
    result, expected = ([loss for *_, loss in runner.losses(name)] for name in ("two", "one"))
    assert result == pytest.approx(expected, abs=1e-5)
    mine, theirs = (load_model(runner.folder / name).state_dict() for name in ("one", "two"))
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)


@pytest.mark.slow
def test_a_process_without_a_readable_row_goes_along(runner: Any) -> None:
    """The second process's rows of the first batch are broken: nobody waits for it."""
    lines = []
    for i in range(16):
        row = Digits(split="train")[i]
        (runner.folder / f"{i}.png").write_bytes(b"")
        if i < 8:
            Image.fromarray(row["image"]).save(runner.folder / f"{i}.png")
        lines.append({**row, "image": f"{i}.png", "label": int(row["label"])})
    (runner.folder / "rows.json").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    data = {"source": "json", "path": "rows.json", "on_error": "skip"}
    few = {"train": {"steps": 6, "batch_size": 1, "gradient_accumulation_steps": 2}}
    recipe = runner.recipe(PAIR, asked(data=None), asked(data={"train": data}), few)
    done = runner.go(recipe, "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert len(runner.losses("two")) == 6


def test_a_locked_tower_is_not_run(runner: Any, forbid: Callable[[Any, str], None]) -> None:
    """LiT: the text tower is frozen, so its features come from the store."""
    recipe = runner.recipe(PAIR, texts(freeze=True))
    runner.train(recipe, "first")
    forbid(TransformersText, "forward")
    again = runner.train(recipe, "again")
    assert runner.losses("again") == runner.losses("first")
    assert is_frozen(again.stream("caption").encoder)
    assert again.stream("caption").connector.map.weight.requires_grad


def test_only_biases_train(runner: Any) -> None:
    before = dict(composed(runner, texts(train_only="bias")).named_parameters())
    encoder = "streams.caption.encoder."
    for name, parameter in before.items():
        expected = not name.startswith(encoder) or name.endswith("bias")
        assert parameter.requires_grad == expected, name
    trained = runner.train(runner.recipe(PAIR, texts(train_only="bias")), "run")
    moved = {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[1] for name in moved if "encoder" in name} == {"image", "caption"}
    assert all(n.endswith("bias") for n in moved if n.startswith(encoder))
    again = load_model(runner.folder / "run").state_dict()
    assert all(torch.equal(again[n], t) for n, t in trained.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"freeze": True}, r"encoder.train_only: cannot be combined with freeze"),
        ({"lora": {"r": 2}}, r"encoder.train_only: cannot be combined with lora"),
        (LLAMA, r"encoder.train_only: bias selects no parameter"),
    ],
)
def test_biases_that_cannot_train_are_refused(
    runner: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        composed(runner, texts(**changes, train_only="bias"))


def test_widths_that_do_not_meet_are_refused(runner: Any) -> None:
    recipe = runner.recipe(PAIR)
    del recipe["inputs"]["image"]["connector"]
    with pytest.raises(ConfigError, match=r"inputs.image.*width 8, tasks.match.dim takes 12"):
        build(parse_recipe(recipe))


def test_teachers_and_looks_may_have_any_width(runner: Any) -> None:
    data = {"columns": {"look": "image", "seen": "image", "said": "caption"}}
    image = {"modality": "image", "encoder": {"type": "tiny_parts:Tiny", "freeze": True}}
    sentence = {"modality": "text", "encoder": {**TEXT, "freeze": True}}
    recipe = runner.recipe(
        PAIR,
        {"inputs": {"look": image, "seen": image, "said": sentence}},
        asked(
            loss="soft", soft_target_streams={"image": "look"}, data={"train": data, "test": data}
        ),
        asked(teachers=[{"image": "seen", "caption": "said"}]),
    )
    recipe["inputs"]["said"]["encoder"]["config"] = {**BERT, "hidden_size": 8}
    runner.train(recipe, "run")
    lines = (runner.folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["teachers"] > 0 for line in lines if '"loss"' in line)


def test_an_evaluation_says_ranks_and_accuracy(runner: Any) -> None:
    zero_shot = {"input": "image", "target": "word", "templates": ["a handwritten {}.", "{}"]}
    recipe = runner.recipe(PAIR, asked(zero_shot=zero_shot, metric_group="parity"))
    model = runner.train(recipe, "run")
    result = evaluate(model, folder=runner.folder / "run")["match"]
    assert result["zero_shot_chance"] == pytest.approx(0.1)
    assert 0 <= result["zero_shot_accuracy"] <= 1
    assert result["image_to_caption_chance@1_same_parity"] > result["image_to_caption_chance@1"]
    assert result["batch_gap"] < 1e-5
    assert "recall@1_image_shuffled" in result
    lines = (runner.folder / "run" / "predictions-match.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 30
    keys = {row["key"] for row in rows}
    for row in rows:
        result = row["prediction"]["image_to_caption"]
        assert set(result["nearest"]) <= keys and 1 <= result["rank"] <= 30


def test_one_by_one_or_together_and_whatever_pads(runner: Any) -> None:
    runner.train(runner.recipe(PAIR), "run")
    pipeline = load(runner.folder / "run")
    rows = [Digits(split="test")[i] for i in range(64)]
    captions = [row["caption"] if i % 3 else row["word"] for i, row in enumerate(rows)]
    for name, values in (("image", [row["image"] for row in rows]), ("caption", captions)):
        together = pipeline.embed(**{name: values})
        alone = torch.cat([pipeline.embed(**{name: [value]}) for value in values])
        assert float((together - alone).abs().max()) < 1e-5
        torch.testing.assert_close(together.norm(dim=1), torch.ones(64))
