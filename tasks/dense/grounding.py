"""Grounding: align the tokens of a signal with the sentences that describe them.

Binary cross-entropy between the similarity of tokens with a sentence and the sentence's mask over
the grid of tokens; covered and uncovered tokens have equal total weight, since few are covered.
Similarity as in Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023: a learned scale
and bias of the cosine.

Legend: `B` rows, `T` tokens, `D` width of the space, `n` axes of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modalities.base import Features, Loss, NonNegativeFloat, PositiveInt, Probability
from ..base import Context, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import (
    MAX_LOGIT_SCALE,
    grid_coordinates,
    grid_to_world,
    l2_normalize,
    mask_coverage,
    stable_hash,
    transform_points,
)
from ..uses import StreamUse
from .pointing_metrics import PointingMetrics

WHO = "grounded"


class Grounding(Task):
    """Grounding of sentences in the tokens of a signal.

    input: a stream whose connector keeps the grid (`linear`, `mlp`). text: the stream of sentences.
    mask: the stream of masks of the finding of each sentence (`modality: mri_mask`), empty if it is
    absent from the signal. dim: width of the shared space.

    finding, negative_group: columns. Rows with the same value of `negative_group` and another
    `finding` are negatives of each other: the sentence of one holds nowhere in the signal of the
    other. Without `finding` each sentence is compared with its own signal only.

    group, grounded_fraction: rows are grounded if the hash of their value of the column `group`
    (a study) falls into this fraction of all hashes; the others are left out of the loss.

    hard_negative_scale: uncovered tokens are weighted by `exp(hard_negative_scale * logit)`. At 0
    all weigh alike, and a model that always points to one location is barely penalised.
    """

    ability: ClassVar[str] = "localize"

    def __init__(
        self,
        *,
        input: str,
        text: str,
        mask: str = "mask",
        dim: PositiveInt = 128,
        finding: str | None = None,
        negative_group: str | None = None,
        group: str | None = None,
        grounded_fraction: Probability = 1.0,
        hard_negative_scale: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        if len({input, text, mask}) < 3:
            raise ValueError(
                f"input, text, mask: found {input}, {text}, {mask}; name three streams"
            )
        if not 0 < grounded_fraction <= 1:
            raise ValueError(
                f"grounded_fraction: found {grounded_fraction}, expected more than 0 and at most 1"
            )
        if grounded_fraction < 1 and group is None:
            raise ValueError(
                f"grounded_fraction: found {grounded_fraction} without group; name the column of "
                "the studies as group"
            )
        if negative_group is not None and finding is None:
            raise ValueError(
                "negative_group: found without finding; name the column of the findings too"
            )
        if hard_negative_scale < 0:
            raise ValueError(
                f"hard_negative_scale: found {hard_negative_scale}, expected at least 0"
            )
        self.input, self.text, self.mask = input, text, mask
        self.streams = {name: StreamUse(width=dim) for name in (input, text)}
        self.streams[mask] = StreamUse(role="label")
        self.dim, self.grounded_fraction, self.hard_negative_scale = (
            dim,
            grounded_fraction,
            hard_negative_scale,
        )
        self.names = {"finding": finding, "about": negative_group, "group": group}
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.zeros(()))

    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.names.values() if name is not None)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Label: `grounded`, 1 or 0. Reference: `finding`, `about` and `grounded`, if the row has
        the columns."""
        reference: dict[str, Any] = {
            key: str(row[name])
            for key, name in self.names.items()
            if name is not None and name in row and key != "group"
        }
        group = self.names["group"]
        if group is not None and group in row:
            reference["grounded"] = stable_hash(row[group]) < self.grounded_fraction * 2**63
        grounded = torch.tensor(float(reference.get("grounded", True)))
        return Example({"grounded": grounded}, reference)

    def on_step_end(self, ctx: Context) -> None:
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over the grounded rows. Parts: `there`, the mean probability of covered
        tokens; `elsewhere`, that of the others; `peak`, rows whose most probable token is covered.
        """
        tokens = ctx.encode(self.input)
        covered = mask_coverage(ctx.encode(self.mask), tokens, WHO).to(
            tokens.tokens.device
        )  # [B, T]
        logits = self._logits(tokens, ctx)  # [B sentences, B signals, T]
        real = tokens.mask.float()
        rows = batch.label("grounded", "has no group").to(real.device)
        paired = logits.diagonal().T  # [B, T]
        covered_loss = _mean(F.softplus(-paired), covered * real)
        uncovered_loss = _mean(F.softplus(paired), (1 - covered) * self._weights(paired, real))
        total = (covered_loss + uncovered_loss) / 2
        negatives = self._negatives(batch)  # [B sentences, B signals]
        if bool(negatives.any()):
            nowhere = _mean(F.softplus(logits), self._weights(logits, real.expand_as(logits)))
            total = total + _mean(nowhere, negatives.float().to(real.device)) / 2
        masked_logits = paired.detach().masked_fill(~tokens.mask, -torch.inf)
        peak = covered.gather(1, masked_logits.argmax(1, keepdim=True))[:, 0] > 0
        parts = {
            "there": (_mean(paired.detach().sigmoid(), covered * real) * rows).sum(),
            "elsewhere": (_mean(paired.detach().sigmoid(), (1 - covered) * real) * rows).sum(),
            "peak": (peak * rows).sum(),
        }
        return Loss((total * rows).sum(), rows.sum(), parts)

    def _weights(self, logits: Tensor, real: Tensor) -> Tensor:
        """Return the weights `[..., T]` of negative tokens; the most probable one has 1."""
        scaled = self.hard_negative_scale * logits.detach()
        return (scaled - scaled.amax(-1, keepdim=True)).exp() * real

    def _logits(self, tokens: Features, ctx: Context) -> Tensor:
        """Return `[B sentences, B signals, T]` in float32."""
        sentences = l2_normalize(ctx.encode(self.text).pool())
        cosines = torch.einsum("sd,btd->sbt", sentences, l2_normalize(tokens.tokens))
        return self.log_scale.exp() * cosines + self.bias

    def _negatives(self, batch: Batch) -> Tensor:
        """Return `[B, B]` bool: the sentence of a row holds nowhere in the signal of another."""
        keys = [(t.get("about"), t.get("finding")) for t in batch.references]
        return torch.tensor(
            [[a == b and None not in (f, g) and f != g for b, g in keys] for a, f in keys]
        ).reshape(len(keys), len(keys))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `peak`, the position (mm in the source's world, for volumes) most similar to the
        sentence, its `score`, and the `map` of scores over the grid with its matrix to the world.
        If the batch has the mask also `hit`, `covered` (fraction of the tokens) and `off` (mm to
        its centre); None if it is empty."""
        tokens = ctx.encode(self.input)
        matrix, grid = grid_to_world(tokens, WHO), tokens.grid or ()
        scores = self._logits(tokens, ctx).diagonal().T.sigmoid().detach() * tokens.mask
        positions = transform_points(
            matrix, grid_coordinates(grid, scores).expand(len(scores), -1, -1)
        )  # [B, T, n]
        best = scores.argmax(1)
        rows: list[dict[str, Any]] = [
            {
                "peak": positions[i, best[i]].tolist(),
                "score": float(scores[i, best[i]]),
                "map": {
                    "values": [round(value, 4) for value in scores[i].tolist()],
                    "grid": list(grid),
                    "matrix": matrix[i].tolist(),
                },
            }
            for i in range(len(scores))
        ]
        if batch.has(self.mask):
            covered = mask_coverage(ctx.encode(self.mask), tokens, WHO) * tokens.mask
            for i, row in enumerate(rows):
                row.update(_scored(covered[i], positions[i], int(best[i]), int(tokens.lengths[i])))
        return rows

    def export_maps(self, prediction: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        saved = prediction["map"]
        values = torch.tensor(saved["values"]).reshape(saved["grid"])
        return {"map": (values, torch.tensor(saved["matrix"]))}

    def metrics(self) -> Metrics:
        return PointingMetrics()

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Return the predictions without the maps."""
        return [{k: v for k, v in row.items() if k != "map"} for row in predictions]

    def example_rows(self) -> list[dict[str, Any]]:
        return [{name: f"{name} {i}" for name in self.columns()} for i in range(2)]


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over the last axis; 0 if all weights are 0."""
    return (values * weights).sum(-1) / weights.sum(-1).clamp(min=1e-6)


def _scored(covered: Tensor, positions: Tensor, best: int, tokens: int) -> dict[str, Any]:
    """Compare a peak with a mask: covered `[T]`, places `[T, n]`."""
    if not bool(covered.any()):
        return {"hit": None, "covered": None, "off": None}
    centre = (covered[:, None] * positions).sum(0) / covered.sum()
    return {
        "hit": bool(covered[best] > 0),
        "covered": int((covered > 0).sum()) / tokens,
        "off": float((positions[best] - centre).norm()),
    }
