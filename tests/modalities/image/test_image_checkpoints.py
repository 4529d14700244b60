"""Checkpoints in the real formats of timm, open_clip and transformers, loaded to the bit."""

from __future__ import annotations

import json
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch.nn import functional as F

from sensorium.modalities.base import Encoder
from sensorium.modalities.image.encoders.open_clip import OpenClipVision
from sensorium.modalities.image.encoders.timm import Timm
from sensorium.modalities.image.encoders.transformers import TransformersVision
from sensorium.modalities.image.read import example

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
RESNET = {"vision_cfg": {"image_size": 64, "width": 8, "layers": [1, 1, 1, 1]}}
CONVNEXT = {"vision_cfg": {"timm_model_name": "test_convnext"}}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def pictures(count: int) -> list[Image.Image]:
    return [example(np.random.default_rng(i)) for i in range(count)]


def batch(encoder: Encoder, count: int) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(p) for p in pictures(count)])


def timm_folder(folder: Path, name: str, **options: Any) -> Any:
    model = timm.create_model(name, num_classes=5, **options).eval()
    save_for_hf(model, folder, model_args=options, safe_serialization=True)
    return model


def test_timm_local_dir(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = timm_folder(tmp_path, "vit_tiny_patch16_224", **VIT)
    section = {"name": f"local-dir:{tmp_path}"}
    assert Timm.has_pretrained_weights(section)
    resolved = Timm.resolve(section)
    json.dumps(resolved)
    encoder = Timm(**resolved).eval()
    encoder.load()
    inputs = batch(encoder, 2)
    want = model.forward_features(inputs["pixel_values"])
    assert torch.equal(encoder(**inputs).tokens, want[:, 1:])
    assert torch.equal(encoder(**inputs).pooled, want[:, 0])
    for p in tmp_path.glob("*.safetensors"):
        p.unlink()
    assert not Timm.has_pretrained_weights(section)


def clip_folder(folder: Path, name: str, options: dict[str, Any]) -> Any:
    config = open_clip.get_model_config(name)
    config.update({k: v for k, v in options.items() if k != "vision_cfg"})
    config["vision_cfg"].update(options.get("vision_cfg", {}))
    config["text_cfg"].update(width=32, heads=2, layers=1, vocab_size=64)
    steps = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize_mode": "squash"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": steps})
    (folder / "open_clip_config.json").write_text(text)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ViT-B-32", CLIP),
        ("RN50", RESNET),
        ("convnext_base", CONVNEXT),
    ],
)
def test_open_clip_local_dir(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = clip_folder(tmp_path, name, options)
    section = {"name": f"local-dir:{tmp_path}", "output": "embedding"}
    assert OpenClipVision.has_pretrained_weights(section)
    resolved = OpenClipVision.resolve(section)
    json.dumps(resolved)
    vector, tokens = OpenClipVision(**resolved), OpenClipVision(**{**resolved, "output": "tokens"})
    for encoder in (vector, tokens):
        encoder.eval().load()
    inputs = batch(vector, 2)
    want = model.encode_image(inputs["pixel_values"], normalize=True)
    assert torch.equal(F.normalize(vector(**inputs).pooled, dim=-1), want)
    features = tokens(**inputs)
    if name == "ViT-B-32":
        assert torch.allclose(features.pooled @ model.visual.proj, vector(**inputs).pooled)
        model.visual.output_tokens = True
        assert torch.equal(features.tokens, model.visual(inputs["pixel_values"])[1])
    assert tokens.dim == features.tokens.shape[2]


def test_open_clip_coca_gives_what_encode_image_gives(tmp_path: Path) -> None:
    options = {**CLIP, "vision_cfg": {**CLIP["vision_cfg"], "attn_pooler_heads": 4}}
    config = open_clip.get_model_config("coca_ViT-B-32")
    config["vision_cfg"].update(options["vision_cfg"])
    config["text_cfg"].update(width=32, heads=2, layers=1, vocab_size=64)
    config["multimodal_cfg"].update(width=24, heads=2, layers=1, vocab_size=64)
    config.pop("custom_text", None)
    model = open_clip.CoCa(**{**config, "embed_dim": 24}).eval()
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    text = json.dumps({"model_cfg": {**config, "embed_dim": 24}, "preprocess_cfg": {}})
    (tmp_path / "open_clip_config.json").write_text(text)
    encoder = OpenClipVision(f"local-dir:{tmp_path}", output="embedding").eval()
    encoder.load()
    inputs = batch(encoder, 2)
    want = model.encode_image(inputs["pixel_values"], normalize=True)
    assert torch.equal(F.normalize(encoder(**inputs).pooled, dim=-1), want)


TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def saved(kind: str, folder: Path) -> tuple[Any, Any]:
    """A tiny checkpoint of a family with its image processor, and its vision tower."""
    torch.manual_seed(3)
    size = {"height": 32, "width": 32}
    if kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**HF), add_pooling_layer=False)
        steps: Any = transformers.ViTImageProcessor(size=size)
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**HF))
        steps = transformers.BitImageProcessor(size={"shortest_edge": 36}, crop_size=size)
    elif kind == "clip":
        config = transformers.CLIPConfig(vision_config=HF, text_config=TEXT)
        model = transformers.CLIPModel(config)
        steps = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    else:
        config = transformers.Siglip2Config(vision_config=NAFLEX, text_config=TEXT)
        model = transformers.Siglip2Model(config)
        steps = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=20)
    model.save_pretrained(folder)
    steps.save_pretrained(folder)
    return steps, getattr(model, "vision_model", model).eval()


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("family", ["vit", "dinov2", "clip", "siglip2"])
def test_transformers_folder(family: str, tmp_path: Path) -> None:
    steps, tower = saved(family, tmp_path)
    section = {"name": str(tmp_path)}
    assert TransformersVision.has_pretrained_weights(section)
    resolved = TransformersVision.resolve(section)
    json.dumps(resolved)
    for options in (resolved, section, {"name": f"local-dir:{tmp_path}"}):
        encoder = TransformersVision(**options).eval()
        encoder.load()
        inputs = batch(encoder, 2)
        want = steps(images=pictures(2), return_tensors="pt")
        assert set(inputs) == set(want)
        for key, value in inputs.items():
            assert torch.equal(value, want[key])
        output = tower(**want)
        features = encoder(**inputs)
        skip = output.last_hidden_state.shape[1] - features.tokens.shape[1]
        assert skip == (0 if family == "siglip2" else 1)
        assert torch.equal(features.tokens, output.last_hidden_state[:, skip:])
        pooled = output.pooler_output
        pooled = output.last_hidden_state[:, 0] if pooled is None else pooled
        assert torch.equal(features.pooled, pooled)


