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
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch.nn import functional as F

from sensorium.modalities.base import Encoder, Features
from sensorium.modalities.image import ENCODERS
from sensorium.modalities.image.open_clip import OpenClipVision
from sensorium.modalities.image.read import example, read
from sensorium.modalities.image.timm import Timm
from sensorium.modalities.image.transformers import TransformersVision

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
    module, _, name = ENCODERS[CASES[case][0]].partition(":")
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
    assert {name for name, _ in CASES.values()} == set(ENCODERS)


@pytest.mark.parametrize("case", CASES)
def test_shapes_grid_and_mask(case: str) -> None:
    encoder = make(case)
    assert not kind(case).carries_weights(CASES[case][1]) or CASES[case][0] == "timm"
    given = batch(encoder, 3)
    features = encoder(**given)
    assert features.tokens.shape[::2] == (3, encoder.dim)
    assert features.pooled is None or features.pooled.shape == (3, encoder.dim)
    if case == "hf SigLIP 2":
        assert torch.equal(features.mask, given["pixel_attention_mask"].bool())
    else:
        assert features.mask.all()
    if features.grid is not None and features.step and features.origin:
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


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][0] != "patches"])
def test_hidden_layers(case: str) -> None:
    encoder = make(case)
    given = batch(encoder, 2)
    if "layers" not in encoder.offers:
        with pytest.raises(TypeError):
            encoder(**given, wrong=1)
        return
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


def timm_folder(folder: Path, name: str, **options: Any) -> Any:
    model = timm.create_model(name, num_classes=5, **options).eval()
    save_for_hf(model, folder, model_args=options, safe_serialization=True)
    return model


