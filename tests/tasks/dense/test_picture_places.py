"""Where prepared pixels lie in the picture that was read: for every transform, and behind moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sensorium.engine.data.dataset import StreamReader
from sensorium.modalities.base import TO_SOURCE, Encoder, Features, Processor, Sample
from sensorium.modalities.groups import collate
from sensorium.modalities.image.augment import ImageAugment
from sensorium.modalities.image.mask import Mask
from sensorium.modalities.image.processor import HubProcessor, OpenClipProcessor, TimmProcessor
from sensorium.tasks.common.crops import Crop

SIDES = [(60, 100), (100, 60), (37, 37), (300, 41), (64, 64)]
PLAIN = {"do_rescale": True, "do_normalize": False}


def timm(mode: str, share: float, size: tuple[int, int] = (48, 48)) -> Processor:
    return TimmProcessor((3, *size), crop_pct=share, crop_mode=mode)


def open_clip(mode: str, size: tuple[int, int] = (48, 48)) -> Processor:
    return OpenClipProcessor(size, (0.5,) * 3, (0.5,) * 3, "bicubic", mode, 0)


def hub(kind: str, **options: Any) -> Processor:
    return HubProcessor(kind, {**PLAIN, **options})


PROCESSORS = {
    **{f"timm {m} {p}": timm(m, p) for m in ("center", "border", "squash") for p in (0.8, 1.0)},
    **{f"timm wide {mode}": timm(mode, 0.9, (32, 64)) for mode in ("center", "border", "squash")},
    **{f"open_clip {mode}": open_clip(mode) for mode in ("shortest", "longest", "squash")},
    "open_clip wide": open_clip("shortest", (32, 64)),
    "grey": TimmProcessor((1, 48, 48), (0.5,), (0.5,), crop_mode="center", crop_pct=0.9),
    "vit": hub("ViTImageProcessor", size={"height": 48, "width": 48}),
    "clip": hub(
        "CLIPImageProcessor",
        size={"shortest_edge": 56},
        crop_size={"height": 48, "width": 48},
    ),
    "clip of pillow": hub(
        "CLIPImageProcessorPil",
        size={"shortest_edge": 40},
        crop_size={"height": 47, "width": 47},
    ),
    "bit": hub("BitImageProcessor", size={"shortest_edge": 48}, do_center_crop=False),
    "convnext": hub("ConvNextImageProcessor", size={"shortest_edge": 48}, crop_pct=0.8),
    "detr": hub("DetrImageProcessor", size={"shortest_edge": 48, "longest_edge": 80}),
}


def spotted(size: tuple[int, int], place: tuple[float, float]) -> Image.Image:
    """A dark picture with a soft spot."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    width = max(size) / 16
    spot = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * width**2))
    return Image.fromarray(np.repeat((spot * 255).astype(np.uint8)[..., None], 3, -1))


def located(sample: Sample) -> np.ndarray:
    """Return the place of the brightest pixel of a sample in the source."""
    plane = sample["pixel_values"].mean(0)
    index = (plane >= plane.max() - 1e-3).nonzero().double().mean(0) + 0.5
    matrix = sample[TO_SOURCE].double()
    return (matrix[:2, :2] @ index + matrix[:2, 2]).numpy()


def prepared(processor: Processor, picture: Image.Image) -> Sample:
    return StreamReader(lambda cell: cell, processor).prepare(picture)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIDES)
@pytest.mark.quick_share(4)
def test_spots_lie_where_the_matrix_says(name: str, size: tuple[int, int]) -> None:
    for share in ((0.5, 0.5), (0.48, 0.52)):
        place = (share[0] * size[0], share[1] * size[1])
        sample = prepared(PROCESSORS[name], spotted(size, place))
        if TO_SOURCE not in sample:
            assert name in ("convnext", "detr")  # refused where boxes or masks need it
            continue
        pixel = np.abs(np.diagonal(sample[TO_SOURCE].numpy())[:2])
        assert (np.abs(located(sample) - place) <= 1.01 * np.maximum(pixel, 1)).all()


@pytest.mark.parametrize("options", [{"flip": True}, {"shift": 0.1, "scale": 0.2}, {"rotate": 40}])
@pytest.mark.parametrize("processor", [timm("center", 0.9), timm("squash", 1.0, (32, 64))])
def test_augmented_spots_lie_where_the_matrix_says(
    options: dict[str, Any], processor: Processor
) -> None:
    augment, place = ImageAugment(**options), (33.0, 42.0)
    sample = prepared(processor, spotted((60, 80), place))
    for seed in range(6):
        moved = augment(sample, np.random.default_rng(seed))
        assert np.abs(located(moved) - place).max() < 3
    assert torch.equal(sample[TO_SOURCE], prepared(processor, spotted((60, 80), place))[TO_SOURCE])


def test_cropped_spots_lie_where_the_matrix_says() -> None:
    place = (30.0, 40.0)
    sample = prepared(timm("center", 1.0), spotted((60, 80), place))
    for seed in range(4):
        crop = Crop((40, 40), (0.8, 1.0))(sample, np.random.default_rng(seed))
        assert np.abs(located(crop) - place).max() < 2


class Plain(Encoder):
    """Knows of no matrix."""

    dim = 3
    processor = timm("center", 1.0)

    def collate(self, samples: Any) -> dict[str, Tensor]:
        assert all(set(sample) == {"pixel_values"} for sample in samples)
        return super().collate(samples)

    def forward(self, pixel_values: Tensor) -> Features:
        tokens = pixel_values.flatten(2).mT
        layer = Features.dense(tokens)
        return Features.dense(
            tokens, grid=tuple(pixel_values.shape[2:]), spacing=(1.0, 1.0), origin=(0.5, 0.5),
            hidden_states=(layer,),
        )  # fmt: skip


def test_an_encoder_does_not_have_to_know_of_the_matrix() -> None:
    samples = [prepared(Plain.processor, spotted(size, (20, 20))) for size in SIDES[:2]]
    features = Plain()(**collate(Plain(), samples))
    assert torch.equal(features.affine, torch.stack([s[TO_SOURCE] for s in samples]))
    assert torch.equal(features.hidden_states[0].affine, features.affine)
    assert Plain()(samples[0]["pixel_values"][None]).affine is None


def test_a_mask_covers_the_tokens_of_its_object_behind_any_transform() -> None:
    from sensorium.tasks.common import mask_coverage

    masks = Mask()
    for name in ("timm center 0.8", "timm border 1.0", "timm squash 0.8", "open_clip shortest"):
        picture = np.zeros((60, 100, 3), np.uint8)
        picture[20:44, 44:60] = 255
        sample = prepared(PROCESSORS[name], Image.fromarray(picture))
        for seed in range(3):
            augment = ImageAugment(flip=True, shift=0.1)
            moved = augment(sample, np.random.default_rng(seed))
            features = Plain()(**collate(Plain(), [moved]))
            mask = masks(**collate(masks, [masks.processor.prepare(picture[..., 0] > 0)]))
            coverage = mask_coverage(mask, features, "test")[0]
            bright = (features.tokens[0].mean(-1) > 0.3).float()
            assert float((coverage - bright).abs().mean()) < 0.03
