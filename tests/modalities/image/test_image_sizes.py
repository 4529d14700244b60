"""Vision models of transformers at another picture size than their checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoModel

from sensorium.modalities.image.encoders.position_tables import resize
from sensorium.modalities.image.encoders.transformers import TransformersVision

PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
SAM = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_dim": 64,
    "image_size": 32,
    "patch_size": 8,
    "output_channels": 16,
    "window_size": 2,
    "global_attn_indexes": [1],
}
PVT = {
    "image_size": 32,
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "patch_sizes": [4, 2, 2, 2],
}
MODELS: dict[str, tuple[dict[str, Any], bool]] = {  # whether transformers interpolates
    "vit": (PLAIN, True),
    "siglip_vision_model": (PLAIN, True),
    "clip_vision_model": (PLAIN, True),
    "dinov2": (PLAIN, True),
    "aimv2_vision_model": (PLAIN, False),
    "sam_vision_model": (SAM, False),
    "pvt": (PVT, False),
}


def checkpoint(folder: Path, kind: str) -> str:
    model = AutoModel.from_config(AutoConfig.for_model(kind, **MODELS[kind][0]))
    for name, parameter in model.named_parameters():
        if "position" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def loaded(name: str, **options: Any) -> TransformersVision:
    encoder = TransformersVision(**TransformersVision.resolve({"name": name, **options})).eval()
    encoder.load()
    return encoder


@pytest.mark.quick_share(9)
@pytest.mark.parametrize("kind", MODELS)
def test_a_larger_picture_gives_a_larger_grid(tmp_path: Path, kind: str) -> None:
    """By the processor's size alone, or with the size in the configuration: the same tokens; at
    its own size, those of the checkpoint."""
    name = checkpoint(tmp_path, kind)
    size = {"height": 64, "width": 64}
    one = loaded(name, processor={"size": size})
    two = loaded(name, processor={"size": size}, config={"image_size": 64})
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        first, second, small = one(pixels), two(pixels), loaded(name)(pixels[..., :32, :32])
    assert first.grid == second.grid == tuple(2 * side for side in small.grid)
    assert torch.allclose(first.tokens, second.tokens, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind, (_, able) in MODELS.items() if not able])
def test_a_picture_that_is_not_square_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    name = checkpoint(tmp_path, kind)
    with pytest.raises(ValueError, match=r"processor\.size: found \(48, 64\), expected a square"):
        loaded(name, processor={"size": {"height": 48, "width": 64}})


def test_weights_that_are_no_positions_are_never_resized(tmp_path: Path) -> None:
    name = checkpoint(tmp_path, "vit")
    with pytest.raises(ValueError, match=r"has .*, the config builds .*; take out of config"):
        loaded(name, config={"intermediate_size": 128})
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["image_size"] == 32
    assert resize(torch.zeros(64, 32), (128, 32), (32, 32), (32, 32)) is None
    assert resize(torch.zeros(64, 32), (64, 64), (32, 32), (64, 64)) is None


def test_an_unchanged_size_leaves_a_table_as_it_is() -> None:
    for shape in ((1, 17, 4), (16, 4), (1, 4, 4, 4)):
        table = torch.randn(shape)
        same = resize(table, shape, (32, 32), (32, 32))
        assert same is not None and torch.allclose(same, table, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_a_configuration_that_lists_sides_keeps_doing_so(size: tuple[int, int]) -> None:
    """YOLOS's refuses a single number."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": "yolos", "intermediate_size": 16, "image_size": [32, 32], **shape}
    sides = {"height": size[0], "width": size[1]}
    encoder = TransformersVision(
        config=config, processor={"image_processor_type": "ViTImageProcessor", "size": sides}
    )
    sample = encoder.processor.prepare(Image.new("RGB", (50, 40)))
    assert encoder(**encoder.collate([sample])).grid == (size[0] // 16, size[1] // 16)
