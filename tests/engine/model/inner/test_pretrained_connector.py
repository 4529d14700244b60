"""A connector whose weights stand in a folder: resolved, loaded, frozen and fingerprinted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sensorium.connectors.base import Connector
from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features


class QueryFormer(Connector):
    """Learned queries attend to the tokens. name: a folder with a configuration and weights."""

    def __init__(
        self, in_dim: int, out_dim: int, *, name: str | None = None, queries: int | None = None
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.name = name
        if queries is None:
            raise ValueError("queries: is required without a folder")
        self.queries = nn.Parameter(torch.randn(queries, in_dim))
        self.out = nn.Linear(in_dim, out_dim)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        if options.get("name") is None:
            return options
        text = (Path(options["name"]) / "config.json").read_text(encoding="utf-8")
        return {**options, **json.loads(text)}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        return options.get("name") is not None

    def load(self) -> None:
        if self.name is None:
            return super().load()
        self.load_state_dict(load_file(Path(self.name) / "model.safetensors"))
        return None

    def forward(self, features: Features) -> Features:
        tokens: Tensor = nn.functional.scaled_dot_product_attention(
            self.queries.expand(len(features.tokens), -1, -1), features.tokens, features.tokens
        )
        return Features.dense(self.out(tokens))


def recipe(**connector: Any) -> dict[str, Any]:
    encoder = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8}
    section = {"type": f"{__name__}:QueryFormer", **connector}
    image = {"modality": "image", "encoder": encoder, "connector": section}
    task = {"type": "classification", "input": "image", "target": "word"}
    task["data"] = {"train": {"source": "digits", "split": "train", "limit": 8}}
    return {"inputs": {"image": image}, "tasks": {"digit": task}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = tmp_path / "qformer"
    result.mkdir()
    (result / "config.json").write_text(json.dumps({"queries": 3}), encoding="utf-8")
    save_file(QueryFormer(8, 8, queries=3).state_dict(), result / "model.safetensors")
    return result


def test_it_is_resolved_and_loaded(folder: Path) -> None:
    for section in ({}, {"weights": "pretrained"}):
        model = build(parse_recipe(recipe(name=str(folder), **section)))
        connector = model.stream("image").connector
        assert connector is not None
        torch.testing.assert_close(
            connector.state_dict(), load_file(folder / "model.safetensors"), rtol=0, atol=0
        )
        resolved = model.plan.recipe.inputs["image"].connector
        assert resolved is not None
        assert (resolved.options["queries"], resolved.weights) == (3, "pretrained")
    random = build(parse_recipe(recipe(name=str(folder), weights="none")))
    weights = load_file(folder / "model.safetensors")["queries"]
    assert not torch.equal(random.stream("image").connector.queries, weights)  # type: ignore[union-attr]


def test_frozen_and_large_it_is_not_saved_but_fingerprinted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.engine.checkpoint.state.MAX_COPY", 0)
    model = build(parse_recipe(recipe(name=str(folder), freeze=True)))
    run = tmp_path / "run"
    save_run(model, run)
    assert not [k for k in load_file(run / "model.safetensors") if "connector" in k]
    again = load_model(run)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "queries": weights["queries"] + 1}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"inputs\.image\.connector: the run was trained on"):
        load_model(run)


def test_without_weights_to_load_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"image\.connector\.weights: .* no pretrained weights"):
        build(parse_recipe(recipe(queries=2, weights="pretrained")))
