"""Clips: reading, resampling, and a token a frame whatever the encoder of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from encoder_cases import build
from PIL import Image

from sensorium.modalities.base import ReadError
from sensorium.modalities.image.encoders.video_frames import Frames
from sensorium.modalities.image.preview import preview
from sensorium.modalities.image.read import read
from sensorium.modalities.image.video_clip import Clip
from sensorium.testing.common import copy_for_worker

PATCHES = {"type": "patches", "size": 16, "patch_size": 8, "dim": 12}
TIMM = {
    "type": "timm",
    "name": "vit_tiny_patch16_224",
    "options": {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3},
}


def clip(frames: int, fps: float = 25.0) -> Clip:
    rng = np.random.default_rng(frames)
    return Clip(rng.integers(0, 256, (frames, 20, 24, 3), dtype=np.uint8), fps)


class Drawn:
    """Frames that are made when they are asked for."""

    fps = 10.0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return clip(3).frames


def test_what_says_its_rate_is_a_clip() -> None:
    known = clip(3)
    assert read(known).fps == 25 and np.array_equal(read(known).frames, known.frames)
    cell = read({"frames": known.frames, "fps": 5})
    assert cell.fps == 5 and np.array_equal(cell.frames, known.frames)
    assert read(Drawn()).fps == 10 and np.array_equal(read(Drawn()).frames, known.frames)
    assert isinstance(read(known.frames[0]), Image.Image)
    assert preview(known).startswith("<img") and preview(clip(40)).startswith("<img")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"frames": np.zeros((0, 4, 4, 3), np.uint8), "fps": 25}, "at least one frame"),
        ({"frames": np.zeros((2, 4, 4), np.uint8), "fps": 25}, r"\[T, H, W, 3\]"),
        ({"frames": np.zeros((2, 4, 4, 3)), "fps": 25}, "float64"),
        ({"frames": np.zeros((2, 4, 4, 3), np.uint8)}, "None frames a second"),
        ({"frames": np.zeros((2, 4, 4, 3), np.uint8), "fps": 0}, "0 frames a second"),
    ],
)
def test_other_clips_are_refused(cell: dict[str, Any], words: str) -> None:
    with pytest.raises(ReadError, match=words):
        read(cell)


def test_another_rate_shows_the_frame_of_each_moment() -> None:
    known = Clip(np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, 3), 10.0)
    assert known.at(10.0)[:, 0, 0, 0].tolist() == list(range(10))
    assert known.at(5.0)[:, 0, 0, 0].tolist() == [1, 3, 5, 7, 9]
    assert known.at(20.0)[:, 0, 0, 0].tolist() == [i // 2 for i in range(20)]


@pytest.mark.parametrize("section", [PATCHES, TIMM], ids=["patches", "timm"])
def test_a_token_a_frame_is_the_pictures_own_vector(section: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = Frames(**Frames.resolve({"encoder": section})).eval()
    clips = [clip(5), clip(2)]
    batch = encoder.collate([encoder.processor.prepare(c) for c in clips])
    result = encoder(**batch)
    assert result.lengths.tolist() == [5, 2] and result.grid == (5,)
    assert result.spacing == (0.04,) and result.origin == (0.02,) and result.dim == encoder.dim
    assert result.tokens[1, 2:].eq(0).all()
    for row, known in enumerate(clips):
        frames = [Image.fromarray(f) for f in known.frames]
        alone = encoder.picture.collate([encoder.picture.processor.prepare(f) for f in frames])
        vectors = encoder.picture(**alone).pool()
        real = result.tokens[row, : len(frames)]
        torch.testing.assert_close(real, vectors, rtol=1e-5, atol=1e-5)


def test_it_travels_to_workers_and_says_its_settings() -> None:
    processor = Frames(encoder=PATCHES, fps=5.0).processor
    again = copy_for_worker(processor)
    assert again.settings() == processor.settings()
    assert again.prepare(clip(10))["pixel_values"].shape == (2, 3, 16, 16)
    assert processor.settings() != Frames(encoder=PATCHES).processor.settings()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"encoder.type: found 'frames', expected one of"):
        Frames(encoder={"type": "frames"})
    with pytest.raises(ValueError, match=r"encoder: patches: .*sizes"):
        Frames(encoder={**PATCHES, "sizes": 3})
    with pytest.raises(ValueError, match="fps: found 0"):
        Frames(encoder=PATCHES, fps=0)
    one = Frames(encoder=PATCHES).processor.prepare(Image.new("RGB", (4, 4)))
    assert one["pixel_values"].shape == (1, 3, 16, 16)


VIDEO = ["hf TimeSformer", "hf VideoMAE", "hf ViViT", "hf V-JEPA 2"]


def _skip(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
    """Return what a layer was given."""
    states = args[0] if args else kwargs["hidden_states"]
    return (states, *output[1:]) if isinstance(output, tuple) else states


@pytest.mark.parametrize("name", VIDEO)
def test_a_changed_picture_changes_the_tokens_of_its_moment(name: str) -> None:
    encoder: Any = build("image", name)
    for block in encoder.blocks():  # attention mixes all tokens
        block.register_forward_hook(_skip, with_kwargs=True)
    pixels = encoder.processor.prepare(clip(9))["pixel_values"][None]
    features = encoder(pixels)
    assert features.grid == (pixels.shape[1] // encoder.clip.tubelet, 4, 4)
    for picture in range(pixels.shape[1]):
        other = pixels.clone()
        other[:, picture, :, 8:16, 24:] += 1  # the patch in row 1 and column 3
        changed = (encoder(other).tokens != features.tokens).any(-1).view(features.grid)
        moment = picture // encoder.clip.tubelet
        assert changed.nonzero().tolist() == [[moment, 1, 3]]


@pytest.mark.parametrize("name", VIDEO)
def test_tokens_of_clips_are_the_library_s(name: str) -> None:
    encoder: Any = build("image", name)
    pixels = torch.stack([encoder.processor.prepare(clip(n))["pixel_values"] for n in (5, 9)])
    features = encoder(pixels, hidden_states=(-2,))
    states = encoder.model(pixels).last_hidden_state
    tokens = states[:, states.shape[1] - features.tokens.shape[1] :]
    if encoder.clip.frames_last:
        tokens = tokens.unflatten(1, (-1, encoder.clip.steps)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(features.tokens, tokens)
    assert features.hidden_states[0].grid == features.grid
    still = encoder.processor.prepare(Image.new("RGB", (40, 30), "red"))["pixel_values"]
    assert torch.equal(still, still[:1].expand_as(still))
