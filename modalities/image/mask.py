"""Masks of pictures as a separate signal: a stream of labels.

Legend: `B` batch, `H`, `W` px of the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..base import Encoder, Features, Processor, ReadError, Sample, only_read_errors

MASK = "a mask: a picture of class numbers, an array [H, W], or {size, shapes} of COCO"
VOID = 255
"""The class of pixels that are left out, in masks of Pascal VOC."""


@only_read_errors(MASK)
def read(source: Any) -> np.ndarray:
    """Return bool `[H, W]`, True in the mask.

    source: a picture's path, whose numbers (of its palette, or grey values) are classes: every one
    but 0 belongs to the mask, except for 255 of a palette or beside other numbers, which VOC leaves
    out; an array; `{path, classes: [3, 5]}` for some classes; or COCO's `{size: [H, W],
    shapes: [...]}`, polygons and run lengths. Raise ReadError.
    """
    if isinstance(source, Mapping) and "size" in source:
        return _shapes(source["size"], source.get("shapes", ()))
    classes = source.get("classes") if isinstance(source, Mapping) else None
    path = source["path"] if isinstance(source, Mapping) else source
    numbers, palette = _numbers(path, source, classes is not None)
    if numbers.ndim != 2:
        raise ReadError(source, f"an array of shape {numbers.shape}", MASK)
    if numbers.dtype.kind not in "biuf" or (numbers.dtype.kind != "b" and numbers.min() < 0):
        raise ReadError(source, f"{numbers.dtype} numbers, some of them negative or none", MASK)
    if classes is not None:
        return np.isin(numbers, classes)
    inside, void = numbers != 0, numbers == VOID
    wide = numbers.dtype.itemsize > 1 and int(numbers.max()) > VOID  # 255 is one of many objects
    if palette or (not wide and (inside & ~void).any()):
        inside &= ~void
    return np.asarray(inside)


def _numbers(path: Any, source: Any, classes: bool) -> tuple[np.ndarray, bool]:
    """Return the numbers of a picture or array, and whether they are places of a palette."""
    if not isinstance(path, (str, Path)):
        return np.asarray(path), False
    with Image.open(path) as picture:
        mode = picture.mode
        if mode in ("P", "L", "1", "I") or mode.startswith("I;16"):
            return np.asarray(picture), mode == "P"
        if classes:
            raise ReadError(source, f"colours ({mode}) beside classes", "a picture of numbers")
        return np.asarray(picture.convert("RGB")).max(2), False


def _shapes(size: Sequence[int], shapes: Sequence[Any]) -> np.ndarray:
    height, width = size
    canvas = Image.new("1", (width, height))
    mask = np.zeros((height, width), bool)
    for shape in shapes:
        if isinstance(shape, Mapping):
            mask |= _run_lengths(shape)
            continue
        for polygon in shape:
            ImageDraw.Draw(canvas).polygon([float(number) for number in polygon], fill=1)
    return mask | np.asarray(canvas)


def _run_lengths(shape: Mapping[str, Any]) -> np.ndarray:
    """Return the mask of COCO's run lengths, column by column, zeros first. Raise ReadError for
    compressed ones."""
    counts, (height, width) = shape["counts"], shape["size"]
    if not isinstance(counts, list):
        raise ReadError(shape, "compressed run lengths", "lists of run lengths, or polygons")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.asarray(values.reshape(width, height).T)


def on_pixels(values: Tensor, matrix: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return values of a grid `[H', W']` on the pixels of a picture, `[*size]`: each is that of the
    nearest place, zero outside. matrix: `[3, 3]` from indices of the grid to pixels, whose centres
    are at 0.5."""
    if values.ndim != 2:
        raise ValueError(f"a map of {values.ndim} axes over a picture, which has 2")
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij"), -1)
    inverse = np.linalg.inv(np.asarray(matrix, np.float64))
    index = np.floor(places @ inverse[:2, :2].T + inverse[:2, 2] + 0.5).astype(int)  # [H, W, 2]
    inside: np.ndarray = np.all((index >= 0) & (index < values.shape), axis=-1, keepdims=True)
    rows, columns = np.moveaxis(np.where(inside, index, 0), -1, 0)
    array = values.numpy()[rows, columns]
    return np.asarray(np.where(inside[..., 0], array, np.zeros((), array.dtype)))


def write(path: Path, values: Tensor, matrix: Tensor, picture: Any) -> Path:
    """Write a mask (bool or integers: PNG of 0 and 255) or a map (floats: TIFF) on the pixels
    of the picture under it; return the file."""
    if not isinstance(picture, Image.Image):
        raise ValueError("a map over a clip has no file; name a file (out.jsonl) for the numbers")
    array = on_pixels(values, matrix, (picture.height, picture.width))
    is_map = array.dtype.kind == "f"
    file = path.with_name(f"{path.name}{'.tif' if is_map else '.png'}")
    Image.fromarray(
        array.astype(np.float32) if is_map else (array != 0).astype(np.uint8) * 255
    ).save(file)
    return file


def example(rng: np.random.Generator) -> np.ndarray:
    """Return a disc somewhere, for dry runs and tests."""
    y, x = np.mgrid[:24, :24]
    centre = rng.uniform(8, 16, 2)
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 25)


@dataclass
class MaskProcessor(Processor):
    """Keeps a mask as it is, or resizes it to `size`, height and width in px."""

    size: tuple[int, int] | None = None

    def prepare(self, raw: np.ndarray) -> Sample:
        """`mask` uint8 `[H, W]`; a pixel is that of the nearest one. `affine` float32 `[3, 3]`,
        from its pixels to those of the mask that was read."""
        array = np.asarray(raw).astype(np.uint8)
        mask = Image.fromarray(array)
        if self.size is not None:
            mask = mask.resize((self.size[1], self.size[0]), Image.Resampling.NEAREST)
        scale = [array.shape[0] / mask.height, array.shape[1] / mask.width, 1.0]
        return {"mask": torch.from_numpy(np.array(mask)), "affine": torch.tensor(scale).diag()}


class Mask(Encoder):
    """A token a pixel, 1 where the mask is; nothing in it trains. It lies on the pixels of its
    picture, however that one is resized, cropped or augmented. size: height and width to which
    large masks are resized; by default their own."""

    dim = 1

    def __init__(self, *, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.processor = MaskProcessor(size)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Masks of any shapes, padded on the right and at the bottom with nothing."""
        height, width = (max(s["mask"].shape[axis] for s in samples) for axis in range(2))
        mask = torch.zeros(len(samples), height, width, dtype=torch.uint8)
        inside = torch.zeros(len(samples), height, width, dtype=torch.bool)
        for row, sample in enumerate(samples):
            h, w = sample["mask"].shape
            mask[row, :h, :w], inside[row, :h, :w] = sample["mask"], True
        affine = torch.stack([sample["affine"] for sample in samples])
        return {"mask": mask, "inside": inside, "affine": affine}

    def forward(self, mask: Tensor, inside: Tensor, affine: Tensor) -> Features:
        """mask `[B, H, W]` -> Features `[B, H W, 1]` on the grid of its pixels."""
        return Features(
            mask.flatten(1)[..., None].float(),
            inside.flatten(1),
            grid=(mask.shape[1], mask.shape[2]),
            spacing=(1.0, 1.0),
            origin=(0.5, 0.5),
            affine=affine,
        )
