"""Contrastive learning of two or more streams in one space, for retrieval.

Cells of one row are positives of each other, all other rows negatives (`losses.py` has the losses
and their sources). Embeddings are gathered from all processes, so that every process compares with
all of them.

Legend: `B` rows of this process, `N` rows of all processes, `D` width of the space.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...modalities.base import Loss, NonNegativeFloat, PositiveFloat, PositiveInt
from ..base import Context, Embed, Row, Task
from ..batch import Batch, Example, Tools
from ..common import MAX_LOGIT_SCALE, all_gather_with_grad, l2_normalize, stable_hash
from ..uses import StreamUse
from .candidates import Candidates, Comparison, full_precision, gather_candidates, positives
from .losses import cwcl_targets, prefix, teachtext_loss, uniform_targets
from .metrics import RetrievalMetrics
from .options import (
    TEMPERATURES,
    check_frozen,
    check_hard_negatives,
    check_negatives,
    check_numbers,
    check_widths,
)
from .zero_shot import ZeroShot


class Contrastive(Task):
    """Contrastive learning of two or more streams.

    streams: two or more; the loss is the mean over all pairs of them. dim: width of the shared
    space. loss: `infonce` (CLIP, symmetric), `siglip` (pairwise sigmoid with a bias) or `soft`
    (CWCL: the targets of a stream's rows are their similarities in a frozen stream) or `hinge`
    (`max(0, hinge_margin - cosine of the positive + cosine of a negative)`, the mean over a row's
    negatives).

    hard_negatives: `{passage: [wrong, worse]}`: streams whose items are further candidates where
    `passage` is searched, one a row; `{passage: wrong}`: each cell of `wrong` is a list of any
    length. They usually share: `inputs: {wrong: {share: passage}}`. in_batch_negatives: false
    compares a row with its own hard negatives alone. false_negative_margin: negatives nearer than
    the positive's cosine less this margin are left out. hardness: negatives get this times their
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

    metric_group: a column; further metrics rank a row among the rows of the same value only.
    zero_shot: `{input: image, target: word, templates: ["a {}."], classes: [...]}`, see `ZeroShot`.
    """

    cross_rows, main_metric = True, "recall@1"

    def __init__(
        self,
        *,
        streams: list[str],
        dim: PositiveInt = 128,
        loss: Literal["infonce", "siglip", "soft", "hinge"] = "infonce",
        temperature: PositiveFloat | None = None,
        bias: float = -10.0,
        positive_group: str | None = None,
        hard_negatives: dict[str, str | list[str]] | None = None,
        in_batch_negatives: bool = True,
        hinge_margin: NonNegativeFloat | None = None,
        false_negative_margin: NonNegativeFloat | None = None,
        hardness: NonNegativeFloat = 0.0,
        matryoshka: list[PositiveInt] | None = None,
        matryoshka_weights: list[float] | None = None,
        soft_target_streams: dict[str, str] | None = None,
        teachers: list[dict[str, str]] | None = None,
        teacher_weight: NonNegativeFloat = 1.0,
        gradcache_chunk_size: PositiveInt | None = None,
        metric_group: str | None = None,
        zero_shot: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.embedded = tuple(dict.fromkeys(streams))
        if len(self.embedded) < 2 or len(self.embedded) < len(streams):
            raise ValueError(f"streams: found {', '.join(streams)}; expected two different ones")
        self.dim, self.positive_group, self.metric_group = dim, positive_group, metric_group
        self.soft_target_streams, self.teachers = soft_target_streams or {}, teachers or []
        self.hard_negatives = check_hard_negatives(hard_negatives or {}, self.embedded)
        check_numbers(temperature, gradcache_chunk_size)
        check_frozen(loss, self.embedded, self.soft_target_streams, self.teachers)
        self.prefixes = check_widths(matryoshka or [], matryoshka_weights, dim)
        self.compare = Comparison(
            loss=loss,
            in_batch=in_batch_negatives,
            hinge_margin=hinge_margin,
            false_negative_margin=false_negative_margin,
            hardness=hardness,
        )
        check_negatives(self.compare, temperature, self.hard_negatives)
        self.streams = self._stream_uses(hard_negatives or {})
        self.teacher_weight, self.gradcache_chunk_size = teacher_weight, gradcache_chunk_size
        self.zero_shot = ZeroShot.read(zero_shot, self.embedded) if zero_shot else None
        begin = -math.log(temperature or TEMPERATURES[loss])
        self.log_scale = nn.Parameter(torch.tensor(begin))
        self.bias = nn.Parameter(torch.tensor(bias)) if loss == "siglip" else None

    def _stream_uses(
        self, hard_negatives: Mapping[str, str | Sequence[str]]
    ) -> dict[str, StreamUse]:
        frozen = [
            *self.soft_target_streams.values(),
            *(t[s] for t in self.teachers for s in self.embedded),
        ]
        self.teacher_streams = tuple(dict.fromkeys(frozen))
        uses = {name: StreamUse(role="teacher") for name in self.teacher_streams}
        uses |= {name: StreamUse(width=self.dim) for name in self.embedded}
        for name, streams in self.hard_negatives.items():
            many = isinstance(hard_negatives[name], str)
            for stream in streams:
                if stream in self.teacher_streams:
                    raise ValueError(
                        f"hard_negatives: {name}: {stream!r} is a teacher; name another"
                    )
                uses[stream] = StreamUse(width=self.dim, many=many)
        return uses

    def inputs(self) -> tuple[str, ...]:
        """Return the streams of the space; a prediction does without hard negatives."""
        return self.embedded

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.embedded, 2))

    def columns(self) -> tuple[str, ...]:
        return () if self.positive_group is None else (self.positive_group,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Label: `group`, the hash of its value. Reference: `group`, `match` and `label`, if the
        task uses them and the row has them."""
        example = Example()
        label = None if self.zero_shot is None else self.zero_shot.target
        columns = {"group": self.positive_group, "match": self.metric_group, "label": label}
        for key, column in columns.items():
            if column is not None and column in row:
                example.reference[key] = _to_json(row[column])
        if "group" in example.reference:
            number = stable_hash(example.reference["group"])
            example.labels["group"] = torch.tensor(number, dtype=torch.long)
        return example

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
            packed, start = all_gather_with_grad(torch.cat(list(local.values()), 1))
            gathered = dict(zip(local, packed.split(self.dim, 1), strict=True))
            every_teacher = {name: all_gather_with_grad(rows)[0] for name, rows in teachers.items()}
            rows = torch.arange(start, start + len(batch), device=device)
            positive = self._positive(batch, rows, len(packed))
            targets = dict.fromkeys(local, uniform_targets(positive))
            for name, target_stream in self.soft_target_streams.items():
                targets[name] = cwcl_targets(
                    teachers[target_stream], every_teacher[target_stream], positive
                )
            candidates = {
                name: gather_candidates(gathered[name], negatives.get(name, ()), start)
                for name in local
            }
            total, correct, distilled = torch.zeros(3, device=device)
            for a, b in self.pairs:
                value, right = self._pair(local, candidates, (a, b), rows, positive, targets)
                total, correct = total + value, correct + right
                for width, weight in self.prefixes.items():
                    short = {name: prefix(local[name], width) for name in (a, b)}
                    shorter = {name: candidates[name].prefix(width) for name in (a, b)}
                    value, _ = self._pair(short, shorter, (a, b), rows, positive, targets)
                    total = total + weight * value
                cosines = [teachers[t[a]] @ every_teacher[t[b]].T for t in self.teachers]
                if cosines:
                    distilled = distilled + teachtext_loss(local[a] @ gathered[b].T, cosines)
            number, scale = len(self.pairs), self.log_scale.detach().exp() * len(batch)
            parts = {"correct": correct / number, "scale": scale}
            if self.teachers:
                parts["teachers"] = distilled.detach() / number
            return Loss((total + self.teacher_weight * distilled) / number, len(batch), parts)

    def _pair(
        self,
        local: Mapping[str, Tensor],
        candidates: Mapping[str, Candidates],
        pair: tuple[str, str],
        rows: Tensor,
        positive: Tensor,
        targets: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a pair of streams, and the number of rows whose nearest candidate is a
        positive."""
        (a, b), scale = pair, self.log_scale.exp()
        forth, correct = self.compare(
            local[a], candidates[b], rows, positive, targets[a], scale, self.bias
        )
        back, correct_back = self.compare(
            local[b], candidates[a], rows, positive, targets[b], scale, self.bias, reverse=True
        )
        value = forth + back if self.bias is not None else (forth + back) / 2
        return value, (correct + correct_back) / 2

    def _negatives(self, batch: Batch, ctx: Context, stream: str) -> tuple[Tensor, Tensor]:
        """Return the vectors of the hard negatives of all rows, and the row of each."""
        rows = torch.arange(len(batch))
        if stream in batch.items:
            rows = rows.repeat_interleave(batch.items[stream])
        return self._vectors(batch, ctx, stream), rows

    def _vectors(self, batch: Batch, ctx: Context, stream: str) -> Tensor:
        """Return `[B, D]` at unit length."""
        learns = stream not in self.teacher_streams
        if not len(batch):
            width = self.dim if learns else 0
            return torch.zeros(0, width, device=self.log_scale.device, requires_grad=learns)
        chunked = learns and self.gradcache_chunk_size is not None
        options: dict[str, Any] = {"chunk": self.gradcache_chunk_size} if chunked else {}
        return l2_normalize(ctx.encode(stream, **options).pool())

    def _positive(self, batch: Batch, rows: Tensor, total: int) -> Tensor:
        """Return `[B, N]` bool, the positives of each row; a row is its own positive."""
        if self.positive_group is None:
            return positives(rows, total)
        cure = f"has no column {self.positive_group!r} to be grouped by"
        return positives(rows, total, batch.label("group", cure) if len(batch) else rows)

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return each row's unit vectors, by stream."""
        vectors = {name: l2_normalize(ctx.encode(name).pool()).tolist() for name in self.embedded}
        return [{name: rows[i] for name, rows in vectors.items()} for i in range(len(batch))]

    def metrics(self) -> RetrievalMetrics:
        return RetrievalMetrics(self.pairs, self.metric_group, self.prefixes)

    def dataset_metrics(
        self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]], embed: Embed
    ) -> dict[str, float]:
        """Return `zero_shot_accuracy` and `zero_shot_chance`, if the recipe has `zero_shot`."""
        if self.zero_shot is None:
            return {}
        vectors = torch.tensor([p[self.zero_shot.input] for p in predictions])
        return self.zero_shot.score(vectors, [r.get("label") for r in references], embed)

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Return for each direction the rank of the right answer, and the rows that came first."""
        metrics = self.metrics()
        metrics.update(predictions, references)
        return metrics.answers(keys)

    def example_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{}, {}]
        names = self.zero_shot.classes if self.zero_shot else None
        label = None if self.zero_shot is None else self.zero_shot.target
        for i, row in enumerate(rows):
            row.update(
                {c: f"{c} {i}" for c in (self.positive_group, self.metric_group) if c is not None}
            )
            if label is not None:
                row[label] = (names or ["cat", "dog"])[-i]
        return rows


def _to_json(value: Any) -> Any:
    """Return a cell as JSON holds it: numpy scalars become Python's."""
    return value.item() if hasattr(value, "item") else value
