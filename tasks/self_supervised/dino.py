"""Self-supervision: a student predicts the output of its moving average for other crops.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023, for any encoder
with `token_mask`: pictures, volumes. The losses compare the encoder's vector and its tokens; the
connector, if there is one, is not used.

Legend: `B` rows, `T` tokens of a global crop, `D` width, `K` prototypes, `M` masked tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...modalities.base import (
    Count,
    Features,
    Loss,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Sample,
)
from ..base import Context, StopTraining, Task
from ..batch import Batch
from ..common import Crop, Range, all_gather_with_grad, all_reduce_sum, cosine, ema_copy
from ..uses import StreamUse
from . import dino_losses as losses
from .block_mask import block_masks

GLOBALS = ("global0", "global1")
MIN_ROWS = 16
"""Rows of a process from which KoLeo is computed, and vectors from which a collapse is judged."""
COLLAPSE_ENTROPY = 0.999
"""Fraction of log K from which the teacher's targets count as uniform."""


class DINO(Task):
    """input: the stream. size, scale: of the two global crops, an axis or all, and the share of
    the sample that they show; local_size, local_scale, local_crops: of the local ones.

    prototypes, hidden, bottleneck: of both heads (the vector's, the masked tokens').
    masked_fraction, mask_ratio: fraction of the global crops that are masked, and of their tokens.
    patch_weight, koleo_weight: of the masked tokens' loss and of KoLeo (none below 16 rows a
    process).

    temperature: the student's; teacher_temperature: the teacher's at first and after
    `teacher_temperature_warmup`, a fraction of the training. ema_decay: of the moving average, from
    its first value to its last by a cosine. min_rank, patience: training stops if, for `patience`
    steps in a row, the rank of the teacher's vectors is below `min_rank` or its targets are all
    but uniform.
    """

    collapsed_steps: Tensor
    seen: Tensor
    cross_rows = True

    def __init__(
        self,
        *,
        input: str,
        size: PositiveInt | list[PositiveInt],
        local_size: PositiveInt | list[PositiveInt],
        scale: Range = (0.32, 1.0),
        local_scale: Range = (0.05, 0.32),
        local_crops: Count = 8,
        prototypes: PositiveInt = 65536,
        hidden: PositiveInt = 2048,
        bottleneck: PositiveInt = 256,
        masked_fraction: Probability = 0.5,
        mask_ratio: Range = (0.1, 0.5),
        patch_weight: NonNegativeFloat = 1.0,
        koleo_weight: NonNegativeFloat = 0.1,
        temperature: PositiveFloat = 0.1,
        teacher_temperature: Range = (0.04, 0.07),
        teacher_temperature_warmup: Probability = 0.3,
        ema_decay: Range = (0.992, 1.0),
        min_rank: PositiveFloat = 1.1,
        patience: PositiveInt = 200,
    ) -> None:
        super().__init__()
        shares = {"scale": scale, "local_scale": local_scale, "mask_ratio": mask_ratio}
        for name, (low, high) in {**shares, "ema_decay": ema_decay}.items():
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name}: found {low} to {high}, expected 0 <= low <= high <= 1")
        if min(teacher_temperature) <= 0:
            raise ValueError(f"teacher_temperature: found {teacher_temperature}, expected > 0")
        self.input = input
        self.streams = {
            input: StreamUse(
                supports=frozenset({"token_mask"}), ema=True, views=True, augment="view"
            )
        }
        self.crop, self.local = Crop(size, scale), Crop(local_size, local_scale)
        self.locals = tuple(f"local{i}" for i in range(local_crops))
        self.in_dim = 0  # set by `build`
        self.sizes = (hidden, bottleneck, prototypes)
        self.masked_fraction, self.mask_ratio = masked_fraction, mask_ratio
        self.patch_weight, self.koleo_weight = patch_weight, koleo_weight
        self.student_temperature, self.teacher_temperature_warmup = (
            temperature,
            teacher_temperature_warmup,
        )
        self.teacher_temperature, self.ema_decay_range = teacher_temperature, ema_decay
        self.min_rank, self.patience = min_rank, patience
        self.student, self.teacher = nn.ModuleDict(), nn.ModuleDict()
        self.register_buffer("collapsed_steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros(2))  # the rank and the entropy of the last step

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        """Create the heads of the student, and the teacher's as copies."""
        self.in_dim = widths[f"{self.input}.encoder"]
        for name in ("vector", "token"):
            self.student[name] = losses.DINOHead(self.in_dim, *self.sizes)
            self.teacher[name] = ema_copy(self.student[name])

    def views(self, stream: str, sample: Sample, rng: np.random.Generator) -> dict[str, Sample]:
        """Return `global0`, `global1`, `local0`, ..."""
        crops = {name: self.crop(sample, rng) for name in GLOBALS}
        return {**crops, **{name: self.local(sample, rng) for name in self.locals}}

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows. Parts: `vector`, `token`, `koleo`, and of the teacher `entropy`
        (of its targets; at most log K) and `rank` (of its vectors; at least 1)."""
        rows = len(batch)
        teacher = [ctx.encode(f"{self.input}.ema", view) for view in GLOBALS] if rows else []
        masks = [
            block_masks(f.grid or (f.tokens.shape[1],), rows, self.masked_fraction, self.mask_ratio)
            for f in teacher
        ]
        student = [
            ctx.encode(f"{self.input}.encoder", view, token_mask=mask.to(f.tokens.device))
            for view, mask, f in zip(GLOBALS, masks, teacher, strict=False)
        ]
        student += [ctx.encode(f"{self.input}.encoder", view) for view in self.locals if rows]
        vectors, teacher_vectors = self._stacked(student), self._stacked(teacher)
        temperature = self._teacher_temperature(ctx.progress)
        logits = self._head("teacher", "vector", teacher_vectors)
        targets = losses.sinkhorn(logits, temperature)
        cls_loss = self._vectors(vectors, targets, rows)
        token = self._tokens(student, teacher, masks, rows, temperature)
        spread = vectors.new_zeros(())
        if rows >= MIN_ROWS and self.koleo_weight:
            pair = vectors[: 2 * rows].split(rows)
            spread = rows * (losses.koleo(pair[0]) + losses.koleo(pair[1])) / 2
        total = cls_loss + self.patch_weight * token + self.koleo_weight * spread
        parts = {"vector": cls_loss, "token": token, "koleo": spread}
        parts |= self._monitor_collapse(teacher_vectors, targets)
        return Loss(total, rows, {name: value.detach() for name, value in parts.items()})

    def _stacked(self, views: Sequence[Features]) -> Tensor:
        """Return the vectors `[views B, D]`; none if the batch is empty."""
        if not views:
            return next(self.student.parameters()).new_zeros(0, self.in_dim)
        return torch.cat([view.pool() for view in views])

    def _head(self, owner: str, name: str, vectors: Tensor) -> Tensor:
        logits: Tensor = getattr(self, owner)[name](vectors)
        return logits

    def _teacher_temperature(self, progress: float) -> float:
        """Return the teacher's temperature, which rises during `teacher_temperature_warmup`."""
        low, high = self.teacher_temperature
        share = (
            min(progress / self.teacher_temperature_warmup, 1.0)
            if self.teacher_temperature_warmup
            else 1.0
        )
        return low + (high - low) * share

    def _vectors(self, vectors: Tensor, targets: Tensor, rows: int) -> Tensor:
        """Return the loss of each student crop against the teacher's other global crops, the mean
        of all pairs."""
        logits = self._head("student", "vector", vectors)
        if not rows:
            return logits.sum() * 0
        crops, goals = logits.split(rows), targets.split(rows)
        pairs = [
            losses.cross_entropy(crop, goal, self.student_temperature).sum()
            for i, crop in enumerate(crops)
            for j, goal in enumerate(goals)
            if i != j
        ]
        return torch.stack(pairs).mean()

    def _tokens(
        self,
        student: Sequence[Features],
        teacher: Sequence[Features],
        masks: Sequence[Tensor],
        rows: int,
        temperature: float,
    ) -> Tensor:
        """Return the loss at real masked tokens: the mean of a crop's tokens, then of the masked
        crops."""
        if rows:
            row, position = torch.cat(list(masks)).nonzero().to(teacher[0].tokens.device).T
            real = torch.cat([f.mask for f in teacher])[row, position]  # [M]
            goal = torch.cat([f.tokens for f in teacher])[row, position]  # [M, D]
            tokens = torch.cat([f.tokens for f in student[:2]])[row, position]
        else:
            goal = tokens = self._stacked(())
            row, real = goal.new_zeros(0, dtype=torch.long), goal.new_zeros(0, dtype=torch.bool)
        targets = losses.sinkhorn(self._head("teacher", "token", goal), temperature, real)
        logits = self._head("student", "token", tokens)
        each = losses.cross_entropy(logits, targets, self.student_temperature) * real
        count = each.new_zeros(2 * rows).index_add(0, row, real.to(each.dtype))
        weights = 1 / count.clamp(min=1)[row]
        crops = 2 * math.ceil(rows * self.masked_fraction)
        return (each * weights).sum() * rows / max(1, crops)

    @torch.no_grad()
    def _monitor_collapse(self, vectors: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return entropy and rank of the teacher, equal in every process, as sums over this one's
        rows."""
        vectors_of_all, _ = all_gather_with_grad(vectors.detach())
        total = all_reduce_sum(losses.entropy(targets).sum())
        entropy = total / max(1, len(vectors_of_all))
        rank = losses.rankme(vectors_of_all) if len(vectors_of_all) else entropy.new_ones(())
        rows = len(vectors) // 2
        if self.training and not entropy.is_meta and len(vectors_of_all) >= MIN_ROWS:
            uniform = entropy > COLLAPSE_ENTROPY * math.log(max(2, self.sizes[2]))
            collapsed = (rank < self.min_rank) | uniform
            self.collapsed_steps.copy_(torch.where(collapsed, self.collapsed_steps + 1, 0))
            self.seen.copy_(torch.stack([rank, entropy]))
        return {"entropy": entropy * rows, "rank": rank * rows}

    def on_step_end(self, ctx: Context) -> None:
        """Stop training if the teacher maps all inputs to the same targets."""
        if ctx.step % max(1, self.patience // 10):
            return  # reading the counter synchronizes with the device
        if int(self.collapsed_steps) >= self.patience:
            rank, entropy = self.seen.tolist()
            limit = COLLAPSE_ENTROPY * math.log(max(2, self.sizes[2]))
            raise StopTraining(
                f"collapsed: the teacher's vectors have rank {rank:.2f} (expected {self.min_rank} "
                f"or more) and its targets entropy {entropy:.2f} (expected less than "
                f"{limit:.2f}) for {self.patience} steps; lower "
                "train.optimizer.lr, raise train.batch_size or koleo_weight, or give it more "
                "varied crops"
            )

    def ema_decay(self, progress: float) -> float:
        return cosine(*self.ema_decay_range, progress)

    def ema_modules(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return ((self.teacher, self.student),)

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return the teacher's unit vector of the whole signal."""
        vectors = ctx.encode(f"{self.input}.ema").pool().float()
        rows: list[list[float]] = nn.functional.normalize(vectors, dim=-1).tolist()
        return rows

    def metrics(self) -> EmbeddingSpread:
        return EmbeddingSpread()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]


class EmbeddingSpread:
    """Metrics of vectors: `rank`, the number of directions that they use, and `spread`, one minus
    the length of their mean (0 if all are equal)."""

    def __init__(self) -> None:
        self.vectors: list[Sequence[float]] = []

    def update(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        self.vectors += predictions

    def compute(self) -> dict[str, float]:
        if not self.vectors:
            raise ValueError("dino: no row was accumulated; is the split empty?")
        vectors = torch.tensor(self.vectors)
        return {
            "rank": float(losses.rankme(vectors)),
            "spread": float(1 - vectors.mean(0).norm()),
        }