def test_a_checkpoint_without_a_weight_is_refused(tmp_path: Path) -> None:
    saved("vit", tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if "layernorm.weight" not in k}
    save_file(weights, path, metadata={"format": "pt"})
    encoder = TransformersVision(str(tmp_path))
    with pytest.raises(ValueError, match="lacks 1 weights of ViTModel"):
        encoder.load()


def test_open_clip_without_preprocessing_says_what_is_taken(tmp_path: Path) -> None:
    """CLIP's mean and std stood in for those of a SigLIP that says none."""
    clip_folder(tmp_path, "ViT-B-32", CLIP)
    file = tmp_path / "open_clip_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({"model_cfg": config["model_cfg"]}))
    section = {"name": f"local-dir:{tmp_path}"}
    with pytest.warns(UserWarning, match=r"has no preprocess_cfg.*set options: \{preprocess_cfg"):
        resolved = OpenClipVision.resolve(section)
    assert resolved["options"]["preprocess_cfg"]["mean"] == open_clip.OPENAI_DATASET_MEAN
    steps = {"mean": [0.5] * 3, "std": [0.5] * 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolved = OpenClipVision.resolve({**section, "options": {"preprocess_cfg": steps}})
    assert resolved["options"]["preprocess_cfg"]["mean"] == [0.5] * 3
