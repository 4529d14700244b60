"""The cache in training: the same losses, and nothing is computed that is there already."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import train
from safetensors.torch import load_file, save_file

from sensorium.modalities.image import read as image
from sensorium.tasks.supervised.label_encoder import LabelEncoder
from sensorium.tests.engine.training.cached.cached_recipes import FROZEN, PLAIN, stores, tiny


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_losses_are_the_same_with_the_cache_and_without(runner: Any, workers: int) -> None:
    """Dropout and a batch norm in the encoder: it is in `eval()`, cached or not."""
    noisy = {"inputs": {"image": {"encoder": {"dropout": 0.3, "norm": True, "noise": 0.2}}}}
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    recipe = runner.recipe(
        FROZEN, noisy, held, train(steps=30, num_workers=workers, validate={"every": 10})
    )
    without = runner.values(runner.changed(recipe, PLAIN), "without")
    assert not (runner.folder / "cache").exists()
    cached = runner.values(recipe, "cached")
    assert len(stores(runner)) == 1
    assert cached == pytest.approx(without, abs=1e-5)
    remaining = [load_file(runner.folder / n / "model.safetensors") for n in ("cached", "without")]
    for name, value in remaining[0].items():
        torch.testing.assert_close(value, remaining[1][name], rtol=0, atol=1e-4)


def test_captions_over_the_cache_have_the_same_losses(runner: Any) -> None:
    frozen = {"inputs": {"scan": {"encoder": {"freeze": True}}, "image": None}}
    recipe = runner.both(frozen, {"tasks": {"digit": None}}, train(steps=6))
    cached = runner.values(recipe, "cached")
    assert len(stores(runner)) == 1
    without = runner.values(runner.changed(recipe, PLAIN), "without")
    assert cached == pytest.approx(without, abs=1e-5)


def test_a_cached_encoder_is_run_once_a_row_and_then_never(
    runner: Any, monkeypatch: pytest.MonkeyPatch, forbid: Any
) -> None:
    recipe = runner.recipe(FROZEN, train(steps=25))  # two epochs and a half of 40 rows
    runner.train(runner.recipe(train(steps=0)), "import")
    rows: list[int] = []
    real = tiny().forward

    def counted(self: Any, pixel_values: Any) -> Any:
        rows.append(len(pixel_values))
        return real(self, pixel_values)

    monkeypatch.setattr(tiny(), "forward", counted)
    first = runner.values(recipe, "first")
    assert sum(rows) == 40
    forbid(tiny(), "forward")
    monkeypatch.setattr(image, "read", None)  # nor is a picture read again
    assert runner.values(recipe, "second") == first


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"inputs": {"image": {"encoder": {"freeze": False}}}}, "it trains"),
        ({"inputs": {"image": {"encoder": {"freeze": {"last": 1}}}}}, "its last block trains"),
        ({"inputs": {"image": {"encoder": {"lora": {"r": 2}}}}}, "its adapters train"),
        ({"inputs": {"image": {"augment": {"noise": 0.1}}}}, "its input is augmented"),
        (PLAIN, "it was not asked for"),
    ],
)
def test_what_varies_is_not_cached(runner: Any, change: dict[str, Any], why: str) -> None:
    runner.train(runner.recipe(FROZEN, change, train(steps=2)), "run")
    assert not stores(runner), why


def test_what_changes_the_features_is_a_miss(runner: Any) -> None:
    """Each of these changes makes a store of its own; what changes nothing makes none."""
    weights = runner.folder / "encoder.safetensors"
    runner.train(runner.recipe(train(steps=0)), "import")
    torch.manual_seed(0)
    encoder = tiny()()
    save_file(encoder.state_dict(), weights)
    messages = {"inputs": {"image": {"encoder": {"weights": str(weights)}}}}
    recipe = runner.recipe(FROZEN, messages, train(steps=1))
    known: set[str] = set()

    def run(new: int, *changes: Any) -> None:
        runner.train(runner.changed(recipe, *changes), "run")
        shutil.rmtree(runner.folder / "run")
        result = stores(runner)
        assert len(result - known) == new, changes
        known.update(result)

    run(1)
    run(0)
    run(0, train(seed=5, optimizer={"lr": 0.5}), {"inputs": {"image": {"connector": "linear"}}})
    run(1, {"inputs": {"image": {"encoder": {"scale": 2.0}}}})  # the processor's
    run(1, {"inputs": {"image": {"encoder": {"noise": 0.5}}}})  # shown by no weight
    run(1, {"cache": {"precision": "float16"}})
    run(1, {"cache": {"precision": "bfloat16"}})
    run(1, train(precision="bf16"))
    with torch.no_grad():
        encoder.layers[1].map.bias[3] += 1e-6
    save_file(encoder.state_dict(), weights)
    run(1)


def test_other_layers_are_other_features(runner: Any) -> None:
    """What a task asks of the encoder's layers is part of the key, and comes back."""
    from sensorium.modalities.base import Encoder, Features
    from sensorium.tasks.supervised.classification import Classification
    from sensorium.tasks.uses import StreamUse

    runner.train(runner.recipe(train(steps=0)), "import")
    result: list[int] = []

    class Layered(Classification):
        def __init__(self, *, input: str, labels: LabelEncoder, target: str = "label") -> None:
            super().__init__(input=input, labels=labels, target=target)
            self.streams = {input: StreamUse(hidden_states=(1,))}

        def loss(self, batch: Any, ctx: Any) -> Any:
            result.append(len(ctx.encode("image", hidden_states=(1,)).hidden_states))
            return super().loss(batch, ctx)

    tiny_parts = __import__("tiny_parts")

    class Deep(tiny_parts.Tiny):
        supports = frozenset({"hidden_states"})

        def forward(self, pixel_values: Any, hidden_states: tuple[int, ...] = ()) -> Features:
            features = super().forward(pixel_values)
            return features.replace(hidden_states=tuple(features for _ in hidden_states), grid=None)

    assert issubclass(Deep, Encoder)
    tiny_parts.Deep, tiny_parts.Layered = Deep, Layered
    deep = {"inputs": {"image": {"encoder": {"type": "tiny_parts:Deep"}, "connector": None}}}
    recipe = runner.recipe(FROZEN, deep, train(steps=1))
    runner.train(recipe, "without")
    runner.train(
        runner.changed(recipe, {"tasks": {"digit": {"type": "tiny_parts:Layered"}}}), "with"
    )
    assert len(stores(runner)) == 2 and result == [1]


