"""Families of timm that differ in what they give: all end as tokens in the order of space."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch

from sensorium.modalities.image.encoders import timm_features
from sensorium.modalities.image.encoders.timm import Timm

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
STAGES = {"depths": (1, 1, 1, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8)}

FAMILIES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {**SMALL, "img_size": 64},
    "vit_small_patch14_reg4_dinov2": {**SMALL, "img_size": 56},
    "vit_medium_patch16_reg4_gap_256": {**SMALL, "img_size": 64},
    "vit_base_patch16_siglip_224": {**SMALL, "img_size": 64},
    "vit_small_patch16_dinov3": {**SMALL, "img_size": 64},
    "deit_tiny_distilled_patch16_224": {**SMALL, "img_size": 64},
    "beit_base_patch16_224": {**SMALL, "img_size": 64},
    "eva02_tiny_patch14_224": {**SMALL, "img_size": 56},
    "cait_xxs24_224": {**SMALL, "img_size": 64},
    "convit_tiny": {"img_size": 64, "embed_dim": 12, "num_heads": 2},
    "xcit_nano_12_p16_224": {**SMALL, "img_size": 64},
    "tnt_s_legacy_patch16_224": {"img_size": 64, "depth": 2},
    "naflexvit_base_patch16_gap": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    "mixer_s32_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {**STAGES, "img_size": 64, "window_size": 2},
    "swinv2_cr_tiny_224": {**STAGES, "img_size": 64, "window_size": 2},
    "hiera_tiny_224": {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1},
    "mvitv2_tiny": {"img_size": 64},
    "twins_svt_small": {"img_size": 64, "depths": (1, 1, 1, 1)},
    "crossvit_9_240": {"img_size": 120},
    "pit_ti_224": {"img_size": 64},
    "levit_128s": {"img_size": 64},
    "coat_lite_tiny": {"img_size": 64},
    "volo_d1_224": {"img_size": 64},
    "efficientformer_l1": {"global_pool": "avg"},
    "sequencer2d_s": {"img_size": 56, "layers": (1, 1, 1, 1)},
    "efficientvim_m1": {},
    "mambaout_femto": {},
    "test_resnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "test_nfnet": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "vgg11": {},
    "poolformer_s12": {},
    "edgenext_xx_small": {},
    "ghostnet_050": {},
}

FIXED = ("efficientformer_l1",)
"""Take their own size alone, and no `img_size`."""

NOT_LAST = ("ghostnet_050", "hiera_tiny_224", "test_efficientnet", "test_nfnet")
"""A convolution follows on the last of the hidden layers, or the final norm is in the head."""


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    torch.manual_seed(0)
    encoder = Timm(name, FAMILIES[name]).eval()
    channels, *size = encoder.processor.settings()["input_size"]
    side = size if "img_size" in FAMILIES[name] or name in FIXED else (96, 64)
    pixels = torch.randn(2, channels, *side)
    with torch.no_grad():
        features, alone = encoder(pixels), encoder(pixels[:1])
        deep = encoder(pixels, hidden_states=(-1, 0))
    grid, step, origin = features.grid, features.spacing, features.origin
    assert grid and step and origin
    assert features.tokens.shape == (2, math.prod(grid), encoder.dim)
    assert features.mask.all()
    assert features.pooled is None or features.pooled.shape == (2, encoder.dim)
    assert all(abs(g * s - px) <= s for g, s, px in zip(grid, step, side, strict=True))
    assert origin == tuple(s / 2 for s in step)
    assert torch.allclose(features.tokens[:1], alone.tokens, atol=5e-5)
    assert torch.allclose(features.tokens, deep.tokens, atol=5e-5)
    assert [layer.tokens.shape[0] for layer in deep.hidden_states] == [2, 2]
    assert encoder.blocks()


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in NOT_LAST])
def test_tokens_lie_in_the_order_of_space(name: str) -> None:
    """They are the cells of the map that timm itself makes of its last layer."""
    torch.manual_seed(0)
    encoder = Timm(name, FAMILIES[name]).eval()
    channels, *size = encoder.processor.settings()["input_size"]
    pixels = torch.randn(1, channels, *size)
    last = [len(encoder.model.feature_info) - 1]
    with torch.no_grad():
        (want,) = encoder.model.forward_intermediates(
            pixels, indices=last, norm=True, intermediates_only=True
        )
        features = encoder(pixels)
    assert features.grid == tuple(want.shape[2:])
    assert torch.allclose(features.tokens, want.flatten(2).transpose(1, 2), atol=1e-4)


def test_hiera_is_put_in_the_order_of_space() -> None:
    """Its own sequence follows mask units: with fewer poolings than stages, not row by row."""
    torch.manual_seed(0)
    options = {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 1), "num_heads": 1, "q_pool": 1}
    encoder = Timm("hiera_tiny_224", options).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = encoder(pixels)
        _, (want,) = encoder.model.forward_intermediates(pixels, indices=[2])
        jumbled = encoder.model.forward_features(pixels)
    assert features.grid == (8, 8)
    assert torch.equal(features.tokens, want.flatten(2).transpose(1, 2))
    assert not torch.equal(features.tokens, jumbled)


NO_PARAMETERS_BEHIND_STAGES = (
    "nasnetalarge",
    "pnasnet5large",
    "vgg11",
    "vgg11_bn",
    "legacy_xception",
    "test_resnet",
    "test_vit",
)


@pytest.mark.parametrize("name", NO_PARAMETERS_BEHIND_STAGES)
def test_every_block_has_something_to_train(name: str) -> None:
    """What timm hooks is an activation or a pooling in some networks: `freeze: {last: 1}` would
    train nothing there."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    blocks = timm_features.blocks(model)
    assert len(blocks) > 1
    assert all(any(True for _ in block.parameters()) for block in blocks)
    inner = set(model.modules())
    assert all(block in inner for block in blocks)


def test_a_grid_of_equal_count_has_positions_of_its_own() -> None:
    """16 tokens as 2 x 8 and as 4 x 4: the table is resampled for the second."""
    options = {"img_size": [32, 128], "dynamic_img_size": True, "depth": 1}
    encoder = Timm("vit_tiny_patch16_224", options).eval()
    torch.nn.init.normal_(encoder.model.pos_embed)
    with torch.no_grad():
        wide, square = (encoder(torch.zeros(1, 3, *size)) for size in ((32, 128), (64, 64)))
    assert (wide.grid, square.grid) == ((2, 8), (4, 4))
    assert not torch.allclose(wide.tokens, square.tokens, atol=1e-3)
