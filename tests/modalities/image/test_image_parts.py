"""What is particular to one image encoder, and what each says to a mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.image.encoders.open_clip import OpenClipVision
from sensorium.modalities.image.encoders.patches import Patches
from sensorium.modalities.image.encoders.timm import Timm
from sensorium.modalities.image.encoders.transformers import TransformersVision

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
HF = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
CLIP = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 1}}
PIXELS = torch.zeros(1, 3, 32, 32)


def test_registers_and_the_class_token_are_no_patches() -> None:
    config = {"model_type": "dinov3_vit", "num_register_tokens": 2, **HF}
    encoder = TransformersVision(config=config).eval()
    pixels = torch.randn(2, 3, 32, 32)
    hidden, features = encoder.model(pixels).last_hidden_state, encoder(pixels)
    assert hidden.shape[1] == 1 + 2 + 16
    assert torch.equal(features.tokens, hidden[:, 3:])
    assert features.pooled is not None
    assert torch.equal(features.pooled, hidden[:, 0])


@pytest.mark.parametrize(
    ("part", "name", "carries"),
    [
        (Timm, "resnet18.a1_in1k", True),
        (Timm, "hf-hub:org/model", True),
        (Timm, "local-dir:nowhere", False),
        (OpenClipVision, "ViT-B-32", False),
        (OpenClipVision, "ViT-B-32:laion2b_s34b_b79k", True),
        (OpenClipVision, "hf-hub:org/model", True),
        (TransformersVision, "org/model@main", True),
        (TransformersVision, ".", False),
        (TransformersVision, "", False),
    ],
)
def test_names_say_whether_they_carry_weights(part: Any, name: str, carries: bool) -> None:
    assert part.has_pretrained_weights({"name": name}) is carries


def test_taps_and_token_masks_of_a_plain_vit() -> None:
    torch.manual_seed(0)
    encoder = Timm("vit_tiny_patch16_224", VIT, mask_token=True).eval()
    assert encoder.supports == {"hidden_states", "layer_hooks", "targets", "token_mask"}
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
    plain, seen = encoder(**inputs), []

    def look(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((tokens, mask))
        return tokens

    assert torch.equal(encoder(**inputs, layer_hooks={1: look}).tokens, plain.tokens)
    layer = encoder(**inputs, hidden_states=(1,)).hidden_states[0]
    assert torch.equal(seen[0][0], layer.tokens)
    assert torch.equal(seen[0][1], layer.mask)
    zeroed = encoder(**inputs, layer_hooks={-1: lambda tokens, mask: tokens * 0})
    assert zeroed.tokens.std(1).max() < 1e-6
    assert torch.equal(encoder(**inputs).tokens, plain.tokens)  # no hook stays behind

    mask = torch.zeros(2, 16, dtype=torch.bool)
    assert torch.equal(encoder(**inputs, token_mask=mask).tokens, plain.tokens)
    mask[:, 5] = True
    other = inputs["pixel_values"].clone()
    other[:, :, 8:16, 8:16] = 7.0  # the patch of token 5
    hidden = encoder(**inputs, token_mask=mask)
    assert torch.equal(hidden.tokens, encoder(other, token_mask=mask).tokens)
    hidden.tokens.square().sum().backward()
    assert encoder.mask_token is not None
    assert encoder.mask_token.grad is not None


def test_patches_are_a_convolution_and_their_positions_stretch() -> None:
    encoder = Patches(32, 8, 24).eval()
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
    "layers of a vector": (
        lambda: OpenClipVision("ViT-B-32", CLIP, output="embedding")(PIXELS, hidden_states=(0,)),
        "output: tokens",
    ),
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


def test_a_masked_autoencoder_shows_every_patch_in_order() -> None:
    """Equal to the library's model where nothing is masked and the noise keeps the order."""
    encoder = TransformersVision(config={"model_type": "vit_mae", **HF}).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features, again = encoder(pixels), encoder(pixels)
        noise = torch.arange(16.0)[None]
        expected = encoder.model(pixels, noise=noise).last_hidden_state[:, 1:]
    assert features.grid == (4, 4)
    assert torch.equal(features.tokens, again.tokens)
    assert torch.equal(features.tokens, expected)