@pytest.mark.slow
def test_two_runs_may_fill_and_use_a_store_at_once(runner: Any) -> None:
    recipe = runner.recipe(FROZEN, {"tasks": {"digit": {"data": {"train": {"limit": 400}}}}})
    recipe = runner.changed(recipe, train(steps=20))
    started = [
        subprocess.Popen(
            runner.command(recipe, name, "--quiet"), cwd=Path(runner.folder), stderr=subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
    assert runner.losses("one") == runner.losses("two")
    assert len(stores(runner)) == 1
    without = runner.values(runner.changed(recipe, PLAIN), "without")
    assert [x for *_, x in runner.losses("one")] == pytest.approx(without, abs=1e-5)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stored", ["as_computed", "float16", "bfloat16"])
def test_a_run_over_the_cache_is_evaluated_in_whatever_it_was_stored(
    runner: Any, precision: str, stored: str
) -> None:
    from sensorium.engine.checkpoint import load_model
    from sensorium.engine.evaluation import evaluate

    test = {"test": {"source": "digits", "split": "test", "limit": 20}}
    recipe = runner.recipe(FROZEN, {"tasks": {"digit": {"data": test}}})
    recipe = runner.changed(recipe, train(steps=6, precision=precision))
    remaining = runner.values(runner.changed(recipe, {"cache": {"precision": stored}}), "run")
    without = runner.values(runner.changed(recipe, PLAIN), "without")
    rough = precision == "bf16" or stored != "as_computed"
    assert remaining == pytest.approx(without, abs=1e-2 if rough else 1e-5)
    result = evaluate(load_model(runner.folder / "run"), input_ablation=False)
    assert 0 <= result["digit"]["accuracy"] <= 1
