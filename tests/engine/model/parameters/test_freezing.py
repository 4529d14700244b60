"""What trains and what does not: gradients, modes, what a run keeps, and what a load refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from recipe_changes import train
from safetensors.torch import load_file
from torch import nn

from sensorium.engine.checkpoint import load_model, save_run, saved_tensors
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import trainer
from sensorium.engine.utils import ConfigError

IMAGE, SCAN, HEAD = "streams.image.encoder.", "streams.scan.encoder.", "tasks.digit.heads.head."
CONNECTOR = "streams.scan.connector."


CAPTIONS: dict[str, Any] = {"inputs": {"image": None}, "tasks": {"digit": None}}
"""Of the two tasks the second alone."""


def encoder(**keys: Any) -> dict[str, Any]:
    return {"inputs": {"image": {"encoder": {"dropout": 0.3, "norm": True, **keys}}}}


def decoder(**keys: Any) -> dict[str, Any]:
    return {"backbone": {"options": {"attention_dropout": 0.2}, **keys}}


@pytest.fixture
def learned(runner: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train, and give (the names that a gradient reached, those whose values moved, the model)."""

    def run(recipe: dict[str, Any]) -> tuple[set[str], set[str], Any]:
        before = {k: v.clone() for k, v in build(parse_recipe(recipe)).state_dict().items()}
        reached: set[str] = set()
        real = trainer.Trainer.update

        def update(self: Any, totals: Any) -> None:
            result = self.model.named_parameters()
            reached.update(n for n, p in result if p.grad is not None and bool(p.grad.any()))
            real(self, totals)

        with monkeypatch.context() as patch:
            patch.setattr(trainer.Trainer, "update", update)
            model = runner.train(recipe, "run")
        after = model.state_dict()
        assert after.keys() == before.keys()
        return reached, {n for n in after if not torch.equal(after[n], before[n])}, model

    return run


def names(model: nn.Module, *prefixes: str) -> set[str]:
    return {n for n, _ in model.named_parameters() if n.startswith(prefixes)}


def test_without_freezing_gradients_reach_everything(runner: Any, learned: Any) -> None:
    reached, moved, model = learned(runner.both(encoder(), decoder(), train(steps=6)))
    every = {name for name, _ in model.named_parameters()}
    assert reached == every <= moved


@pytest.mark.parametrize("cache", [True, False])
def test_frozen_is_frozen_and_the_rest_trains(runner: Any, learned: Any, cache: bool) -> None:
    """A head alone; neither weights nor the running means of a batch norm move."""
    recipe = runner.recipe(encoder(freeze=True), {"cache": {"features": cache}}, train(steps=6))
    reached, moved, model = learned(recipe)
    assert reached == moved == names(model, HEAD)


def test_gradients_pass_through_a_frozen_decoder(runner: Any, learned: Any) -> None:
    """LLaVA's first stage: the connector alone, between two frozen models."""
    recipe = runner.both(
        CAPTIONS,
        {"inputs": {"scan": {"encoder": {"freeze": True}}}},
        decoder(freeze=True),
        train(steps=4),
    )
    reached, moved, model = learned(recipe)
    assert reached == names(model, CONNECTOR)
    assert moved == reached
    assert not model.backbone.training


@pytest.mark.parametrize("last", [0, 1, 2])
def test_the_last_blocks_train(runner: Any, learned: Any, last: int) -> None:
    reached, moved, model = learned(runner.recipe(encoder(freeze={"last": last}), train(steps=4)))
    blocks = tuple(f"{IMAGE}layers.{i}." for i in range(2 - last, 2))
    assert reached == moved == names(model, HEAD, *blocks)
    part = model.streams["image"].encoder
    assert [block.training for block in part.layers] == [i >= 2 - last for i in range(2)]
    assert not part.norm.training and not part.patch.training


def test_the_last_block_of_a_decoder_trains(runner: Any, learned: Any) -> None:
    two = {"backbone": {"options": {"num_hidden_layers": 2}, "freeze": {"last": 1}}}
    reached, _, model = learned(runner.both(two, train(steps=4)))
    part = names(model, "decoders.backbone.")
    open_ = {n for n in part if ".layers.1." in n}
    assert open_ and reached & part == open_


@pytest.mark.parametrize("also", [{}, {"freeze": True}])
def test_adapters_of_an_encoder_are_all_that_trains_of_it(
    runner: Any, learned: Any, also: dict[str, Any]
) -> None:
    reached, moved, model = learned(runner.recipe(encoder(lora={"r": 4}, **also), train(steps=6)))
    adapters = {n for n in names(model, IMAGE) if "lora_" in n}
    assert len(adapters) == 4  # two matrices for the linear map of each of two blocks
    assert {tuple(model.get_parameter(n).shape) for n in adapters} == {(4, 8), (8, 4)}
    assert reached == adapters | names(model, HEAD)
    assert moved & names(model, IMAGE) == adapters


