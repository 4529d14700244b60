"""Where the tokens of a picture lie: maps to token sequences, counts to grids.

Legend: `B` batch, `T` tokens, `D` width, `H`, `W` px of the prepared picture, `h`, `w` tokens.
Pixels are counted from the picture's upper left corner: the first patch of 16 px has its
centre at 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...base import Features
from ...features import split_signal

Size = tuple[int, int]


def token_geometry(grid: Size, size: Size, stride: int) -> dict[str, Any]:
    """`grid`, `step` and `origin` of `grid` tokens over a picture of `size` px.

    The step is the network's stride; where its borders or a resizing make another number of
    tokens than that, they share the picture evenly.
    """
    step = tuple(
        float(stride) if n in (s // stride, -(-s // stride)) else s / n
        for n, s in zip(grid, size, strict=True)
    )
    return {"grid": grid, "spacing": step, "origin": tuple(s / 2 for s in step)}


def from_map(feature_map: Tensor, size: Size, stride: int, **fields: Any) -> Features:
    """A feature map `[B, D, h, w]` -> Features of `T = h * w` tokens, row by row."""
    grid = (feature_map.shape[2], feature_map.shape[3])
    tokens = feature_map.flatten(2).transpose(1, 2)  # [B, T, D]
    return Features.dense(tokens, **token_geometry(grid, size, stride), **fields)


def patch_targets(pixel_values: Tensor, stride: int) -> Features:
    """pixel_values `[B, C, H, W]` -> the values of each patch, `[B, T, C stride stride]`."""
    size = (pixel_values.shape[2], pixel_values.shape[3])
    grid = (size[0] // stride, size[1] // stride)
    values = split_signal(pixel_values, grid, (stride, stride))
    return Features.dense(values, **token_geometry(grid, size, stride))


def fit(count: int, size: Size, stride: int, prefixes: tuple[int, ...]) -> tuple[Size, int] | None:
    """Return the grid and the number of leading tokens (CLS, registers) of a sequence of `count`.

    prefixes: the numbers of leading tokens that are possible; None where none fits.
    """
    floor = (size[0] // stride, size[1] // stride)
    ceil = (-(-size[0] // stride), -(-size[1] // stride))
    for grid in (floor, ceil):
        prefix = count - grid[0] * grid[1]
        if grid[0] * grid[1] and prefix in prefixes:
            return grid, prefix
    return None


def fit_any(
    count: int, size: Size, strides: Sequence[int], prefixes: tuple[int, ...]
) -> tuple[Size, int, int] | None:
    """As `fit` with the first of several strides that fits, and this stride; else with one that
    the count defines if equal steps along both axes fit it."""
    for stride in strides:
        if (fitted := fit(count, size, stride, prefixes)) is not None:
            return (*fitted, stride)
    for prefix in prefixes:
        if count <= prefix:
            continue
        stride = max(1, round(math.sqrt(size[0] * size[1] / (count - prefix))))
        if (fitted := fit(count, size, stride, (prefix,))) is not None:
            return (*fitted, stride)
    return None


def read_tokens(model: Any, hidden: Tensor, size: Size, mask: Tensor | None) -> Features:
    """`[B, D, h, w]`, `[B, h, w, D]` or `[B, P + T, D]` -> Features; the first of `P` tokens
    is CLS."""
    if mask is not None:
        return Features(hidden.masked_fill(~mask[..., None], 0), mask)
    if hidden.ndim == 4:
        first, second, third = hidden.shape[1:]  # a map has the picture's proportions
        last = size[0] * second == size[1] * first and size[0] * third != size[1] * second
        hidden = hidden.permute(0, 3, 1, 2) if last else hidden
        return from_map(hidden, size, round(size[0] / hidden.shape[2]))
    config = model.config
    if trailing := getattr(config, "num_detection_tokens", 0):  # of YOLOS
        hidden = hidden[:, :-trailing]
    registers = getattr(config, "num_register_tokens", 0)
    leading = (0, 1, 2, 1 + registers, getattr(config, "n_cls_tokens", 1))
    edge = pair(getattr(config, "patch_stride", None) or getattr(config, "patch_size", 1))[0]
    edge = edge if isinstance(edge, int) else 1
    halvings = 7 if hasattr(config, "depths") else 1  # stages halve the grid
    fitted = fit_any(hidden.shape[1], size, [edge * 2**k for k in range(halvings)], leading)
    if fitted is None:
        raise ValueError(
            f"transformers: {type(model).__name__} returns {hidden.shape[1]} tokens for "
            f"{size[0]} x {size[1]} px in patches of {edge}: no grid has so many; choose a "
            f"size that {edge} divides, or another model"
        )
    grid, prefix, stride = fitted
    patches = hidden[:, prefix:].transpose(1, 2).unflatten(2, grid)
    return from_map(patches, size, stride, pooled=hidden[:, 0] if prefix else None)


@dataclass(frozen=True)
class ClipTokens:
    """How a video model divides a clip: pictures that it takes, pictures and px of a token.

    frames_last: the tokens of one place follow each other, not those of one moment.
    """

    frames: int
    tubelet: int
    patch: int
    frames_last: bool = False

    @property
    def steps(self) -> int:
        """Tokens along time."""
        return self.frames // self.tubelet

    def count(self, size: Size) -> int:
        """Return the number of tokens of a clip of pictures of `size` px."""
        return self.steps * (size[0] // self.patch) * (size[1] // self.patch)


def clip_tokens(config: Any) -> ClipTokens | None:
    """Return how a model divides clips, by its configuration; None if it names no frames."""
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    tubelet = getattr(config, "tubelet_size", 1)
    steps, *patch = tubelet if isinstance(tubelet, (list, tuple)) else (tubelet,)
    edges = set(patch or pair(getattr(config, "patch_size", None)))
    if not isinstance(frames, int) or len(edges) > 1 or None in edges:
        return None
    return ClipTokens(frames, steps, edges.pop())


def read_clip_tokens(hidden: Tensor, clip: ClipTokens, size: Size) -> Features:
    """`[B, P + T, D]` of a clip -> Features on a grid of moments, rows and columns; the first of
    `P` tokens is CLS. Along time, spacing and origin are in pictures of the sample."""
    count, prefix = clip.count(size), hidden.shape[1] - clip.count(size)
    if prefix not in (0, 1):
        raise ValueError(
            f"transformers: {hidden.shape[1]} tokens for a clip of {clip.frames} pictures of "
            f"{size[0]} x {size[1]} px, expected {count} or one more; this model is not supported"
        )
    tokens = hidden[:, prefix:]
    if clip.frames_last:
        tokens = tokens.unflatten(1, (-1, clip.steps)).transpose(1, 2).flatten(1, 2)
    spacing = (float(clip.tubelet), float(clip.patch), float(clip.patch))
    return Features.dense(
        tokens,
        grid=(clip.steps, size[0] // clip.patch, size[1] // clip.patch),
        spacing=spacing,
        origin=tuple(step / 2 for step in spacing),
        pooled=hidden[:, 0] if prefix else None,
    )


def pair(value: Any) -> tuple[Any, ...]:
    """Return a value for each of two axes."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def block_order(height: int, width: int, merge: int) -> Tensor:
    """Return `[h * w]`: where the patch of each place, row by row, is in a sequence of blocks."""
    index = torch.arange(height * width)
    blocks = index.view(height // merge, width // merge, merge, merge)
    return blocks.transpose(1, 2).reshape(-1)


def outline_grid(count: int, merge: int) -> Size:
    """Return a grid of `count` patches as square as may be: on the meta device no grid is known."""
    units = count // merge**2
    height = next(n for n in range(math.isqrt(units), 0, -1) if units % n == 0)
    return height * merge, units // height * merge


def read_packed(
    output: Tensor, grids: Sequence[Sequence[int]], blocks: int, patch: float
) -> Features:
    """output `[B * T, D]` or `[1, B * T, D]` of pictures of the grids (patches) -> Features.

    Fewer tokens than patches are merged ones, row by row; as many are in the order of the patches.
    patch: its edge in px. Raise ValueError if the number of tokens fits no grid.
    """
    flat = output.flatten(0, -2)
    tokens = flat.view(len(grids), -1, flat.shape[-1])
    count, patches = tokens.shape[1], math.prod(grids[0][-2:])
    merge = math.isqrt(max(patches // max(count, 1), 1))
    if count * merge**2 != patches or any(n % merge for grid in grids for n in grid[-2:]):
        raise ValueError(
            f"transformers: {count} tokens for {patches} patches, which are no grid; name a layer, "
            "or another model"
        )
    sizes = [(int(grid[-2]) // merge, int(grid[-1]) // merge) for grid in grids]
    if merge == 1 and blocks > 1:
        orders = torch.stack([block_order(*size, blocks) for size in sizes]).to(tokens.device)
        tokens = tokens.gather(1, orders[..., None].expand_as(tokens))
    places = torch.stack([torch.cartesian_prod(*map(torch.arange, size)) for size in sizes])
    features = Features.dense(tokens, positions=places.to(tokens.device))
    if len(set(sizes)) > 1:
        return features
    edge = patch * merge
    return features.replace(grid=sizes[0], spacing=(edge, edge), origin=(edge / 2, edge / 2))


def tokens_of(output: Any, grids: Sequence[Sequence[int]]) -> Tensor:
    """Return the output of a tower: its merged tokens if it has a merger, else its last layer."""
    pooled = getattr(output, "pooler_output", None)
    pooled = torch.cat(list(pooled)) if isinstance(pooled, (list, tuple)) else pooled
    patches = sum(math.prod(grid) for grid in grids)
    if isinstance(pooled, Tensor):
        count = pooled.shape[:-1].numel()
        if count > len(grids) and patches % count == 0:
            return pooled
    last: Tensor = output.last_hidden_state if hasattr(output, "last_hidden_state") else output
    return last


def last_hidden(output: Any) -> Tensor | None:
    """Return the last hidden states of an output of the library."""
    if isinstance(output, Tensor):
        return output
    last = getattr(output, "last_hidden_state", None)
    return last if isinstance(last, Tensor) else None


def join_tiles(features: Features, tiles: int) -> Features:
    """Return the tokens of the tiles of each picture one after the other."""
    tokens = features.tokens.unflatten(0, (-1, tiles)).flatten(1, 2)
    if tiles > 1:
        return Features.dense(tokens)
    return features.replace(tokens=tokens)
