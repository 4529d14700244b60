"""Sliding-window inference for signals too large to be encoded at once, by MONAI.

Legend: `C` channels, `n` axes in space; a row is encoded at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from ...modalities.base import Features, Sample
from ..common import crop_and_resize, spatial_shape

Tensors = dict[str, Tensor]


def random_window(sample: Sample, window: Sequence[int], rng: np.random.Generator) -> Sample:
    """Return a random window of a sample without resampling. Raise ValueError if the axes do not
    fit."""
    extent = spatial_shape(sample)
    if len(extent) != len(window):
        raise ValueError(f"window: {list(window)} has {len(window)} axes, samples {len(extent)}")
    if "affine" not in sample:
        raise ValueError(
            "window: the samples hold no affine, which locates a window of them; leave window out"
        )
    box = [min(n, wide) for n, wide in zip(extent, window, strict=True)]
    low = [int(rng.integers(n - wide + 1)) for n, wide in zip(extent, box, strict=True)]
    return crop_and_resize(sample, extent, low, box, box)


def sliding_window_features(
    tensors: Tensors, window: Sequence[int], overlap: float, run: Callable[[Tensors], Features]
) -> Features:
    """Run `run`, which returns one number for each voxel of a window, over the batch of a stream,
    and blend by a Gaussian: Features of the whole, `[B, V, 1]`. Raise ValueError for a window that
    `run` does not fill."""
    rows = [
        _slide({key: value[i : i + 1] for key, value in tensors.items()}, window, overlap, run)
        for i in range(len(next(iter(tensors.values()))))
    ]
    first = rows[0]
    affine = None if first.affine is None else torch.cat([f.affine for f in rows])  # type: ignore[misc]
    return first.replace(
        tokens=torch.cat([f.tokens for f in rows]),
        mask=torch.cat([f.mask for f in rows]),
        affine=affine,
    )


def _slide(
    row: Tensors, window: Sequence[int], overlap: float, run: Callable[[Tensors], Features]
) -> Features:
    extent, axes = spatial_shape({key: value[0] for key, value in row.items()}), len(window)
    # Spatial tensors are cut as one; others (which contrasts a row has) are kept.
    spatial = {k: v for k, v in row.items() if tuple(v.shape[-axes:]) == extent}
    joined = torch.cat([v.reshape(1, -1, *extent).float() for v in spatial.values()], 1)
    outputs: list[Features] = []

    def predict(part: Tensor) -> Tensor:
        """Return logits and real positions, `[1, 2, *finer or coarser]`, of `[1, C, *window]`."""
        pieces = part.split([v.reshape(1, -1, *extent).shape[1] for v in spatial.values()], 1)
        windowed = {
            key: piece.reshape(*value.shape[:-axes], *piece.shape[2:]).to(value.dtype)
            for (key, value), piece in zip(spatial.items(), pieces, strict=True)
        }
        output = run({**row, **windowed})
        _check(output, part.shape[2:])
        outputs.append(output)
        both = torch.stack([output.tokens[..., 0].float(), output.mask.float()], 1)
        return both.unflatten(2, output.grid or ())

    merged: Tensor = sliding_window_inference(
        joined, window, 1, predict, overlap=overlap, mode="gaussian"
    )
    real = merged[:, 1].flatten(1) > 0.5
    tokens = merged[:, 0].flatten(1)[..., None] * real[..., None]
    return outputs[0].replace(
        tokens=tokens, mask=real, grid=tuple(merged.shape[2:]), hidden_states=()
    )


def _check(features: Features, window: Sequence[int]) -> None:
    covered = [n * s for n, s in zip(features.grid or (), features.spacing or (), strict=True)]
    if [round(c) for c in covered] != list(window):
        raise ValueError(
            f"window: {list(window)} voxels come back as {[round(c) for c in covered]}; choose "
            "multiples of the encoder's patch"
        )
