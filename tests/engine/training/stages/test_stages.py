"""Stages: overrides of one recipe, run one after the other in one run's folder."""

from __future__ import annotations

from typing import Any

import huggingface_hub
import pytest
import torch
from recipe_changes import train
from torch import Tensor

from sensorium.engine.checkpoint import load_model, read_tensors
from sensorium.engine.recipe import load_recipe, parse_recipe
from sensorium.engine.training import Trainer, check
from sensorium.engine.training import train as run
from sensorium.tests.engine.training.stages.stage_recipes import (
    encoder,
    equal,
    lines,
    stage,
    staged,
    warm_up_and_all,
)

ENCODER, HEAD = "streams.image.encoder.", "tasks.digit.heads.head."


def parts(tensors: Any, prefix: str) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if k.startswith(prefix)}


def test_each_begins_where_the_last_one_ended(runner: Any) -> None:
    model = runner.train(warm_up_and_all(runner), "run")
    folder = runner.folder / "run"
    first, last = (
        read_tensors(p / "model.safetensors") for p in (folder / "stages/0-head", folder)
    )
    begun = model.state_dict()
    assert equal(parts(begun, ENCODER), parts(last, ENCODER))
    assert not equal(parts(first, HEAD), parts(last, HEAD))
    assert not equal(parts(first, ENCODER), parts(last, ENCODER))
    result = lines(folder)
    assert [line["step"] for line in result] == [*range(1, 8)]
    assert [line["stage"] for line in result] == ["head"] * 3 + ["all"] * 4
    assert not (folder / "stages/0-head/metrics.jsonl").exists()


def test_the_run_and_its_stages_are_models(runner: Any) -> None:
    model = runner.train(warm_up_and_all(runner), "run")
    folder = runner.folder / "run"
    assert equal(load_model(folder).state_dict(), model.state_dict())
    loaded = load_model(folder / "stages/0-head")
    assert equal(loaded.state_dict(), read_tensors(folder / "stages/0-head/model.safetensors"))
    recipe = load_recipe(folder)
    assert recipe.stages == [] and recipe.train.steps == 4
    assert len(load_recipe(folder / "stages").stages) == 2  # what it was made of
    assert not list(folder.glob("stages/1-all/model.safetensors"))


def test_a_stage_without_a_change_is_a_plain_run(runner: Any) -> None:
    recipe = staged(runner, stage("only"))
    runner.train({k: v for k, v in recipe.items() if k != "stages"}, "plain")
    runner.train(recipe, "staged")
    one, other = (lines(runner.folder / name) for name in ("plain", "staged"))
    assert [{k: v for k, v in line.items() if k != "stage"} for line in other] == one


def test_stages_see_rows_in_orders_of_their_own(runner: Any) -> None:
    keys: list[list[str]] = []

    class Watched(Trainer):
        def batches(self) -> Any:
            for batch in super().batches():
                keys.append(batch.keys)
                yield batch

    recipe = staged(runner, stage("one"), stage("two"))
    run(parse_recipe(recipe), runner.folder / "run", show=False, trainer=Watched)
    assert keys[:4] != keys[-4:]


