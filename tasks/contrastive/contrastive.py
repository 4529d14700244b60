"""Contrastive learning of two or more streams in one space, for retrieval.

Cells of one row are positives of each other, all other rows negatives (`losses.py` has the losses
and their sources). Embeddings are gathered from all processes, so that every process compares with
all of them.

Legend: `B` rows of this process, `N` rows of all processes, `D` width of the space.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...modalities.base import Loss
from ..base import Context, Embed, Row, Task
from ..batch import Batch, Example, Tools
from ..common import MAX_LOGIT_SCALE, all_gather_with_grad, l2_normalize, stable_hash
from ..uses import StreamUse
from .losses import cross_entropy, cwcl_targets, pairwise_sigmoid, teachtext_loss, uniform_targets
from .metrics import RetrievalMetrics
from .zero_shot import ZeroShot

TEMPERATURES = {"infonce": 0.07, "soft": 0.07, "siglip": 0.1}
"""Initial temperatures, as in CLIP and SigLIP."""


class Contrastive(Task):
    """Contrastive learning of two or more streams.

    streams: two or more; the loss is the mean over all pairs of them. dim: width of the shared
    space. loss: `infonce` (CLIP, symmetric), `siglip` (pairwise sigmoid with a bias) or `soft`
    (CWCL: the targets of a stream's rows are their similarities in a frozen stream).

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

    cross_rows = True

    def __init__(
        self,
        *,
        streams: list[str],
        dim: int = 128,
        loss: Literal["infonce", "siglip", "soft"] = "infonce",
        temperature: float | None = None,
        bias: float = -10.0,
        positive_group: str | None = None,
        soft_target_streams: dict[str, str] | None = None,
        teachers: list[dict[str, str]] | None = None,
        teacher_weight: float = 1.0,
        gradcache_chunk_size: int | None = None,
        metric_group: str | None = None,
        zero_shot: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.embedded = tuple(dict.fromkeys(streams))
        if len(self.embedded) < 2 or len(self.embedded) < len(streams):
            raise ValueError(f"streams: found {', '.join(streams)}; expected two different ones")
        self.dim, self.kind, self.positive_group, self.metric_group = (
            dim,
            loss,
            positive_group,
            metric_group,
        )
        self.soft_target_streams, self.teachers = soft_target_streams or {}, teachers or []
        self._check(temperature, gradcache_chunk_size)
        frozen = [
            *self.soft_target_streams.values(),
            *(t[s] for t in self.teachers for s in self.embedded),
        ]
        self.teacher_streams = tuple(dict.fromkeys(frozen))
        self.streams = {name: StreamUse(role="teacher") for name in self.teacher_streams} | {
            name: StreamUse(width=dim) for name in self.embedded
        }
        self.teacher_weight, self.gradcache_chunk_size = teacher_weight, gradcache_chunk_size
        self.zero_shot = ZeroShot.read(zero_shot, self.embedded) if zero_shot else None
        begin = -math.log(temperature or TEMPERATURES[loss])
        self.log_scale = nn.Parameter(torch.tensor(begin))
        self.bias = nn.Parameter(torch.tensor(bias)) if loss == "siglip" else None

    def _check(self, temperature: float | None, gradcache_chunk_size: int | None) -> None:
        if temperature is not None and temperature < 1 / MAX_LOGIT_SCALE:
            raise ValueError(
                f"temperature: found {temperature}, expected {1 / MAX_LOGIT_SCALE} or more"
            )
        if gradcache_chunk_size is not None and gradcache_chunk_size < 1:
            raise ValueError(
                f"gradcache_chunk_size: found {gradcache_chunk_size}, expected at least 1"
            )
        if (self.kind == "soft") != bool(self.soft_target_streams):
            raise ValueError(
                f"soft_target_streams: found {self.soft_target_streams or 'none'} with "
                f"loss: {self.kind}; the two go together, as in loss: soft, "
                "soft_target_streams: {image: look}"
            )
        for name in self.soft_target_streams:
            if name not in self.embedded:
                raise ValueError(
                    f"soft_target_streams: {name!r} is none of {', '.join(self.embedded)}"
                )
        for name, target_stream in self.soft_target_streams.items():
            if target_stream in self.embedded:
                raise ValueError(
                    f"soft_target_streams: {name}: {target_stream!r} is itself learned; name a "
                    "frozen stream"
                )
        for index, teacher in enumerate(self.teachers):
            if set(teacher.values()) & set(self.embedded):
                raise ValueError(f"teachers: number {index + 1} names a stream that is learned")
            if set(teacher) != set(self.embedded):
                raise ValueError(
                    f"teachers: number {index + 1} stands for {', '.join(teacher) or 'none'}, "
                    f"expected a stream for each of {', '.join(self.embedded)}"
                )

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
        device = self.log_scale.device
        with _full_precision(device):
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
            total, correct, distilled = torch.zeros(3, device=device)
            for a, b in self.pairs:
                value, right = self._pair(local, gathered, (a, b), positive, targets)
                total, correct = total + value, correct + right
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
        gathered: Mapping[str, Tensor],
        pair: tuple[str, str],
        positive: Tensor,
        targets: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a pair of streams, and the number of rows whose nearest row is a
        positive."""
        (a, b), scale = pair, self.log_scale.exp()
        a_to_b, b_to_a = (
            scale * local[a] @ gathered[b].T,
            scale * local[b] @ gathered[a].T,
        )  # [B, N]
        correct = (_top1_correct(a_to_b, positive) + _top1_correct(b_to_a, positive)) / 2
        if self.bias is not None:  # one matrix: the other direction's is its transpose
            return pairwise_sigmoid(a_to_b + self.bias, positive), correct
        value = cross_entropy(a_to_b, targets[a]) + cross_entropy(b_to_a, targets[b])
        return value / 2, correct

    def _vectors(self, batch: Batch, ctx: Context, stream: str) -> Tensor:
        """Return `[B, D]` at unit length."""
        learns = stream in self.embedded
        if not len(batch):
            width = self.dim if learns else 0
            return torch.zeros(0, width, device=self.log_scale.device, requires_grad=learns)
        chunked = learns and self.gradcache_chunk_size is not None
        options: dict[str, Any] = {"chunk": self.gradcache_chunk_size} if chunked else {}
        return l2_normalize(ctx.encode(stream, **options).pool())

    def _positive(self, batch: Batch, rows: Tensor, total: int) -> Tensor:
        """Return `[B, N]` bool, the positives of each row; a row is its own positive."""
        positive = rows[:, None] == torch.arange(total, device=rows.device)
        if self.positive_group is None:
            return positive
        if len(batch):
            ids = batch.label("group", f"has no column {self.positive_group!r} to be grouped by")
        else:
            ids = torch.zeros(0, dtype=torch.long)
        ids = ids.reshape(-1, 1).to(rows.device)
        every_id, _ = all_gather_with_grad(ids)
        return positive | ((ids == every_id.T) & (ids != 0))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return each row's unit vectors, by stream."""
        vectors = {name: l2_normalize(ctx.encode(name).pool()).tolist() for name in self.embedded}
        return [{name: rows[i] for name, rows in vectors.items()} for i in range(len(batch))]

    def metrics(self) -> RetrievalMetrics:
        return RetrievalMetrics(self.pairs, self.metric_group)

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
        """Return for each direction the rank of the right answer, and the row that came first."""
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


def _full_precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Disable autocast: cosines times 100 need float32."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _top1_correct(logits: Tensor, positive: Tensor) -> Tensor:
    """Return the number of rows whose largest logit is a positive's."""
    if not logits.numel():
        return logits.new_zeros(())
    return positive.gather(1, logits.detach().argmax(1, keepdim=True)).sum().float()


def _to_json(value: Any) -> Any:
    """Return a cell as JSON holds it: numpy scalars become Python's."""
    return value.item() if hasattr(value, "item") else value
