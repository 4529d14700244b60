"""The contract of every image encoder, and checkpoints in the real formats, loaded exactly."""

from __future__ import annotations

import importlib
import json
import math
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sensorium.modalities.base import Encoder, Features
from sensorium.modalities.image import IMAGE
from sensorium.modalities.image.read import example, read

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
}
HF = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
NAFLEX = {k: v for k, v in HF.items() if k != "image_size"} | {"num_patches": 16}
PIPELINE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
CONV = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "image_size": 64}
SWIN = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "patches": ("patches", {"size": 32, "patch_size": 8, "dim": 24}),
    "patches with a stem": ("patches", {"size": 32, "patch_size": 8, "dim": 24, "stem": [8, 16]}),
    "frames": ("frames", {"encoder": {"type": "patches", "size": 32, "patch_size": 8, "dim": 24}}),
    "timm ViT": ("timm", {"name": "vit_tiny_patch16_224", "options": VIT}),
    "timm convolution": ("timm", {"name": "test_convnext"}),
    "timm grey": ("timm", {"name": "test_vit", "options": {"in_chans": 1, "img_size": 32}}),
    "timm layer": ("timm", {"name": "vit_tiny_patch16_224", "options": VIT, "layer": -2}),
    "open_clip ViT": ("open_clip", {"name": "ViT-B-32", "options": CLIP}),
    "open_clip vector": (
        "open_clip",
        {"name": "ViT-B-32-quickgelu", "options": CLIP, "output": "embedding"},
    ),
    "open_clip ResNet": (
        "open_clip",
        {
            "name": "RN50",
            "options": {"vision_cfg": {"image_size": 64, "width": 8, "layers": [1, 1, 1, 1]}},
        },
    ),
    "open_clip CoCa": (
        "open_clip",
        {
            "name": "coca_ViT-B-32",
            "options": {**CLIP, "vision_cfg": {**CLIP["vision_cfg"], "attn_pooler_heads": 4}},
        },
    ),
    "open_clip timm": (
        "open_clip",
        {"name": "convnext_base", "options": {"vision_cfg": {"timm_model_name": "test_convnext"}}},
    ),
    "hf ViT": ("transformers", {"config": {"model_type": "vit", **HF}}),
    "hf layer": ("transformers", {"config": {"model_type": "vit", **HF}, "layer": -2}),
    "hf DINOv2": ("transformers", {"config": {"model_type": "dinov2", **HF}}),
    "hf registers": (
        "transformers",
        {"config": {"model_type": "dinov2_with_registers", **HF}, "processor": PIPELINE},
    ),
    "hf DINOv3": (
        "transformers",
        {"config": {"model_type": "dinov3_vit", "num_register_tokens": 2, **HF}},
    ),
    "hf DINOv3 ConvNeXt": (
        "transformers",
        {"config": {"model_type": "dinov3_convnext", **CONV}, "processor": PIPELINE},
    ),
    "hf CLIP": ("transformers", {"config": {"model_type": "clip", "vision_config": HF}}),
    "hf SigLIP": ("transformers", {"config": {"model_type": "siglip", "vision_config": HF}}),
    "hf SigLIP 2": ("transformers", {"config": {"model_type": "siglip2_vision_model", **NAFLEX}}),
    "hf ConvNeXt": ("transformers", {"config": {"model_type": "convnext", **CONV}}),
    "hf Swin": ("transformers", {"config": {"model_type": "swin", "image_size": 32, **SWIN}}),
}

UNUSED = {  # parameters that need what only pre-training gives, or lie behind the chosen layer
    "timm layer": ("model.blocks.2", "model.norm", "model.fc_norm"),
    "hf layer": ("model.layers.2", "model.layernorm"),
    "hf DINOv2": ("model.embeddings.mask_token",),
    "hf registers": ("model.embeddings.mask_token",),
    "hf DINOv3": ("model.embeddings.mask_token",),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def kind(case: str) -> type[Encoder]:
    module, _, name = IMAGE.encoders[CASES[case][0]].partition(":")
    found: type[Encoder] = getattr(importlib.import_module(module), name)
    return found


def make(case: str) -> Encoder:
    torch.manual_seed(0)
    options = CASES[case][1]
    return kind(case)(**kind(case).resolve(options)).eval()


def pictures(count: int) -> list[Image.Image]:
    return [example(np.random.default_rng(i)) for i in range(count)]


def batch(encoder: Encoder, count: int) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(p) for p in pictures(count)])


def leaves(features: Features) -> list[torch.Tensor]:
    return [features.tokens, *([] if features.pooled is None else [features.pooled])]


def test_every_encoder_of_the_catalogue_is_tried() -> None:
    assert {name for name, _ in CASES.values()} == set(IMAGE.encoders)


