"""Distillation of a frozen teacher's embeddings into a student of another signal.

Duquenne et al., "SONAR" (arXiv 2308.11466): a speech encoder learns the vector of the transcript in
a frozen text encoder, by mean squared error; a task trained on the text's vectors then works with
those of speech. Search errors as in LASER's xsim, without its margin.

Legend: `B` rows, `D` width of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Loss, PositiveInt
from ..base import Context, Row, Task
from ..batch import Batch, Example, Tools
from ..uses import StreamUse
from .metrics import RetrievalMetrics


class EmbeddingDistillation(Task):
    """Regression of a frozen stream's vector.

    student: the stream that learns. teacher: the stream of the same rows whose vector is the
    target, frozen (`freeze: true` on all that would train in it). loss: `mse`, the mean over the
    width, or `cosine`, one minus the cosine (the length is then free).

    dim: width of the space, if the teacher's connector ends in another than its encoder's.
    positive_group: a column; rows that share its value are positives of each other in the metrics.
    """

    def __init__(
        self,
        *,
        student: str,
        teacher: str,
        loss: Literal["mse", "cosine"] = "mse",
        dim: PositiveInt | None = None,
        positive_group: str | None = None,
    ) -> None:
        super().__init__()
        if student == teacher:
            raise ValueError(f"teacher: found {teacher!r}, which is the student; name another")
        self.student, self.teacher, self.kind, self.positive_group = (
            student,
            teacher,
            loss,
            positive_group,
        )
        width = teacher if dim is None else dim
        self.streams = {
            student: StreamUse(width=width),
            teacher: StreamUse(role="teacher", width=dim),
        }

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Reference: `group`, if the task uses it and the row has it."""
        if self.positive_group is None or self.positive_group not in row:
            return Example()
        value = row[self.positive_group]
        return Example(reference={"group": value.item() if hasattr(value, "item") else value})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows; zero if the vectors coincide. Parts: `mse` and `cosine`."""
        student, teacher = self._vector(self.student, ctx), self._vector(self.teacher, ctx)
        squares = (student - teacher).square().mean(1)
        cosines = F.cosine_similarity(student, teacher, dim=1)
        total = squares.sum() if self.kind == "mse" else (1 - cosines).sum()
        parts = {"mse": squares.detach().sum(), "cosine": cosines.detach().sum()}
        return Loss(total, len(batch), parts)

    def _vector(self, stream: str, ctx: Context) -> Tensor:
        """Return `[B, D]` in float32."""
        return ctx.encode(stream).pool().float()

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return each row's vectors by stream, not normalized: the student's, and the teacher's if
        the batch has its stream."""
        streams = [name for name in (self.student, self.teacher) if batch.has(name)]
        vectors = {name: self._vector(name, ctx).tolist() for name in streams}
        return [{name: rows[i] for name, rows in vectors.items()} for i in range(len(batch))]

    def metrics(self) -> DistanceMetrics:
        return DistanceMetrics(self.student, self.teacher)

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Return for each direction the rank of the right answer, and the row that came first."""
        search = RetrievalMetrics([(self.student, self.teacher)])
        search.update(predictions, references)
        return search.answers(keys)

    def example_rows(self) -> list[dict[str, Any]]:
        return [
            {}
            if self.positive_group is None
            else {self.positive_group: f"{self.positive_group} {i}"}
            for i in range(2)
        ]


class DistanceMetrics:
    """Distance of a student to its teacher: `mse` (mean over the width), `cosine`, `xsim` (fraction
    of the student's rows whose nearest teacher vector is of another row or group), and the
    retrieval metrics in both directions."""

    def __init__(self, student: str, teacher: str) -> None:
        self.student, self.teacher = student, teacher
        self.search = RetrievalMetrics([(student, teacher)])

    def update(
        self,
        predictions: Sequence[Mapping[str, Sequence[float]]],
        references: Sequence[Mapping[str, Any]],
    ) -> None:
        self.search.update(predictions, references)

    def compute(self) -> dict[str, float]:
        retrieval = self.search.compute()
        student, teacher = (
            torch.cat(self.search.vectors[name]).double() for name in (self.student, self.teacher)
        )
        return {
            "mse": float((student - teacher).square().mean()),
            "cosine": float(F.cosine_similarity(student, teacher, dim=1).mean()),
            "xsim": 1 - retrieval[f"{self.student}_to_{self.teacher}_recall@1"],
            **retrieval,
        }
