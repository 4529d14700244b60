"""Image encoders beyond the common contract: where tokens lie, and which layer is read."""

from __future__ import annotations

import pytest
import torch
from encoder_cases import IMAGE, build, contract, encode, examples

from sensorium.modalities.image.read import read

FLAT = [name for name in IMAGE if name not in ("frames", "hf SigLIP 2", "pixels", "tokens")]


@pytest.mark.quick_share(6)
@pytest.mark.parametrize("name", FLAT)
def test_tokens_tile_the_image(name: str) -> None:
    encoder = build("image", name)
    raw = read(examples("image")[0])
    batch = encoder.collate([encoder.processor.prepare(raw)])
    features = encoder(**batch)
    assert features.mask.all() and encoder.blocks()
    if features.grid is None or features.spacing is None or features.origin is None:
        return
    if batch["pixel_values"].ndim != 4:
        return  # packed patches
    size = batch["pixel_values"].shape[2:]
    for count, step, origin, side in zip(
        features.grid, features.spacing, features.origin, size, strict=True
    ):
        assert origin == step / 2
        assert abs(count * step - side) < step


def test_patches_of_a_native_resolution_are_masked() -> None:
    case = contract("image", "hf SigLIP 2")
    batch = case.encoder.collate([case.encoder.processor.prepare(raw) for raw in case.raws])
    mask = batch["pixel_attention_mask"].bool()
    assert torch.equal(case.encoder(**batch).mask, mask) and not mask.all()


@pytest.mark.parametrize("name", ["timm ViT", "hf ViT"])
def test_layer_takes_the_tokens_of_a_hidden_layer(name: str) -> None:
    last, before = build("image", name), build("image", name.replace("ViT", "layer"))
    before.load_state_dict(last.state_dict())
    images = [read(cell) for cell in examples("image")]
    hidden = encode(last, images, hidden_states=(-2,)).hidden_states[0]
    assert torch.equal(encode(before, images).tokens, hidden.tokens)
