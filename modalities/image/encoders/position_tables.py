"""Tables of positions at another picture size than a checkpoint's.

Legend: `D` width, `h`, `w` positions of a grid, `P` leading rows (CLS, registers).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .grid import Size


def fixed_size(processor: Any) -> Size | None:
    """Return height and width of an image processor's output; None if that
    depends on the picture."""
    shapes = set()
    for sides in ((96, 64), (64, 96)):
        sample = processor.prepare(Image.new("RGB", sides))
        shapes.add(tuple(sample["pixel_values"].shape[-2:]))
    (height, width), *others = shapes
    return None if others else (int(height), int(width))


def side_lengths(config: Any) -> Size | None:
    """Return height and width of the pictures that a configuration is for."""
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) else None


def interpolated(
    old: nn.Module, new: nn.Module, mismatched: Iterable[Any], name: str
) -> dict[str, Tensor]:
    """Return the weights of a checkpoint's model that have another shape in a model of another
    picture size, interpolated. Raise ValueError for any that is no table of positions.

    mismatched: the name of a weight, its shape in the checkpoint and in the model.
    """
    weights = old.state_dict()
    sizes = side_lengths(old.config), side_lengths(new.config)
    tables = {}
    for key, *shapes in mismatched:
        was, is_now = (tuple(shape) for shape in shapes)
        table = None
        if sizes[0] is not None and sizes[1] is not None:
            table = resize(weights[key], is_now, sizes[0], sizes[1])
        if table is None:
            raise ValueError(
                f"transformers: {name} has {key} {was}, the config builds {is_now}; take out of "
                "config what changes it"
            )
        tables[key] = table
    return tables


def resize(table: Tensor, shape: tuple[int, ...], old: Size, new: Size) -> Tensor | None:
    """Return a table for pictures of `old` px, interpolated for `new` px; None if its shapes are
    not those of a grid of positions.

    Tables are `[1, P + h * w, D]` or `[P + h * w, D]`, `[1, h, w, D]`, and `[2 * h - 1, D]` of
    distances along one axis.
    """
    if table.ndim != len(shape) or table.shape[-1] != shape[-1]:
        return None
    if table.ndim == 4:
        before, after = (table.shape[1], table.shape[2]), (shape[1], shape[2])
        return _grid(table[0].flatten(0, 1), before, after).view(shape)
    count, other = table.shape[-2], shape[-2]
    rows = table.reshape(count, -1)
    for leading in (0, 1, 2):
        was, is_now = _sides(count - leading, old), _sides(other - leading, new)
        if was and is_now and was[1] == is_now[1]:
            patches = _grid(rows[leading:], was[0], is_now[0])
            return torch.cat([rows[:leading], patches]).view(shape)
    if count % 2 and other % 2 and (count + 1) * new[0] == (other + 1) * old[0]:
        line = F.interpolate(rows.T[None], size=other, mode="linear", align_corners=False)
        return line[0].T.reshape(shape)
    return None


def _sides(count: int, size: Size) -> tuple[Size, int] | None:
    """Return the grid of `count` positions over a picture, and its step in px."""
    for step in range(1, min(size) + 1):
        grid = (size[0] // step, size[1] // step)
        if size[0] % step == size[1] % step == 0 and grid[0] * grid[1] == count:
            return grid, step
    return None


def _grid(rows: Tensor, old: Size, new: Size) -> Tensor:
    """`[h * w, D]` of an old grid -> that of a new one, by bicubic interpolation, as the
    libraries do for the models that can."""
    planes = rows.view(*old, -1).permute(2, 0, 1)[None].float()
    planes = F.interpolate(planes, size=new, mode="bicubic", align_corners=False)
    return planes[0].permute(1, 2, 0).flatten(0, 1).to(rows.dtype)