def test_adapters_of_a_decoder_are_all_that_trains_of_it(runner: Any, learned: Any) -> None:
    recipe = runner.both(CAPTIONS, decoder(lora={"r": 2}), train(steps=4))
    reached, moved, model = learned(recipe)
    part = names(model, "decoders.backbone.")
    adapters = {n for n in part if "lora_" in n}
    assert len(adapters) == 2 * 7  # q, k, v, o and the three of the feed-forward
    assert reached & part == moved & part == adapters
    named = runner.both(decoder(lora={"r": 2, "target_modules": ["q_proj"]}))
    result = [n for n, p in build(parse_recipe(named)).named_parameters() if "lora_" in n]
    assert len(result) == 2 and all("q_proj" in n for n in result)


def test_mistakes_in_freezing_are_named(runner: Any) -> None:
    for change, message in (
        (encoder(freeze={"last": 3}), r"image\.encoder\.freeze\.last: found 3, it has 2 blocks"),
        (encoder(lora={"rank": 3}), r"inputs\.image\.encoder\.lora\.rank: "),
        (encoder(lora={"r": 2, "target_modules": ["nix"]}), r"image\.encoder\.lora: .*nix"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(parse_recipe(runner.recipe(change)))
    frozen = {**encoder(freeze=True), "tasks": {"digit": {"head": {"freeze": True}}}}
    with pytest.raises(ConfigError, match="nothing trains; every part is frozen"):
        runner.train(
            runner.recipe(frozen, {"tasks": {"digit": {"head": {"type": "linear"}}}}), "run"
        )


def test_what_is_frozen_stays_in_eval_when_the_model_is_put_to_train(runner: Any) -> None:
    """Of the whole model this holds always. Who calls `.train()` on the frozen part itself gets
    what he asked for, until the model is put to train again, as before each run of training."""
    model = build(parse_recipe(runner.both(encoder(freeze=True), decoder(freeze=True))))
    frozen = model.streams["image"].encoder

    def modes() -> tuple[bool, bool, bool, bool]:
        scan = model.streams["scan"].encoder
        return frozen.training, frozen.norm.training, model.backbone.training, scan.training

    assert modes() == (False, False, False, True)
    assert model.eval().train() is model
    assert modes() == (False, False, False, True)
    nn.Sequential(model).train()  # a wrapper, as DistributedDataParallel is one
    assert modes() == (False, False, False, True)
    frozen.train()
    assert frozen.training
    model.train()
    assert modes() == (False, False, False, True)


def publish(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Save a model as what the hub gives, whatever is asked for."""
    save_run(model, folder)
    patch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))


def test_a_run_keeps_what_was_trained_and_nothing_else(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = {"inputs": {"image": {"encoder": {"dim": 256, "weights": "hf-hub:org/big"}}}}
    big = build(parse_recipe(runner.recipe({"inputs": {"image": {"encoder": {"dim": 256}}}})))
    publish(big, runner.folder / "big", monkeypatch)
    head = {f"{HEAD}map.weight", f"{HEAD}map.bias"}
    for name, change, expected in (
        ("head", {"freeze": True}, set()),
        ("adapters", {"lora": {"r": 1}}, {"lora_A", "lora_B"}),
        ("last", {"freeze": {"last": 1}}, {"layers.1.map"}),
        ("whole", {}, {"patch", "layers.0", "layers.1"}),
    ):
        recipe = runner.recipe(loaded, {"inputs": {"image": {"encoder": change}}}, train(steps=2))
        model = runner.train(recipe, name)
        result = load_file(runner.folder / name / "model.safetensors")
        rest = set(result) - head
        assert set(result) >= head
        assert all(any(e in n for e in expected) for n in rest), rest
        assert all(any(e in n for n in rest) for e in expected), rest
        again = load_model(runner.folder / name).state_dict()
        assert all(torch.equal(again[n], value) for n, value in model.state_dict().items())
    assert (runner.folder / "head" / "model.safetensors").stat().st_size < 12_000  # 10 x 256 floats
    assert (runner.folder / "big" / "model.safetensors").stat().st_size > 500_000


def test_a_random_encoder_that_is_frozen_is_kept_for_nobody_else_has_it(runner: Any) -> None:
    model = runner.train(runner.recipe(encoder(freeze=True), train(steps=2)), "run")
    assert names(model, IMAGE) <= set(saved_tensors(model))
    again = load_model(runner.folder / "run").state_dict()
    assert all(torch.equal(again[n], value) for n, value in model.state_dict().items())


@pytest.mark.parametrize("change", [{"freeze": True}, {"freeze": {"last": 1}}, {"lora": {"r": 2}}])
def test_another_encoder_is_refused_by_name(
    runner: Any, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(parse_recipe(runner.recipe()))
    publish(model, runner.folder / "published", monkeypatch)
    section = {"inputs": {"image": {"encoder": {"weights": "hf-hub:org/it", **change}}}}
    runner.train(runner.recipe(section, train(steps=2)), "run")
    load_model(runner.folder / "run")
    with torch.no_grad():
        model.streams["image"].encoder.state_dict()["layers.0.map.bias"].add_(1e-6)
    publish(model, runner.folder / "published", monkeypatch)
    with pytest.raises(ConfigError, match=r"inputs\.image\.encoder: the run was trained on weight"):
        load_model(runner.folder / "run")
    prints = json.loads((runner.folder / "run" / "fingerprints.json").read_text())
    assert [name for name in prints if not name.endswith(".processor")] == ["inputs.image.encoder"]
