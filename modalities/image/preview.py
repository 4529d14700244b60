"""A picture for a page, with what is found in it: boxes, masks, maps.

Legend: `H` height, `W` width.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..base import Annotations
from .mask import read as read_mask
from .video_clip import Clip

SIZE = 256
"""px of the longer side, at most; of a picture with marks always."""

COLOURS = {"predicted": (255, 140, 0), "reference": (60, 200, 90)}
LEGEND = {"predicted": "orange: predicted", "reference": "green: reference"}
FILL = 0.35
"""Opacity of a mask, and of the highest value of a map."""


def preview(image: Image.Image | Clip, marks: Annotations | None = None) -> str:
    """Return an `<img>` of a picture with its pixels in the page; tiny ones are enlarged by CSS. Of
    a clip there are up to eight frames, side by side, without marks.

    marks: `boxes`, `[y0, x0, y1, x1]` px of the picture each; `mask`, any value that the modality
    `image_mask` reads, or `{array, affine}` of a grid over the picture; `map`, the latter.
    """
    if isinstance(image, Clip):
        chosen = image.frames[:: max(1, -(-len(image.frames) // 8))]
        image, marks = Image.fromarray(np.concatenate(list(chosen), axis=1)), None
    small, drawn = marked(image, marks or {})
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    width = max(small.width, SIZE // 2)
    picture = (
        f'<img src="data:image/png;base64,{data}" width="{width}" '
        f'alt="picture, {image.width} x {image.height} px" style="image-rendering: pixelated">'
    )
    legend = "; ".join(text for who, text in LEGEND.items() if who in drawn)
    return f"{picture}<br><small>{legend}</small>" if legend else picture


def preview_mask(mask: np.ndarray, marks: Annotations | None = None) -> str:
    """Return an `<img>` of a mask alone."""
    return preview(Image.fromarray(mask.astype(np.uint8) * 255))


def marked(image: Image.Image, marks: Annotations) -> tuple[Image.Image, set[str]]:
    """Return a small copy of a picture with the marks, and whose were drawn: `predicted`,
    `reference`. The reference lies below."""
    small = image.copy()
    small.thumbnail((SIZE, SIZE))
    drawn: set[str] = set()
    for who, index in (("reference", 1), ("predicted", 0)):
        for name, pair in marks.items():
            if pair[index] is None or name not in ("boxes", "mask", "map"):
                continue
            large = enlarged(small)
            changed = (
                _boxes(large, image, pair[index], who)
                if name == "boxes"
                else _area(large, image, pair[index], who, sharp=name == "mask")
            )
            if changed is not None:
                small = changed
                drawn.add(who)
    return small, drawn


def enlarged(image: Image.Image) -> Image.Image:
    """Return a picture whose longer side has SIZE px, so that outlines are thin."""
    scale = SIZE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST) if scale > 1 else image


def _boxes(
    small: Image.Image, image: Image.Image, boxes: Sequence[Sequence[float]], who: str
) -> Image.Image | None:
    flat = [box for box in boxes if len(box) == 4]
    if not flat:
        return None
    small = small.convert("RGB")
    pen = ImageDraw.Draw(small)
    down, across = small.height / image.height, small.width / image.width
    for y0, x0, y1, x1 in flat:
        corners = (x0 * across, y0 * down, max(x0, x1) * across, max(y0, y1) * down)
        pen.rectangle(corners, outline=COLOURS[who], width=2)
    return small


def _area(
    small: Image.Image, image: Image.Image, value: Any, who: str, *, sharp: bool
) -> Image.Image | None:
    level = _level(small, image, value)
    if not level.any():
        return None
    opacity = FILL * level
    if sharp:
        inside = Image.fromarray(np.where(level >= 0.5, 255, 0).astype(np.uint8))
        opacity[np.asarray(inside) > np.asarray(inside.filter(ImageFilter.MinFilter(3)))] = 1
    colour = Image.new("RGB", small.size, COLOURS[who])
    mask = Image.fromarray((opacity * 255).astype(np.uint8))
    return Image.composite(colour, small.convert("RGB"), mask)


def _level(small: Image.Image, image: Image.Image, value: Any) -> np.ndarray:
    """Return `[H, W]` from 0 to 1 at the pixels of the small picture; 0 beside a grid."""
    affine = np.eye(3)
    if isinstance(value, Mapping) and "affine" in value:  # of a grid, centres at whole numbers
        array, affine = np.asarray(value["array"], float), np.asarray(value["affine"], float)
    else:
        array = np.asarray(read_mask(value), float)
        affine[:2, 2] = 0.5
        affine[0, 0], affine[1, 1] = image.height / array.shape[0], image.width / array.shape[1]
        affine[:2, 2] *= affine.diagonal()[:2]
    y, x = np.mgrid[: small.height, : small.width] + 0.5
    places = np.stack([y * image.height / small.height, x * image.width / small.width, x * 0 + 1])
    rows, columns, _ = np.rint(np.tensordot(np.linalg.inv(affine), places, 1)).astype(int)
    inside = (rows >= 0) & (columns >= 0) & (rows < array.shape[0]) & (columns < array.shape[1])
    level = np.zeros(inside.shape)
    level[inside] = array[rows[inside], columns[inside]]
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:  # a map
        level = np.where(inside, (level - low) / max(high - low, 1e-12), 0)
    return level