@pytest.mark.parametrize("case", CASES)
def test_shapes_grid_and_mask(case: str) -> None:
    encoder = make(case)
    given = batch(encoder, 3)
    features = encoder(**given)
    assert features.tokens.shape[::2] == (3, encoder.dim)
    assert features.pooled is None or features.pooled.shape == (3, encoder.dim)
    if case == "hf SigLIP 2":
        assert torch.equal(features.mask, given["pixel_attention_mask"].bool())
    else:
        assert features.mask.all()
    if case != "frames" and features.grid is not None and features.step and features.origin:
        assert math.prod(features.grid) == features.tokens.shape[1]
        size = given["pixel_values"].shape[2:]
        for count, step, origin, side in zip(
            features.grid, features.step, features.origin, size, strict=True
        ):
            assert origin == step / 2
            assert abs(count * step - side) < step
    assert encoder.blocks()


@pytest.mark.parametrize("case", CASES)
def test_a_neighbour_changes_nothing(case: str) -> None:
    encoder = make(case)
    four, one = encoder(**batch(encoder, 4)), encoder(**batch(encoder, 1))
    for a, b in zip(leaves(four), leaves(one), strict=True):
        assert torch.allclose(a[:1], b, atol=1e-5)
        assert not torch.allclose(a[:1], a[1:2], atol=1e-3)  # and another picture does


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_every_parameter(case: str) -> None:
    encoder = make(case).train()
    for parameter in encoder.parameters():  # a branch that begins at zero hides those before it
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    sum((t * torch.randn_like(t)).sum() for t in leaves(encoder(**batch(encoder, 3)))).backward()
    lost = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not [n for n in lost if not n.startswith(UNUSED.get(case, ("-",)))]
    dead = [n for n, p in encoder.named_parameters() if p.grad is not None and not p.grad.any()]
    assert len(dead) < 3, dead  # a key's bias shifts all scores alike


@pytest.mark.parametrize("case", CASES)
def test_the_meta_device_gives_the_same_shapes(case: str) -> None:
    real = make(case)
    given = batch(real, 2)
    with torch.device("meta"):
        encoder = make(case)
    assert all(p.is_meta for p in encoder.parameters())
    found, want = encoder(**{k: v.to("meta") for k, v in given.items()}), real(**given)
    assert found.tokens.is_meta
    assert [t.shape for t in leaves(found)] == [t.shape for t in leaves(want)]
    assert (found.grid, found.step) == (want.grid, want.step)


@pytest.mark.parametrize("case", CASES)
def test_state_comes_back_from_safetensors(case: str, tmp_path: Path) -> None:
    encoder, path = make(case), tmp_path / "state.safetensors"
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, path)
    torch.manual_seed(1)
    other = kind(case)(**CASES[case][1]).eval()
    given = batch(encoder, 2)
    assert not torch.equal(other(**given).tokens, encoder(**given).tokens)
    other.load_state_dict(load_file(path))
    for a, b in zip(leaves(other(**given)), leaves(encoder(**given)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", CASES)
def test_processors_are_small_values(case: str) -> None:
    processor = make(case).processor
    first = processor.prepare(pictures(1)[0])
    data = pickle.dumps(processor)
    assert len(data) < 4000
    again = pickle.loads(data)
    assert json.loads(json.dumps(again.settings())) == json.loads(json.dumps(processor.settings()))
    for key, value in again.prepare(pictures(1)[0]).items():
        assert torch.equal(value, first[key])
    digit = read(np.eye(8, dtype=np.uint8) * 255)
    assert {k: v.shape for k, v in processor.prepare(digit).items() if v.ndim == 3} == {
        k: v.shape for k, v in first.items() if v.ndim == 3
    }


SHALLOW = ("frames", "open_clip vector")
DEEP = [c for c in CASES if "patches" not in c and c not in SHALLOW]


@pytest.mark.parametrize("case", DEEP)
def test_hidden_layers(case: str) -> None:
    encoder = make(case)
    given = batch(encoder, 2)
    assert "layers" in encoder.supports
    plain, deep = encoder(**given), encoder(**given, layers=(0, -1, -2))
    for a, b in zip(leaves(plain), leaves(deep), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(deep.layers) == 3
    again = encoder(**given, layers=(-2, -1))
    assert torch.equal(deep.layers[1].tokens, again.layers[1].tokens)
    assert torch.equal(deep.layers[2].tokens, again.layers[0].tokens)
    with pytest.raises(ValueError, match="layer 99"):
        encoder(**given, layers=(99,))


@pytest.mark.parametrize("case", ["timm ViT", "hf ViT"])
def test_layer_takes_the_tokens_of_a_hidden_layer(case: str) -> None:
    last, before = make(case), make(case.replace("ViT", "layer"))
    before.load_state_dict(last.state_dict())
    given = batch(last, 2)
    assert torch.equal(before(**given).tokens, last(**given, layers=(-2,)).layers[0].tokens)
