"""`train.activation_checkpointing`: the same values and gradients from fewer kept bytes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.engine.inference import load
from sensorium.engine.model import build
from sensorium.engine.model.parameters import checkpoint_blocks
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.training.totals import SavedTensors
from sensorium.engine.utils import ConfigError, read_metrics
from sensorium.modalities.base import Encoder
from sensorium.tests.engine.inference.test_python_api import RECIPE

LLAMA = {
    "type": "causal", "name": "tiny-llama", "tokenizer": "bytes",
    "options": {
        "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 3,
        "attention_dropout": 0.3,
    },
}  # fmt: skip
VIT = {
    "type": "transformers",
    "config": {
        "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 64, "image_size": 8, "patch_size": 4, "hidden_dropout_prob": 0.2,
    },
}  # fmt: skip


def recipe(on: bool, **changes: Any) -> Any:
    tasks = {name: RECIPE["tasks"][name] for name in ("describe", "digit")}
    image = {**RECIPE["inputs"]["image"], "encoder": VIT, **changes}
    settings = {**RECIPE["train"], "steps": 3, "log_every": 1, "activation_checkpointing": on}
    return parse_recipe(
        {"inputs": {"image": image}, "backbone": LLAMA, "tasks": tasks, "train": settings}
    )


def test_a_training_is_the_same_and_keeps_the_same_run(tmp_path: Path) -> None:
    losses, models = [], []
    for name, on in (("plain", False), ("again", True)):
        models.append(train(recipe(on), tmp_path / name, show=False))
        lines = read_metrics(tmp_path / name)
        losses.append([(x["task"], x["loss"]) for x in lines if "loss" in x])
    assert losses[0] == losses[1]
    states = [model.state_dict() for model in models]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    pixels = torch.rand(8, 8, 3).numpy()
    answers = [load(tmp_path / n, device="cpu").caption(image=pixels) for n in ("plain", "again")]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("frozen", [False, True])
def test_fewer_bytes_are_kept(frozen: bool) -> None:
    sizes = []
    for on in (False, True):
        model: Any = build(recipe(on, encoder={**VIT, "freeze": frozen}))
        backbone = model.backbone
        backbone.requires_grad_(not frozen)
        embeds = torch.randn(2, 30, 16, requires_grad=True)
        saved = SavedTensors(model)
        with saved.counting():
            total = backbone(embeds).sum()
        total.backward()
        sizes.append(saved.bytes)
        assert embeds.grad is not None
    assert sizes[1] < sizes[0] / 2


def test_a_copy_runs_its_own_weights() -> None:
    model: Any = build(recipe(True))
    encoder: Encoder = model.stream("image").encoder
    encoder.eval()
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    sample = encoder.processor.prepare(torch.zeros(8, 8, 3, dtype=torch.uint8).numpy())
    batch = encoder.collate([sample])
    assert not torch.equal(encoder(**batch).tokens, other(**batch).tokens)
    assert float(other(**batch).tokens.abs().sum()) == 0


@pytest.mark.slow
def test_check_counts_it_and_refuses_a_recipe_without_blocks() -> None:
    needed = [check(recipe(on)).memory["describe"] for on in (False, True)]
    assert needed[1] < needed[0]
    with pytest.raises(ConfigError, match=r"train\.activation_checkpointing: no encoder and no"):
        checkpoint_blocks([torch.nn.Linear(2, 2)])
