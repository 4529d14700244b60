"""A run that was trained with adapters as the weights of another: they are merged."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import Model, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.training.dry_run import check
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features

DATA = {"train": {"source": "digits", "split": "train", "limit": 40}}
VIT = {
    "type": "timm",
    "name": "vit_tiny_patch16_224",
    "weights": "none",
    "options": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
}
CLIP = {
    "type": "open_clip",
    "name": "ViT-B-32",
    "weights": "none",
    "options": {
        "embed_dim": 32,
        "vision_cfg": {
            "layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32,
        },
    },
}  # fmt: skip
BEIT = {
    "type": "timm",
    "name": "beit_base_patch16_224",
    "weights": "none",
    "options": {"img_size": 32, "embed_dim": 48, "depth": 1, "num_heads": 3},
}
EVA = {
    "type": "timm",
    "name": "eva02_tiny_patch14_224",
    "weights": "none",
    "options": {"img_size": 28, "embed_dim": 48, "depth": 1, "num_heads": 3},
}
LORA = {"r": 4}


def recipe(encoder: Mapping[str, Any], **task: Any) -> dict[str, Any]:
    return {
        "inputs": {"image": {"modality": "image", "encoder": dict(encoder), "connector": "mean"}},
        "tasks": {"digit": {"type": "classification", "input": "image", "data": DATA, **task}},
        "train": {"steps": 1, "batch_size": 4},
    }


def made(encoder: Mapping[str, Any], seed: int = 0, **task: Any) -> Model:
    return compose(resolve_and_fit(parse_recipe(recipe(encoder, **task))), seed=seed).eval()


def trained(encoder: Mapping[str, Any], seed: int) -> Model:
    """A model whose adapters change something, as after training."""
    model = made(encoder, seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def features(model: Model) -> Tensor:
    encoder = model.stream("image").encoder
    size = encoder.processor.prepare(_picture())["pixel_values"].shape
    pixels = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    tokens: Tensor = encoder(pixel_values=pixels).tokens
    return tokens


def _picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (40, 40), (200, 10, 30))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("encoder", [VIT, CLIP, BEIT, EVA], ids=["vit", "clip", "beit", "eva"])
def test_a_run_with_adapters_is_the_weights_of_others(encoder: dict[str, Any]) -> None:
    first = trained({**encoder, "lora": LORA}, 1)
    save_run(first, Path("runs/first"))
    expected = features(first)
    assert torch.equal(features(load_model("runs/first").eval()), expected)
    for section in ({}, {"lora": {"r": 2}}, {"freeze": True}):
        model = made({**encoder, "weights": "runs/first", **section}, 2)
        torch.testing.assert_close(features(model), expected, rtol=1e-4, atol=1e-4)
        trains = [p.requires_grad for p in model.stream("image").encoder.parameters()]
        assert any(trains) == ("freeze" not in section)
    # A chain of runs: the second one trained adapters on top of the merged ones.
    second = trained({**encoder, "weights": "runs/first", "lora": {"r": 2}}, 3)
    save_run(second, Path("runs/second"))
    third = made({**encoder, "weights": "runs/second"}, 4)
    torch.testing.assert_close(features(third), features(second), rtol=1e-4, atol=1e-4)


def volumes(picture: dict[str, Any], head: dict[str, Any], **outer: Any) -> Model:
    """A classifier of slices: an encoder within an encoder, and a head."""
    slices = {"type": "slices", "size": [12, 12, 4], "spacing": [16, 16, 40], "heads": 2}
    data = {"source": "phantom", "subjects": 2, "spacing": 12}
    tree = recipe({})
    tree["inputs"] = {
        "volume": {
            "modality": "mri",
            "encoder": {**slices, "encoder": {**VIT, "options": TINY, **picture}, **outer},
        }
    }
    tree["tasks"]["digit"] = {
        "type": "classification",
        "input": "volume",
        "target": "sequence",
        "head": {"type": "attention_probe", "heads": 2, **head},
        "data": {"train": data},
    }
    return compose(resolve_and_fit(parse_recipe(tree)), seed=len(picture)).eval()


TINY = {**VIT["options"], "embed_dim": 12, "num_heads": 2}


def test_adapters_of_a_head_and_of_an_inner_part_are_merged_too() -> None:
    first = volumes({"lora": LORA}, {"lora": LORA})
    for name, parameter in first.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    save_run(first, Path("runs/first"))
    runs = {"weights": "runs/first"}
    whole, inner = volumes({}, runs, **runs), volumes({**runs, "freeze": True}, {})
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = first.stream("volume").encoder.encoder(pictures).tokens
        for model in (whole, inner):
            tokens = model.stream("volume").encoder.encoder(pictures).tokens
            torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)
        features = Features.dense(torch.randn(2, 5, 12))
        vectors = [m.task("digit").heads["head"](features).tokens for m in (first, whole)]
        torch.testing.assert_close(vectors[1], vectors[0], rtol=1e-4, atol=1e-4)


def test_an_average_of_an_adapted_encoder_is_merged() -> None:
    """`create_ema_encoders` copies the encoder with its adapters."""
    first = trained({**VIT, "lora": LORA}, 1)
    stream = first.stream("image")
    stream.ema = copy.deepcopy(stream.encoder)
    save_run(first, Path("runs/first"))
    model = made({**VIT, "weights": "runs/first:image.ema"}, 2)
    torch.testing.assert_close(features(model), features(first), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", [VIT, CLIP, BEIT, EVA], ids=["vit", "clip", "beit", "eva"])
def test_check_passes_adapters_that_train(encoder: dict[str, Any]) -> None:
    check(parse_recipe(recipe({**encoder, "lora": LORA})))


@pytest.mark.parametrize(
    ("encoder", "lora", "named"),
    [
        (CLIP, {"type": "ia3", "target_modules": ["out_proj"], "feedforward_modules": []},
         r"encoder\.lora: no gradient reaches the adapters of .*attn\.out_proj"),
        (EVA, {"type": "loha", "r": 2, "target_modules": ["qkv"]}, "blocks.0.attn.qkv"),
        (EVA, {"r": 2, "target_modules": ["head_drop"]}, r"encoder\.lora: Target module Dropout"),
        (BEIT, {"r": 2, "lora_dropout": 0.1}, r"lora_dropout: has no effect on .*attn\.qkv"),
        (CLIP, {"r": 2, "lora_dropout": 0.1}, "lora_dropout"),
    ],
)  # fmt: skip
def test_check_names_adapters_that_never_train(
    encoder: dict[str, Any], lora: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        check(parse_recipe(recipe({**encoder, "lora": lora})))


@pytest.mark.parametrize("name", ["lm_head", "q_proj"])
def test_adapters_that_only_zeros_reach_are_named_after_training(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss of added action tokens reads no row of the table that is adapted."""
    state = {"type": "trajectory", "dim": 32, "depth": 1, "heads": 2}
    tree: dict[str, Any] = {
        "inputs": {"x": {"modality": "action", "encoder": state}},
        "backbone": {
            "type": "causal", "name": "tiny-llama", "tokenizer": "bytes",
            "options": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1},
            "lora": {"r": 2, "target_modules": [name]},
        },
        "tasks": {
            "act": {
                "type": "control", "prompt": "<x>", "action_decoder": "autoregressive",
                "tokenizer": {"type": "bspline", "num_basis": 3, "degree": 2},
                "data": {
                    "train": {"source": "sensorium.tests.pair_rows:PairRows", "modality": "action"}
                },
            }
        },
        "train": {"steps": 2, "batch_size": 4},
    }  # fmt: skip
    with caplog.at_level("INFO"):
        train(parse_recipe(tree), "runs/act")
    lines = [text for text in caplog.messages if "left these adapters at zero" in text]
    assert len(lines) == (name == "lm_head") and all("lm_head" in line for line in lines)