def test_timm_local_dir(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = timm_folder(tmp_path, "vit_tiny_patch16_224", **VIT)
    section = {"name": f"local-dir:{tmp_path}"}
    assert Timm.carries_weights(section)
    resolved = Timm.resolve(section)
    json.dumps(resolved)
    encoder = Timm(**resolved).eval()
    encoder.load()
    given = batch(encoder, 2)
    want = model.forward_features(given["pixel_values"])
    assert torch.equal(encoder(**given).tokens, want[:, 1:])
    assert torch.equal(encoder(**given).pooled, want[:, 0])
    for p in tmp_path.glob("*.safetensors"):
        p.unlink()
    assert not Timm.carries_weights(section)


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
        ("RN50", CASES["open_clip ResNet"][1]["options"]),
        ("convnext_base", CASES["open_clip timm"][1]["options"]),
    ],
)
def test_open_clip_local_dir(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = clip_folder(tmp_path, name, options)
    section = {"name": f"local-dir:{tmp_path}", "output": "embedding"}
    assert OpenClipVision.carries_weights(section)
    resolved = OpenClipVision.resolve(section)
    json.dumps(resolved)
    vector, tokens = OpenClipVision(**resolved), OpenClipVision(**{**resolved, "output": "tokens"})
    for encoder in (vector, tokens):
        encoder.eval().load()
    given = batch(vector, 2)
    want = model.encode_image(given["pixel_values"], normalize=True)
    assert torch.equal(F.normalize(vector(**given).pooled, dim=-1), want)
    features = tokens(**given)
    if name == "ViT-B-32":
        assert torch.allclose(features.pooled @ model.visual.proj, vector(**given).pooled)
        model.visual.output_tokens = True
        assert torch.equal(features.tokens, model.visual(given["pixel_values"])[1])
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
    given = batch(encoder, 2)
    want = model.encode_image(given["pixel_values"], normalize=True)
    assert torch.equal(F.normalize(encoder(**given).pooled, dim=-1), want)


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


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip", "siglip2"])
def test_transformers_folder(family: str, tmp_path: Path) -> None:
    steps, tower = saved(family, tmp_path)
    section = {"name": str(tmp_path)}
    assert TransformersVision.carries_weights(section)
    resolved = TransformersVision.resolve(section)
    json.dumps(resolved)
    for options in (resolved, section, {"name": f"local-dir:{tmp_path}"}):
        encoder = TransformersVision(**options).eval()
        encoder.load()
        given = batch(encoder, 2)
        want = steps(images=pictures(2), return_tensors="pt")
        assert set(given) == set(want)
        for key, value in given.items():
            assert torch.equal(value, want[key])
        output = tower(**want)
        features = encoder(**given)
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


def test_registers_and_leading_tokens_are_dropped() -> None:
    """Tokens of a picture that is shifted by whole patches are those of its neighbours."""
    encoder = make("hf DINOv3")
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[..., 8:16, 16:24] = 3.0
    embedding = encoder.model.embeddings(pixels)[:, 1 + 2 :]  # [1, 16, D], without CLS, registers
    bright = (embedding - embedding.mean(1, keepdim=True)).norm(dim=2).argmax()
    assert int(bright) == 1 * 4 + 2
    assert encoder(pixels).grid == (4, 4)


def test_taps_and_token_masks_of_a_plain_vit() -> None:
    torch.manual_seed(0)
    encoder = Timm("vit_tiny_patch16_224", VIT, mask_token=True).eval()
    assert encoder.offers == {"layers", "taps", "token_mask"}
    given = batch(encoder, 2)
    plain, seen = encoder(**given), []

    def look(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((tokens, mask))
        return tokens

    assert torch.equal(encoder(**given, taps={1: look}).tokens, plain.tokens)
    layer = encoder(**given, layers=(1,)).layers[0]
    assert torch.equal(seen[0][0], layer.tokens)
    assert torch.equal(seen[0][1], layer.mask)
    zeroed = encoder(**given, taps={-1: lambda tokens, mask: tokens * 0})
    assert zeroed.tokens.std(1).max() < 1e-6
    assert torch.equal(encoder(**given).tokens, plain.tokens)  # no hook stays behind

    mask = torch.zeros(2, 16, dtype=torch.bool)
    assert torch.equal(encoder(**given, token_mask=mask).tokens, plain.tokens)
    mask[:, 5] = True
    other = given["pixel_values"].clone()
    other[:, :, 8:16, 8:16] = 7.0  # the patch of token 5
    hidden = encoder(**given, token_mask=mask)
    assert torch.equal(hidden.tokens, encoder(other, token_mask=mask).tokens)
    hidden.tokens.square().sum().backward()
    assert encoder.mask_token is not None
    assert encoder.mask_token.grad is not None


def test_patches_are_a_convolution_and_their_positions_stretch() -> None:
    encoder = make("patches")
    pixels = torch.randn(2, 3, 32, 32)
    want = F.conv2d(pixels, encoder.patch.weight, encoder.patch.bias, stride=8) + encoder.position
    want = F.layer_norm(want.flatten(2).transpose(1, 2), (24,))
    assert torch.allclose(encoder(pixels).tokens, want, atol=1e-5)
    larger = encoder(torch.randn(1, 3, 64, 48))
    assert larger.grid == (8, 6)


MISTAKES: dict[str, tuple[Any, str]] = {
    "a misspelt timm model": (lambda: Timm("resnet81"), "did you mean.*resnet"),
    "a bare path": (lambda: Timm("org/model"), "hf-hub:org/model"),
    "an unresolved hub name": (lambda: Timm("hf-hub:org/model"), "is not resolved"),
    "weights as an option": (lambda: Timm("test_vit", {"pretrained": True}), "weights: pretrained"),
    "a wrong transform": (lambda: Timm("test_vit", transform={"crop": 1}), "crop_pct"),
    "five channels": (lambda: Timm("test_vit", {"in_chans": 5}), "takes 5 channels"),
    "a mask token of a convolution": (lambda: Timm("test_resnet", mask_token=True), "plain ViT"),
    "a misspelt open_clip model": (lambda: OpenClipVision("ViT-B-23"), "did you mean.*ViT-B"),
    "a wrong tag": (lambda: OpenClipVision("ViT-B-32:openia"), "has no weights 'openia'"),
    "the wrong activation": (lambda: OpenClipVision("ViT-B-32:openai"), "quickgelu:openai"),
    "a wrong open_clip option": (lambda: OpenClipVision("ViT-B-32", {"layers": 1}), "vision_cfg"),
    "an empty folder": (lambda: OpenClipVision("local-dir:."), "open_clip_config.json"),
    "nothing named": (lambda: TransformersVision(), "neither a name nor a config"),
    "an unknown model_type": (lambda: TransformersVision(config={"model_type": "vti"}), "vti"),
    "a model of text": (lambda: TransformersVision(config={"model_type": "bert"}), "BertModel"),
    "no such folder": (lambda: TransformersVision("./nowhere"), "nowhere has no configuration"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_clear_line(name: str) -> None:
    build, why = MISTAKES[name]
    with pytest.raises(ValueError, match=why) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_a_model_that_hides_patches_is_refused() -> None:
    encoder = TransformersVision(config={"model_type": "vit_mae", **HF})
    with pytest.raises(ValueError, match="ViTMAEModel gives 5 tokens"):
        encoder(torch.zeros(1, 3, 32, 32))
