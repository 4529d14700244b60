"""Segmentation: a mask on a signal's grid, from its tokens.

`L = 1 - 2 sum(p t) / (sum p + sum t)` (Dice; Milletari et al., "V-Net", 2016) plus the binary
cross-entropy, for each row, over its real voxels. True masks are a stream that keeps its own grid:
they are resampled to the head's grid by both affines, and predictions back to theirs.

Legend: `B` rows, `V` voxels of the head's grid, `n` axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...connectors.base import Connector
from ...modalities.base import (
    Features,
    Fraction,
    Loss,
    NonNegativeFloat,
    PositiveInt,
    Probability,
    Sample,
)
from ...modalities.groups import encode_by_group
from ..base import Context, Metrics, Task
from ..batch import Batch
from ..common import grid_to_world, resample_grid
from ..uses import HeadUse, StreamUse
from .mask_metrics import MaskMetrics, agreement
from .rle import decode_rle, encode_rle
from .sliding_window import random_window, sliding_window_features

WHO = "segmentation"
SMOOTH = 1e-5
"""As in MONAI: added to numerator and denominator of Dice."""


class Segmentation(Task):
    """input: the stream. mask: the stream of true masks (`modality: mri_mask`). dice, ce: weights
    of the two losses. threshold: the probability from which a voxel belongs to the mask. prior: the
    initial probability of every voxel (Lin et al., "Focal Loss for Dense Object Detection", 2017);
    from 0.5, small masks vanish before they are learned.

    window: voxels of a prepared signal that are encoded at a time, for signals too large for one
    pass: a random window in training, in prediction all of them, blended where they overlap;
    features are then not cached. overlap: the fraction of a window that the next one shares.
    """

    ability: ClassVar[str] = "segment"

    head_types: ClassVar[Mapping[str, Any]] = {"head": "unetr"}

    def __init__(
        self,
        *,
        input: str,
        mask: str = "mask",
        dice: NonNegativeFloat = 1.0,
        ce: NonNegativeFloat = 1.0,
        threshold: Probability = 0.5,
        prior: Probability = 0.01,
        window: list[PositiveInt] | None = None,
        overlap: Fraction = 0.5,
    ) -> None:
        super().__init__()
        if min(dice, ce) < 0 or dice + ce == 0:
            raise ValueError(f"dice, ce: found {dice} and {ce}, expected weights, one above 0")
        for name, share in (("threshold", threshold), ("prior", prior)):
            if not 0 < share < 1:
                raise ValueError(f"{name}: found {share}, expected between 0 and 1")
        if not 0 <= overlap < 1 or (window is not None and min(window, default=0) < 1):
            raise ValueError(
                f"window, overlap: found {window} and {overlap}, expected voxels an axis, and a "
                "share of at least 0 and less than 1"
            )
        if mask == input:
            raise ValueError(f"mask: is {mask!r}, the input itself; name the stream of true masks")
        self.input, self.mask = input, mask
        self.streams = {input: StreamUse(views=window is not None), mask: StreamUse(role="label")}
        self.dice, self.ce, self.threshold = dice, ce, threshold
        self.window, self.overlap = window, overlap
        self.start = math.log(prior / (1 - prior))

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=f"{self.input}.encoder", out_dim=1)}

    def views(self, stream: str, sample: Sample, rng: np.random.Generator) -> dict[str, Sample]:
        if self.window is None or stream != self.input:
            return {"main": sample}
        return {"main": random_window(sample, self.window, rng)}

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows. Parts: `overlap`, the soft Dice, a sum over rows."""
        output = self._head_output(ctx)
        logits, real = output.tokens[..., 0].float(), output.mask
        target = self._target(output, ctx).flatten(1) * real  # [B, V]
        share = logits.sigmoid() * real
        both = (share * target).sum(1)
        overlap = (2 * both + SMOOTH) / (share.sum(1) + target.sum(1) + SMOOTH)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * real
        entropy = losses.sum(1) / real.sum(1).clamp(min=1)
        total = (self.dice * (1 - overlap) + self.ce * entropy).sum()
        return Loss(total, len(batch), {"overlap": overlap.detach().sum()})

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `mask` run-length encoded (`rle.py`), its `size` in the world's units (mm cubed),
        and, if the batch has the true mask, `scores` against it on its own grid."""
        output = self._sliding_output(batch, ctx)
        grid, matrix = output.grid or (), grid_to_world(output, WHO)
        share = output.tokens[..., 0].float().sigmoid()
        masks = ((share >= self.threshold) & output.mask).unflatten(1, grid)  # [B, *grid]
        sizes = torch.linalg.det(matrix[:, :-1, :-1].cpu()).abs()
        rows = [
            {"mask": encode_rle(mask, affine), "size": float(mask.sum()) * float(size)}
            for mask, affine, size in zip(masks, matrix, sizes, strict=True)
        ]
        if batch.has(self.mask):
            for row, scores in zip(rows, self._scores(masks, matrix, ctx), strict=True):
                row["scores"] = scores
        return rows

    def metrics(self) -> Metrics:
        return MaskMetrics()

    def export_maps(self, prediction: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        return {"mask": decode_rle(prediction["mask"])}

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]

    def _scores(self, masks: Tensor, matrix: Tensor, ctx: Context) -> list[dict[str, float | None]]:
        truth = ctx.encode(self.mask)
        values, to_truth = _grid_of(truth), grid_to_world(truth, WHO)
        predicted = resample_grid(masks[:, None].float(), matrix, to_truth, tuple(values.shape[2:]))
        spacing = to_truth[:, :-1, :-1].norm(dim=1).cpu().tolist()
        pairs = zip(predicted[:, 0].cpu() > 0.5, values[:, 0].cpu() > 0.5, spacing, strict=True)
        return [agreement(prediction, target, edges) for prediction, target, edges in pairs]

    def _target(self, output: Features, ctx: Context) -> Tensor:
        """Return `[B, 1, *grid]`, the true masks on the grid of the head's output."""
        truth = ctx.encode(self.mask)
        matrix, to_truth = grid_to_world(output, WHO), grid_to_world(truth, WHO)
        return resample_grid(_grid_of(truth), to_truth, matrix, output.grid or ())

    def _sliding_output(self, batch: Batch, ctx: Context) -> Features:
        """As `_head_output`, window by window if the task has one and the batch holds the
        signals."""
        views = batch.streams.get(self.input)
        if self.window is None or views is None:
            return self._head_output(ctx)
        count = iter(range(1_000_000))

        def run(tensors: dict[str, Tensor]) -> Features:
            view = f"window {next(count)}"
            views[view] = tensors
            output = self._head_output(ctx, view)
            del views[view]
            return output

        window, overlap = self.window, self.overlap
        return encode_by_group(
            views["main"], lambda group, _: sliding_window_features(group, window, overlap, run)
        )

    def _head_output(self, ctx: Context, view: str = "main") -> Features:
        head = self.heads["head"]
        layers = head.hidden_layers if isinstance(head, Connector) else ()
        options: dict[str, Any] = {"hidden_states": layers} if layers else {}
        output: Features = head(ctx.encode(f"{self.input}.encoder", view, **options))
        if output.grid is None or output.dim != 1:
            raise ValueError(
                f"{WHO}: its head returns tokens of {output.dim} on the grid {output.grid}; "
                "expected one number a voxel, as `head: unetr` returns it"
            )
        return output.replace(tokens=output.tokens + self.start)


def _grid_of(truth: Features) -> Tensor:
    """Return `[B, 1, *grid]`, the values of masks, 0 in the padding."""
    values = truth.tokens[..., 0].detach().float() * truth.mask
    return values.unflatten(1, truth.grid or (-1,))[:, None]
