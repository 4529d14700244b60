"""Families of timm that differ in what they give: all end as tokens in the order of space."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sensorium.modalities.image.timm import Timm

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
    "convit_tiny": {"img_size": 64, "embed_dim": 12, "depth": 2, "num_heads": 2},
    "xcit_nano_12_p16_224": {**SMALL, "img_size": 64},
    "tnt_s_legacy_patch16_224": {"img_size": 64, "depth": 2},
    "naflexvit_base_patch16_gap": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    "mixer_s32_224": {"img_size": 64, "embed_dim": 32, "num_blocks": 2},
    "swin_tiny_patch4_window7_224": {**STAGES, "img_size": 64, "window_size": 2},
    "swinv2_cr_tiny_224": {**STAGES, "img_size": 64, "window_size": 2},
    "hiera_tiny_224": {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1},
    "mvitv2_tiny": {"img_size": 64},
    "twins_svt_small": {"img_size": 64, "depths": (1, 1, 1, 1)},
    "crossvit_9_240": {"img_size": 64},
    "pit_ti_224": {"img_size": 64},
    "levit_128s": {"img_size": 64},
    "coat_lite_tiny": {"img_size": 64},
    "volo_d1_224": {"img_size": 64, "layers": (1, 1, 1, 1), "embed_dims": (24, 48, 48, 48),
                    "num_heads": (2, 3, 3, 3)},
    "efficientformer_l1": {"img_size": 64},
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

LAST_IS_NOT_FINAL = {  # behind the last feature of these comes a further layer, without a name
    "convit_tiny",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    torch.manual_seed(0)
    encoder = Timm(name, FAMILIES[name]).eval()
    channels, *size = encoder.processor.input_size
    side = size if FAMILIES[name].get("img_size") else (96, 64)
    pixels = torch.randn(2, channels, *side)
    with torch.no_grad():
        features = encoder(pixels)
        deep = encoder(pixels, layers=(-1, 0))
        alone = encoder(pixels[:1])
    assert features.tokens.shape == (2, math.prod(features.grid or ()), encoder.dim)
    assert features.mask.all()
    assert features.pooled is None or features.pooled.shape == (2, encoder.dim)
    for count, step, origin, px in zip(
        features.grid, features.step, features.origin, side, strict=True
    ):
        assert abs(count * step - px) <= step
        assert origin == step / 2
    assert torch.allclose(features.tokens[:1], alone.tokens, atol=1e-5)
    assert torch.allclose(features.tokens, deep.tokens, atol=1e-5)
    assert [layer.tokens.shape[0] for layer in deep.layers] == [2, 2]
    assert encoder.blocks()
    norm = encoder.model.forward_intermediates
    try:
        last = norm(pixels, indices=[len(encoder.model.feature_info) - 1], norm=True,
                    intermediates_only=True)[0]
    except (AssertionError, TypeError):
        last = None
    if last is not None and last.shape[1] == encoder.dim:
        want = last.flatten(2).transpose(1, 2)
        print(name, (want - features.tokens).abs().max().item(), features.grid)
    else: print(name, "NA", features.grid)
