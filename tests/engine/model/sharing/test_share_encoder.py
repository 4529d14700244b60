"""Streams that share an encoder or a connector: there is one of each."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.embedding.embedder import fingerprint
from sensorium.engine.recipe import load_recipe, parse_recipe
from sensorium.engine.training.optim import build_optimizer
from sensorium.tests.engine.model.sharing.shared_streams import (
    ENCODER,
    build_model,
    loss_of,
    recipe,
    stream,
)

SHARED = {
    "the encoder": stream({"share": "query"}),
    "encoder and connector": stream({"share": "query"}, {"share": "query"}),
    "the stream": {"share": "query"},
}
shared = pytest.mark.parametrize("passage", SHARED.values(), ids=list(SHARED))

HUB = "hf-hub:org/run"
published = pytest.mark.parametrize("weights", [HUB, "run"])


def printed(run: Path) -> list[str]:
    """The places of the parts of which a run keeps a fingerprint only."""
    prints = json.loads((run / "fingerprints.json").read_text("utf-8"))
    return [name for name in prints if not name.endswith(".processor")]


@shared
def test_it_is_one_module_in_one_place(passage: Any) -> None:
    model = build_model(passage)
    query, other = model.stream("query"), model.stream("passage")
    assert query.encoder is other.encoder
    both = passage != SHARED["the encoder"]
    assert (query.connector is other.connector) == both
    places = [c.where for c in model.components]
    assert places.count("inputs.query.encoder") == 1
    assert "inputs.passage.encoder" not in places
    assert ("inputs.passage.connector" in places) == (not both)
    parameters = list(model.parameters())
    groups = build_optimizer(model, model.plan.recipe.train).param_groups
    entries = [id(p) for group in groups for p in group["params"]]
    assert sorted(entries) == sorted(id(p) for p in parameters)
    assert len(set(entries)) == len(entries)


@shared
def test_it_is_saved_once(passage: Any, folder: Path) -> None:
    model = build_model(passage)
    save_run(model, folder / "run")
    with (folder / "run" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    stored = [name for name in header if ".encoder." in name]
    names = [name for name, _ in model.stream("query").encoder.named_parameters()]
    assert len(stored) >= len(names)
    assert not [name for name in stored if name.startswith("streams.passage.")]
    again = load_model(folder / "run")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert again.stream("query").encoder is again.stream("passage").encoder
    written = load_recipe(folder / "run" / "recipe.yaml")
    assert written.to_dict()["inputs"]["passage"]["encoder"] == {"share": "query"}
    fitted = sorted(path.name for path in (folder / "run" / "fitted").glob("*.json"))
    assert fitted == ["inputs.query.encoder.tokenizer.json"]


@published
def test_a_frozen_one_has_one_fingerprint_and_one_store(
    folder: Path, hub: None, weights: str
) -> None:
    save_run(build_model({"share": "query"}), folder / "run")
    frozen = {**ENCODER, "weights": weights, "freeze": True}
    model = build_model(stream({"share": "query"}, {"share": "query"}), frozen)
    save_run(model, folder / "second")
    saved = [k for k in load_file(folder / "second" / "model.safetensors") if "encoder" in k]
    assert printed(folder / "second") == (["inputs.query.encoder"] if weights == HUB else [])
    assert bool(saved) == (weights != HUB)
    assert all(name.startswith("streams.query.encoder.") for name in saved)
    assert fingerprint(model, "query") == fingerprint(model, "passage")
    from sensorium.engine.training import train

    train(parse_recipe(recipe(stream({"share": "query"}), frozen)), folder / "third", show=False)
    assert len(list((folder / "cache" / "features").iterdir())) == 1


def test_adapters_are_added_once() -> None:
    model = build_model({"share": "query"}, {**ENCODER, "lora": {"r": 2}})
    encoder = model.stream("passage").encoder
    depth = [name.count("lora_A") for name, _ in encoder.named_modules()]
    assert max(depth) == 1
    trains = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trains and all("lora_" in name for name in trains)


def test_the_tokenizer_is_fitted_on_the_texts_of_both() -> None:
    """Not on those of the first stream alone."""
    one = build_model(stream(ENCODER)).stream("query").encoder
    both = build_model({"share": "query"}).stream("query").encoder
    assert one.processor.settings() != both.processor.settings()  # type: ignore[union-attr]


def test_gradients_are_the_sum_of_both_streams() -> None:
    model = build_model({"share": "query"})
    apart = copy.deepcopy(model)
    apart.streams["passage"] = copy.deepcopy(apart.streams["query"])
    for each in (model, apart):
        loss_of(each).backward()
    for kind in ("encoder", "connector"):
        whole = getattr(model.stream("query"), kind).named_parameters()
        one, two = (getattr(apart.stream(n), kind).parameters() for n in ("query", "passage"))
        for (name, w), a, b in zip(whole, one, two, strict=True):
            if w.grad is None:
                assert a.grad is b.grad is None, name
            else:
                torch.testing.assert_close(w.grad, a.grad + b.grad, rtol=1e-4, atol=1e-6)


def test_a_shared_encoder_is_found_by_either_name_in_a_run(folder: Path) -> None:
    save_run(build_model({"share": "query"}), folder / "run")
    frozen = {**ENCODER, "weights": "run", "freeze": True}
    save_run(build_model({"share": "query"}, frozen), folder / "second")
    expected = build_model({"share": "query"}, frozen).stream("query").encoder.state_dict()
    for run in ("run", "second"):
        taken = (
            build_model(stream({**ENCODER, "weights": f"{run}:passage"})).stream("passage").encoder
        )
        torch.testing.assert_close(taken.state_dict(), expected, rtol=0, atol=0)


def test_the_modality_is_the_others_unless_said() -> None:
    values = recipe({"share": "query", "modality": "text"})
    assert parse_recipe(values).inputs["passage"].modality == "text"
    assert parse_recipe(recipe({"share": "query"})).inputs["passage"].modality == "text"