def test_what_was_trained_and_is_frozen_now_is_in_the_model(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other source, the weights it began with, is not what it is any more."""
    runner.train(runner.recipe(train(steps=1)), "before")
    before = str(runner.folder / "before")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: before)
    recipe = staged(runner, stage("all"), stage("head", encoder(freeze=True)))
    weights = {"type": "tiny_parts:Tiny", "weights": "hf-hub:org/before"}
    recipe["inputs"]["image"]["encoder"] = weights
    recipe["inputs"]["image"]["encoder"]["train_only"] = "bias"
    recipe["stages"][1] = stage("head", encoder(freeze=True, train_only=None))
    model = runner.train(recipe, "run")
    loaded = load_model(runner.folder / "run")
    assert equal(loaded.state_dict(), model.state_dict())
    first = read_tensors(runner.folder / "run/stages/0-all/model.safetensors")
    for name, value in parts(first, ENCODER).items():
        assert name.endswith("bias") and torch.equal(loaded.state_dict()[name], value)
    assert load_recipe(runner.folder / "run").inputs["image"].encoder.weights == "none"


@pytest.mark.parametrize("first", [{}, {"lora": {"r": 2}}, {"train_only": "bias"}])
def test_adapters_may_come_later_and_go_on(runner: Any, first: dict[str, Any]) -> None:
    gone = dict.fromkeys(first) if "train_only" in first else {}
    later = stage("later", encoder(**gone, lora={"r": 2}))
    model = runner.train(staged(runner, stage("first", encoder(**first)), later), "run")
    before = read_tensors(runner.folder / "run/stages/0-first/model.safetensors")
    after = model.state_dict()
    for name, value in parts(before, ENCODER).items():
        if "lora_" in name or "norm." in name:  # trains on, or keeps running means
            continue
        target = name if name in after else name.replace(".weight", ".base_layer.weight")
        target = target if target in after else name.replace(".bias", ".base_layer.bias")
        assert torch.equal(after[target], value), name
    assert equal(load_model(runner.folder / "run").state_dict(), after)


def test_parts_may_come_and_go(runner: Any) -> None:
    """A second task with its stream and decoder, after which the first leaves."""
    both = runner.both(train(steps=2))
    new = {k: both[k] for k in ("backbone",)}
    new |= {
        "inputs": {"scan": both["inputs"]["scan"]},
        "tasks": {"caption": both["tasks"]["caption"]},
    }
    last = {"inputs": {"image": None}, "tasks": {"digit": None}}
    recipe = runner.recipe(train(steps=2))
    recipe["stages"] = [
        stage("one"),
        stage("two", new),
        stage("three", {**new, "inputs": {**new["inputs"], **last["inputs"]}}),
    ]
    recipe["stages"][2]["tasks"] = {**new["tasks"], **last["tasks"]}
    model = runner.train(recipe, "run")
    assert set(model.tasks) == {"caption"} and set(model.streams) == {"scan"}
    report = check(parse_recipe(recipe))
    assert list(report.stages) == ["0-one", "1-two", "2-three"]


def test_fitted_parts_are_kept(runner: Any) -> None:
    """The labels of the first stage hold, though the second sees other rows."""
    few = {"tasks": {"digit": {"data": {"train": {"limit": 3}}}}}
    recipe = staged(runner, stage("many"), stage("few", few))
    model = runner.train(recipe, "run")
    labels = [f.state() for f in model.plan.fitted().values()]
    first = load_model(runner.folder / "run/stages/0-many")
    assert labels == [f.state() for f in first.plan.fitted().values()]


def test_a_part_of_another_type_or_with_weights_begins_anew(runner: Any) -> None:
    runner.train(runner.recipe(train(steps=1)), "other")
    other = encoder(weights=str(runner.folder / "other"), freeze=True)
    mlp = {"tasks": {"digit": {"head": "mlp"}}}
    plain = {**runner.recipe(train(steps=2)), "stages": [stage("a"), stage("b", other, mlp)]}
    assert "starts over: inputs.image.encoder, tasks.digit.head" in str(check(parse_recipe(plain)))
    model = runner.train(plain, "run")
    weights = read_tensors(runner.folder / "other/model.safetensors")
    assert equal(parts(weights, ENCODER), parts(model.state_dict(), ENCODER))


@pytest.mark.parametrize("keep", [True, False])
def test_the_optimizer_is_kept_or_fresh(runner: Any, keep: bool) -> None:
    counts: list[set[float]] = []

    class Watched(Trainer):
        def run(self) -> None:
            for _ in (0, 1):
                states = self.optimizer.optimizer.state.values()
                counts.append({float(values["step"]) for values in states})
                if not len(counts) % 2:
                    return
                super().run()

    recipe = staged(runner, stage("a", train(steps=3)), stage("b", keep_optimizer=keep))
    run(parse_recipe(recipe), runner.folder / "run", show=False, trainer=Watched)
    assert counts == [set(), {3.0}, {3.0} if keep else set(), {7.0} if keep else {4.0}]
