"""Preprocessing equals that of the library which the weights belong to, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import create_transform, resolve_data_config

from sensorium.modalities.image.encoders.open_clip import OpenClipVision
from sensorium.modalities.image.encoders.timm import Timm
from sensorium.modalities.image.encoders.transformers import TransformersVision
from sensorium.modalities.image.processor import HubProcessor, TimmProcessor

SIZES = [(8, 8), (300, 200), (190, 301), (224, 224), (31, 700)]
RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]

TIMM = [
    "vit_tiny_patch16_224",
    "resnet18.a1_in1k",
    "convnext_atto",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch16_siglip_224",  # squashes
    "efficientnet_b0",
    "test_vit",
]


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    with torch.device("meta"):
        model, encoder = timm.create_model(name), Timm(name)
    want = create_transform(**resolve_data_config({}, model=model))
    for picture in PICTURES:
        assert torch.equal(encoder.processor.prepare(picture)["pixel_values"], want(picture))


def test_timm_at_the_size_of_the_built_model() -> None:
    with torch.device("meta"):
        encoder = Timm("vit_tiny_patch16_224", {"img_size": [32, 48], "patch_size": 8})
    assert encoder.processor.prepare(PICTURES[1])["pixel_values"].shape == (3, 32, 48)
    assert encoder.processor.settings()["mean"] == (0.5, 0.5, 0.5)


def test_timm_grey_and_changed_settings() -> None:
    with torch.device("meta"):
        grey = Timm("resnet18", {"in_chans": 1})
        whole = Timm("test_vit", transform={"crop_pct": 1.0, "crop_mode": "squash"})
    pixels = grey.processor.prepare(PICTURES[1])["pixel_values"]
    assert pixels.shape == (1, 224, 224)
    mean, std = np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])
    plain = create_transform(
        (1, 224, 224),
        mean=(0,),
        std=(1,),
        interpolation="bicubic",
        crop_pct=grey.processor.settings()["crop_pct"],
    )
    assert torch.allclose(pixels, (plain(PICTURES[1].convert("L")) - mean) / std, atol=1e-5)
    assert whole.processor.settings()["crop_mode"] == "squash"
    red = Image.new("RGB", (40, 20), "white")
    red.paste("red", (0, 0, 1, 20))  # the border survives: nothing is cropped away
    assert whole.processor.prepare(red)["pixel_values"][1, :, 0].max() < 1.0


CLIP = [
    "ViT-B-32:openai",
    "ViT-B-32:laion2b_s34b_b79k",
    "ViT-B-16-SigLIP:webli",
    "ViT-L-14-CLIPA-336:datacomp1b",
    "EVA02-B-16:merged2b_s8b_b131k",
]


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", CLIP)
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clip(name: str, mode: str) -> None:
    base, _, tag = name.partition(":")
    steps = open_clip.get_pretrained_cfg(base, tag)
    base = f"{base}-quickgelu" if steps.get("quick_gelu") else base
    changes = {"preprocess_cfg": {"resize_mode": mode}}
    with torch.device("meta"):
        encoder = OpenClipVision(f"{base}:{tag}", changes)
    remaining = {k: v for k, v in steps.items() if k in PreprocessCfg.__dataclass_fields__}
    size = open_clip.get_model_config(base)["vision_cfg"].get("image_size", 224)
    config = PreprocessCfg(**{**remaining, "size": size, "resize_mode": mode})
    want = image_transform_v2(config, is_train=False)
    for picture in PICTURES:
        assert torch.equal(encoder.processor.prepare(picture)["pixel_values"], want(picture))


HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": {"height": 40, "width": 32}}),
    "vit on Pillow": ("ViTImageProcessorPil", {"size": {"height": 40, "width": 32}}),
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": 32}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}}),
    "siglip2": ("Siglip2ImageProcessor", {"patch_size": 8, "max_num_patches": 20}),
}


@pytest.mark.parametrize("name", HUB)
def test_transformers(name: str) -> None:
    kind, options = HUB[name]
    ours, theirs = HubProcessor(kind, options), getattr(transformers, kind)(**options)
    for picture in PICTURES[:4]:
        want = theirs(images=picture, return_tensors="pt")
        sample = ours.prepare(picture)
        assert set(sample) == set(want)
        assert all(torch.equal(sample[key], want[key][0]) for key in want)


@pytest.mark.slow
def test_transformers_without_a_checkpoint_prepares_at_the_models_size() -> None:
    def shape(**config: Any) -> torch.Size:
        with torch.device("meta"):
            encoder = TransformersVision(config=config)
        return encoder.processor.prepare(PICTURES[1])["pixel_values"].shape

    assert shape(model_type="vit", image_size=48) == (3, 48, 48)
    assert shape(model_type="clip", vision_config={"image_size": 64}) == (3, 64, 64)
    naflex = {"num_patches": 25, "patch_size": 8}
    assert shape(model_type="siglip2_vision_model", **naflex) == (25, 192)


def test_an_unknown_image_processor_is_named() -> None:
    with pytest.raises(ValueError, match="no image processor 'NoProcessor'"):
        HubProcessor("NoProcessor").prepare(PICTURES[0])


def test_a_picture_is_squashed_by_default_where_there_are_no_weights() -> None:
    picture = Image.new("RGB", (100, 20), "white")
    picture.paste("black", (0, 0, 50, 20))
    pixels = TimmProcessor((3, 32, 32)).prepare(picture)["pixel_values"]
    assert pixels[:, :, :14].max() < -0.9
    assert pixels[:, :, 18:].min() > 0.9
