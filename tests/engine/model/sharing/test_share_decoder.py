"""A stream that runs the stack of a decoder: there is one of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model.precompute import uncacheable_reason
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.optim import build_optimizer
from sensorium.tests.engine.model.sharing.shared_streams import (
    ENCODER,
    LLAMA,
    build_model,
    inputs_of,
    loss_of,
    recipe,
    with_backbone,
)

HUB = "hf-hub:org/run"
published = pytest.mark.parametrize("weights", [HUB, "run"])
BACKBONE = pytest.mark.parametrize("attention", ["causal", "bidirectional"])


def printed(run: Path) -> list[str]:
    """The places of the parts of which a run keeps a fingerprint only."""
    prints = json.loads((run / "fingerprints.json").read_text("utf-8"))
    return [name for name in prints if not name.endswith(".processor")]


@BACKBONE
def test_the_stack_of_a_decoder_gives_its_own_hidden_states(attention: str) -> None:
    model = with_backbone(attention).eval()
    encoder, backbone = model.stream("query").encoder, model.backbone
    inputs = inputs_of(model, "query")
    features = encoder(**inputs)
    assert backbone is not None
    expected = backbone(backbone.embed(inputs["ids"]), inputs["mask"], attention=attention)
    mask = inputs["mask"]
    assert not bool(mask.all())  # rows of several lengths
    torch.testing.assert_close(features.tokens[mask], expected[mask], rtol=0, atol=1e-6)
    assert not bool(features.tokens[~mask].any())
    alone = {key: value[:1, : int(mask[0].sum())] for key, value in inputs.items()}
    torch.testing.assert_close(encoder(**alone).tokens[0], features.tokens[0][mask[0]])
    layers = encoder(**inputs, hidden_states=(0, -1)).hidden_states
    _, states = backbone(backbone.embed(inputs["ids"]), mask, attention=attention,
                         hidden_states=(0, -1))  # fmt: skip
    for layer, state in zip(layers, states, strict=True):
        torch.testing.assert_close(layer.tokens[mask], state[mask], rtol=0, atol=1e-6)


def test_attention_changes_what_an_earlier_token_sees() -> None:
    tokens = []
    for attention in ("causal", "bidirectional"):
        model = with_backbone(attention).eval()
        tokens.append(model.stream("query").encoder(**inputs_of(model, "query")).tokens[0, 0])
    assert not torch.allclose(*tokens, atol=1e-4)


def test_training_through_either_place_moves_both() -> None:
    model = with_backbone()
    ids = inputs_of(model, "query")["ids"]
    backbone = model.backbone
    assert backbone is not None
    settings = torch.optim.SGD(model.parameters(), lr=0.5)

    def hidden() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mask = torch.ones_like(ids, dtype=torch.bool)
            return model.stream("query").encoder(ids, mask).tokens, backbone(backbone.embed(ids))

    for loss in (lambda: loss_of(model), lambda: backbone(backbone.embed(ids)).square().mean()):
        before = hidden()
        settings.zero_grad()
        loss().backward()
        settings.step()
        after = hidden()
        torch.testing.assert_close(*after, rtol=0, atol=1e-6)
        assert all(not torch.allclose(b, a, atol=1e-4) for b, a in zip(before, after, strict=True))


def test_a_decoder_that_encodes_is_there_once(folder: Path) -> None:
    lora = {**LLAMA, "lora": {"r": 2}, "lr": 0.5}
    model = with_backbone(backbone=lora)
    assert model.stream("query").encoder is model.stream("passage").encoder
    assert model.backbone is not None
    names = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert names and all(name.count("lora_") == 1 for name in names)
    groups = build_optimizer(model, model.plan.recipe.train).param_groups
    entries = [id(p) for group in groups for p in group["params"]]
    assert len(entries) == len(set(entries))
    rates = {group["base_lr"]: len(group["params"]) for group in groups}
    assert rates[0.5] == len(names)
    save_run(model, folder / "run")
    again = load_model(folder / "run")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    saved = load_file(folder / "run" / "model.safetensors")
    every = sum(p.numel() for p in model.parameters())
    assert sum(tensor.numel() for tensor in saved.values()) == every
    fitted = [path.name for path in (folder / "run" / "fitted").glob("*.json")]
    assert fitted == ["backbone.tokenizer.json"]
    words = model.stream("query").encoder.processor.tokenizer  # type: ignore[attr-defined]
    assert len(words.encode("what barks")) < len("what barks")  # merges of the streams' own texts


@published
def test_a_frozen_decoder_encodes_once_for_all(folder: Path, hub: None, weights: str) -> None:
    save_run(with_backbone(), folder / "run")
    model = with_backbone(backbone={**LLAMA, "weights": weights, "freeze": True})
    assert uncacheable_reason(model.plan, model, "query") is None
    save_run(model, folder / "second")
    assert printed(folder / "second") == (["backbone"] if weights == HUB else [])
    saved = load_file(folder / "second" / "model.safetensors")
    stack = [n for n in saved if ".connector." not in n and not n.startswith("tasks.")]
    once = sum(p.numel() for p in model.decoder("backbone").parameters())
    assert sum(saved[name].numel() for name in stack) == (0 if weights == HUB else once)
    load_model(folder / "second")


def test_a_named_decoder_encodes_too() -> None:
    query = {"share": "teacher", "attention": "bidirectional"}
    model = build_model({"share": "query"}, query, decoders={"teacher": LLAMA})
    assert model.stream("query").encoder.backbone is model.decoder("teacher")


@pytest.mark.slow
@pytest.mark.parametrize("query", [ENCODER, {"share": "backbone"}], ids=["encoder", "backbone"])
def test_a_resumed_run_has_the_losses_of_a_whole_one(runner: Any, folder: Path, query: Any) -> None:
    settings = {"steps": 4, "batch_size": 2, "checkpoint": {"every": 1}}
    stack = {"backbone": {**LLAMA, "lora": {"r": 2}}} if "share" in query else {}
    values = recipe({"share": "query"}, query, train=settings, **stack)
    values["tasks"]["match"]["data"]["train"]["path"] = str(folder / "rows.jsonl")
    runner.train(values, "whole")
    runner.cut(values, "cut", 3)
    runner.train(values, "cut", resume=True)
    assert runner.losses("cut") == runner.losses("whole")
    whole, cut = (load_file(runner.folder / n / "model.safetensors") for n in ("whole", "cut"))
    torch.testing.assert_close(cut, whole, rtol=0, atol=0)


def test_check_says_what_is_shared() -> None:
    report = check(parse_recipe(recipe({"share": "query"})))
    stages = {stage.where: stage for stage in report.components}
    assert stages["inputs.passage.encoder"].note == "shares inputs.query.encoder"
    assert stages["inputs.passage.encoder"].parameters == 0
    report = check(parse_recipe(recipe(
        {"share": "query"}, {"share": "backbone"}, backbone=LLAMA)))  # fmt: skip
    total = sum(stage.parameters for stage in report.components)
    assert total == sum(p.numel() for p in with_backbone().parameters())
