"""Contrastive learning of two or more streams in one space, for retrieval.

Cells of one row are positives of each other, all other rows negatives (`losses.py` has the losses
and their sources). Embeddings are gathered from all processes, so that every process compares with
all of them.

Legend: `B` rows of this process, `N` rows of all processes, `D` width of the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn

from ...modalities.base import Loss, NonNegativeFloat, PositiveFloat, PositiveInt
from ..base import Context
from ..batch import Batch
from ..common import MAX_LOGIT_SCALE, all_gather_with_grad
from .candidates import (
    Comparison,
    Labels,
    Queue,
    Sides,
    full_precision,
    gather_candidates,
    gather_sides,
)
from .losses import cwcl_targets, teachtext_loss, uniform_targets
from .options import ContrastiveOptions
from .scores import SCORED, scored_loss
from .similarity import Similarity, compare, flops, gather_embeddings
from .towers import Towers, group_hashes, key_hashes
from .zero_shot import ZeroShot


class Contrastive(Towers):
    """Contrastive learning of two or more streams.

    streams: two or more; the loss is the mean over all pairs of them. dim: width of the shared
    space; null takes that of the first stream (the size of a vocabulary). similarity: of two
    embeddings: `cosine`, `dot` (learned sparse vectors), or `maxsim`, the late interaction of all
    tokens, in which the first stream of a pair is the query. loss: `infonce` (CLIP, symmetric),
    `siglip` (pairwise sigmoid with a bias), `soft` (CWCL: the targets of a stream's rows are their
    similarities in a frozen stream), `hinge` (`max(0, hinge_margin - cosine of the positive +
    cosine of a negative)`, the mean over a row's negatives), `cosent` (pairs are ordered as their
    `scores`) or `margin_mse` (the margins of hard negatives are those of a teacher's `scores`).

    scores: a column: with `cosent` a number, with `margin_mse` the scores of the row's positive and
    of its hard negatives, in their order. flops: `{query: 3e-3, passage: 1e-3}`, weights of the
    FLOPS penalty of a stream's vectors, which makes them sparse; reached by a square over the first
    `flops_warmup` of the training.

    hard_negatives: `{passage: [wrong, worse]}`: streams whose items are further candidates where
    `passage` is searched, one a row; `{passage: wrong}`: each cell of `wrong` is a list of any
    length. They usually share: `inputs: {wrong: {share: passage}}`, and only the training split
    needs their columns. in_batch_negatives: false compares a row with its own hard negatives alone.
    queue_size: rows of earlier steps that are negatives too, embedded by a moving average of the
    streams with the decay `queue_momentum` (MoCo). false_negative_margin: negatives nearer than the
    positive's cosine less this margin are left out. guide: `{query: look, passage: read}`: frozen
    streams in place of the task's and of hard negatives'; negatives that they place nearer than the
    positive less `guide_margin` are left out (GIST). hardness: negatives get this times their
    cosine on top of their logit. matryoshka: `[64, 32]`: the loss is added for these prefixes of
    the vectors, weighted by `matryoshka_weights` (1 by default), and they have metrics
    (`dim64_recall@1`).

    positive_group: a column; rows that share its value are positives of each other (a row with null
    has none but itself). soft_target_streams: with `soft`, `{image: look}`: the similarities of the
    rows of `image` are those of the frozen stream `look`. teachers: `[{image: clip_image, caption:
    clip_text}]`, a frozen stream in place of each of the task's; their cosines are distilled with a
    smooth L1 loss of weight `teacher_weight`. temperature: its initial value; it is learned.
    gradcache_chunk_size: rows encoded at a time, their activations recomputed in the backward pass
    (GradCache); for batches larger than memory.

    main_metric: the metric that tables and pages name first; `mrr` counts every rank and so has the
    narrower interval where there are few rows. metric_group: a column; further metrics rank a row
    among the rows of the same value only.
    zero_shot: `{input: image, target: word, templates: ["a {}."], classes: [...]}`, see `ZeroShot`.
    """

    main_metric = "recall@1"

    def __init__(
        self,
        *,
        streams: list[str],
        dim: PositiveInt | None = 128,
        similarity: Similarity = "cosine",
        loss: Literal["infonce", "siglip", "soft", "hinge", "cosent", "margin_mse"] = "infonce",
        temperature: PositiveFloat | None = None,
        bias: float = -10.0,
        scores: str | None = None,
        flops: dict[str, NonNegativeFloat] | None = None,
        flops_warmup: Annotated[float, Ge(0), Lt(1)] = 0.3,
        positive_group: str | None = None,
        hard_negatives: dict[str, str | list[str]] | None = None,
        in_batch_negatives: bool = True,
        queue_size: PositiveInt | None = None,
        queue_momentum: Annotated[float, Ge(0), Lt(1)] = 0.99,
        hinge_margin: NonNegativeFloat | None = None,
        false_negative_margin: NonNegativeFloat | None = None,
        guide: dict[str, str] | None = None,
        guide_margin: Annotated[float, Ge(-2), Le(2)] = 0.0,
        hardness: NonNegativeFloat = 0.0,
        matryoshka: list[PositiveInt] | None = None,
        matryoshka_weights: list[float] | None = None,
        soft_target_streams: dict[str, str] | None = None,
        teachers: list[dict[str, str]] | None = None,
        teacher_weight: NonNegativeFloat = 1.0,
        gradcache_chunk_size: PositiveInt | None = None,
        main_metric: Literal["recall@1", "mrr"] | None = None,
        metric_group: str | None = None,
        zero_shot: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = ContrastiveOptions(
            streams=streams,
            dim=dim,
            compare=Comparison(
                loss=loss,
                similarity=similarity,
                in_batch=in_batch_negatives,
                hinge_margin=hinge_margin,
                false_negative_margin=false_negative_margin,
                guide_margin=guide_margin,
                hardness=hardness,
            ),
            temperature=temperature,
            scores=scores,
            flops=flops or {},
            queue_size=queue_size,
            hard_negatives=hard_negatives or {},
            guide=guide or {},
            soft_target_streams=soft_target_streams or {},
            teachers=teachers or [],
            gradcache_chunk_size=gradcache_chunk_size,
            main_metric=main_metric,
        )
        self.options, self.compare, self.similarity = options, options.compare, similarity
        self.embedded, self.width, self.scored = options.embedded, dim or 0, loss == "cosent"
        self.prefixes = options.prefixes(matryoshka or [], matryoshka_weights)
        self.hard_negatives = options.check()
        self.teacher_streams, self.streams = options.teacher_streams(), options.stream_uses()
        self.flops_warmup, self.queue_momentum = flops_warmup, queue_momentum
        self.queue: Queue | None = None
        self.teacher_weight, self.gradcache_chunk_size = teacher_weight, gradcache_chunk_size
        self.zero_shot = ZeroShot.read(zero_shot, self.embedded) if zero_shot else None
        label = None if self.zero_shot is None else self.zero_shot.target
        columns = (positive_group, metric_group, label, scores)
        self.columns_of = dict(zip(("group", "match", "label", "score"), columns, strict=True))
        self.main_metric = options.headline()
        begin = torch.tensor(-math.log(temperature or options.temperature_default()))
        self.log_scale = nn.Parameter(begin, requires_grad=not options.plain)
        self.bias = nn.Parameter(torch.tensor(bias)) if loss == "siglip" else None

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        self.width = widths[self.embedded[0]]
        if self.options.queue_size is not None:
            self.queue = Queue(self.options.queue_size, dict.fromkeys(self.embedded, self.width))

    def ema_decay(self, progress: float) -> float:
        return self.queue_momentum

    def on_step_end(self, ctx: Context) -> None:
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows of the mean over all pairs of streams. Parts: `correct`, rows
        whose nearest row is a positive, the mean over all directions; `scale`, 1 / temperature."""
        local = {name: self._vectors(batch, ctx, name) for name in self.embedded}
        teachers = {name: self._vectors(batch, ctx, name) for name in self.teacher_streams}
        negatives = {
            name: [self._negatives(batch, ctx, stream) for stream in streams]
            for name, streams in self.hard_negatives.items()
        }
        device = self.log_scale.device
        with full_precision(device):
            sides, start = gather_sides(local, negatives)
            every_teacher = {name: all_gather_with_grad(rows)[0] for name, rows in teachers.items()}
            rows = torch.arange(start, start + len(batch), device=device)
            labels = self._labels(batch, ctx, rows, sides, teachers, every_teacher)
            if self.queue is not None:
                sides = self._with_queue(sides, batch, ctx)
            total, correct, distilled = torch.zeros(3, device=device)
            for a, b in self.pairs:
                value, right = self._pair(sides, (a, b), labels, batch)
                for width, weight in self.prefixes.items():
                    value = (
                        value + weight * self._pair(sides.prefix(width), (a, b), labels, batch)[0]
                    )
                total, correct = total + value, correct + right
                cosines = [teachers[t[a]] @ every_teacher[t[b]].T for t in self.options.teachers]
                if cosines:
                    similarity = compare(self.similarity, local[a], sides.every(b))
                    distilled = distilled + teachtext_loss(similarity, cosines)
            number, scale = len(self.pairs), self.log_scale.detach().exp() * len(batch)
            parts = {"correct": correct / number, "scale": scale}
            if self.options.teachers:
                parts["teachers"] = distilled.detach() / number
            total = (total + self.teacher_weight * distilled) / number
            if self.options.flops:
                penalty = len(batch) * self._flops_penalty(sides, ctx)
                parts["flops"], total = penalty.detach(), total + penalty
            return Loss(total, len(batch), parts)

    def _labels(
        self,
        batch: Batch,
        ctx: Context,
        rows: Tensor,
        sides: Sides,
        teachers: Mapping[str, Tensor],
        every_teacher: Mapping[str, Tensor],
    ) -> dict[tuple[str, str], Labels]:
        """Return the labels of each direction, (query, candidates)."""
        positive = self._positive(batch, rows, len(sides.every(self.embedded[0])))
        targets = dict.fromkeys(self.embedded, uniform_targets(positive))
        for name, soft in self.options.soft_target_streams.items():
            targets[name] = cwcl_targets(teachers[soft], every_teacher[soft], positive)
        guide, guides = self.options.guide, dict[str, Tensor]()
        for name in self.embedded if guide else ():
            streams = self.hard_negatives.get(name, ())
            wrong = [self._negatives(batch, ctx, stream, guide[stream]) for stream in streams]
            guides[name] = gather_candidates(every_teacher[guide[name]], wrong, 0).vectors
        labels = {}
        for a, b in (direction for pair in self.pairs for direction in (pair, pair[::-1])):
            near = teachers[guide[a]] @ guides[b].T if guide else None
            labels[a, b] = Labels(rows, positive, targets[a], near)
        return labels

    def _pair(
        self,
        sides: Sides,
        pair: tuple[str, str],
        labels: Mapping[tuple[str, str], Labels],
        batch: Batch,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a pair of streams, and the number of rows whose nearest candidate is a
        positive."""
        (a, b), scale, local = pair, self.log_scale.exp(), sides.local
        if self.compare.loss in SCORED:
            loss = scored_loss(self.compare, local[a], local[b], sides.negatives.get(b, ()), batch,
                               scale)  # fmt: skip
            return loss, scale.new_zeros(())
        forth, correct = self.compare(local[a], sides.candidates[b], labels[a, b], scale, self.bias)
        back, correct_back = self.compare(
            local[b], sides.candidates[a], labels[b, a], scale, self.bias, reverse=True
        )
        value = forth + back if self.bias is not None else (forth + back) / 2
        return value, (correct + correct_back) / 2

    def _with_queue(self, sides: Sides, batch: Batch, ctx: Context) -> Sides:
        """Return the candidates with those of the queue; then the batch joins the queue."""
        assert self.queue is not None
        device = self.log_scale.device
        keys, groups = key_hashes(batch.keys).to(device), group_hashes(batch).to(device)
        longer = sides.with_queue(
            {name: self.queue.vectors(name) for name in self.embedded},
            self.queue.excluded(keys, groups),
        )
        if self.training:
            local = {name: self._vectors(batch, ctx, name, ".ema") for name in self.embedded}
            with torch.no_grad():
                hashes, _ = all_gather_with_grad(torch.stack([keys, groups], 1))
                self.queue.push(gather_embeddings(local)[0], hashes[:, 0], hashes[:, 1])
        return longer

    def _flops_penalty(self, sides: Sides, ctx: Context) -> Tensor:
        """Return the weighted FLOPS of all rows' vectors and hard negatives."""
        reached = min(1.0, ctx.progress / self.flops_warmup) ** 2 if self.flops_warmup else 1.0
        candidates = {name: sides.candidates[name] for name in self.options.flops}
        values = [
            self.options.flops[name] * flops(side.without_queue())
            for name, side in candidates.items()
        ]
        return reached * torch.stack(values).sum()
