"""Preprocessing of pictures: the settings of the weights, run by the library that wrote them.

A processor holds plain JSON values; the library's own transform is built from them when the
first picture comes (e.g. in a loader's worker) and is never pickled.

Legend: `C` channels, `H` height, `W` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..base import Processor, Sample
from .geometry import agrees, recording, trace_compose, trace_methods

HALF = (0.5, 0.5, 0.5)
GRIDS = ("grid_thw", "grid_hw", "target_sizes")
"""Ends of names under which processors return the rows and columns of packed patches."""
_NOT_STORED = ("transform", "_tried")
"""Attributes of a processor that are made when the first picture comes."""


class ImageProcessor(Processor):
    """RGB picture -> `{"pixel_values": [C, H, W]}`, by a transform that is built when needed."""

    def build(self) -> Callable[[Image.Image], Any]:
        """Return the library's transform, from this processor's settings."""
        raise NotImplementedError

    @cached_property
    def transform(self) -> Callable[[Image.Image], Any]:
        return self.build()

    def prepare(self, raw: Image.Image) -> Sample:
        return {"pixel_values": self.transform(raw)}

    def prepare_located(self, raw: Any) -> tuple[Sample, Tensor | None]:
        with recording() as steps:
            sample = self.prepare(raw)
        size = self._prepared_size(sample)
        if steps.matrix is None or size is None or (steps.size or raw.size[::-1]) != size:
            return sample, None
        if not self._steps_hold(raw, sample, steps.matrix):
            return sample, None
        return sample, torch.from_numpy(steps.matrix).float()

    def _prepared_size(self, sample: Sample) -> tuple[int, int] | None:
        """Return height and width of the prepared picture; None of several, or of none."""
        pixels = sample.get("pixel_values")
        if pixels is None or pixels.ndim != 3:
            return None
        return int(pixels.shape[1]), int(pixels.shape[2])

    def _steps_hold(self, raw: Any, sample: Sample, matrix: np.ndarray) -> bool:
        """Return whether the recorded steps are all that moves pixels."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_STORED}


@dataclass(frozen=True)
class TimmProcessor(ImageProcessor):
    """timm's evaluation transform: resize so that `crop_pct` of it is `input_size`, crop.

    input_size: `[C, H, W]` in px; with one channel the picture is turned grey first.
    crop_mode: `center`, `border` (pads where needed) or `squash` (ignores the aspect).
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "squash"

    def build(self) -> Callable[[Image.Image], Any]:
        from timm.data import create_transform  # takes seconds: only where it is used

        return trace_compose(create_transform(**vars(self)))

    def prepare(self, raw: Image.Image) -> Sample:
        return super().prepare(raw.convert("L") if self.input_size[0] == 1 else raw)


@dataclass(frozen=True)
class OpenClipProcessor(ImageProcessor):
    """open_clip's validation transform. size: `(H, W)` in px; resize_mode: `shortest` (then a
    crop), `longest` (then a border of `fill_color`) or `squash`."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int

    def build(self) -> Callable[[Image.Image], Any]:
        from open_clip import image_transform

        settings = dict(vars(self))
        return trace_compose(image_transform(settings.pop("size"), is_train=False, **settings))


@dataclass(frozen=True)
class HubProcessor(ImageProcessor):
    """An image processor of transformers: `kind` is its class, `options` its configuration.

    The class is pinned, since the variants of a model (torchvision, Pillow) differ by a rounding.
    A sample holds every tensor that it returns. frames: pictures of a sample of a video model,
    taken from a clip at equal distances, or one picture so many times; 0 for models of pictures.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    frames: int = 0

    def build(self) -> Callable[[Image.Image], Any]:
        transform: Callable[[Image.Image], Any] = self.library()
        trace_methods(transform)
        return transform

    def library(self) -> Any:
        """Return the image processor of transformers. Raise ValueError if there is no such
        class."""
        import transformers

        processor_class = getattr(transformers, self.kind, None)
        if processor_class is None:
            raise ValueError(f"processor: transformers has no image processor {self.kind!r}")
        return processor_class(**self.options)

    def _prepared_size(self, sample: Sample) -> tuple[int, int] | None:
        key = grid_key(sample)
        if key is None:
            return None if self.frames else super()._prepared_size(sample)
        edge = getattr(self.transform, "patch_size", None)
        if not isinstance(edge, int) or sample[key].numel() > 3:
            return None
        return int(sample[key][-2]) * edge, int(sample[key][-1]) * edge

    @cached_property
    def _tried(self) -> dict[str, bool]:
        return {}

    def _steps_hold(self, raw: Any, sample: Sample, matrix: np.ndarray) -> bool:
        """Tried once for each processor: a class may move pixels by methods of its own."""
        if grid_key(sample) is not None:
            return True
        if not self._tried:
            self._tried["ramps"] = agrees(self._picture, raw, matrix)
        return self._tried["ramps"]

    def prepare(self, raw: Any) -> Sample:
        if self.frames:
            pictures: Any = pictures_of(raw, self.frames)
            values: Any = self.transform(images=pictures, return_tensors="pt")  # type: ignore[call-arg]
            return {"pixel_values": values["pixel_values"].flatten(0, -4)}  # [T, C, H, W]
        return self._picture(raw)

    def _picture(self, raw: Image.Image) -> Sample:
        values = self.transform(images=raw, return_tensors="pt")  # type: ignore[call-arg]
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if "pixel_values" not in tensors:
            raise ValueError(f"processor: {self.kind} returns no pixel_values, but {set(tensors)}")
        pixels = tensors["pixel_values"]
        tensors["pixel_values"] = pixels.float() if pixels.is_floating_point() else pixels
        grid = grid_key(tensors)
        sample = {
            name: value if grid and name == "pixel_values" else value[0]
            for name, value in tensors.items()
        }
        return _one_tile(sample)


def pictures_of(raw: Any, count: int) -> list[Image.Image]:
    """Return `count` pictures of a clip at equal distances, or so many times a picture."""
    if isinstance(raw, Image.Image):
        return [raw] * count
    places = (np.arange(count) + 0.5) * len(raw.frames) / count
    return [Image.fromarray(raw.frames[int(place)]) for place in places]


def grid_key(sample: Mapping[str, Any]) -> str | None:
    """Return the name of the value that holds the grid of packed patches; None if they are not."""
    return next((key for key in sample if key.endswith(GRIDS)), None)


def _one_tile(sample: Sample) -> Sample:
    """Take the padding off a picture of one tile `[1, C, H, W]`."""
    pixels, mask = sample["pixel_values"], sample.get("pixel_attention_mask")
    if pixels.ndim != 4 or len(pixels) != 1 or mask is None or mask.shape != (1, *pixels.shape[2:]):
        return sample
    height, width = int(mask[0].any(1).sum()), int(mask[0].any(0).sum())
    rest = {name: value for name, value in sample.items() if name != "pixel_attention_mask"}
    return {**rest, "pixel_values": pixels[:, :, :height, :width]}
