"""A student is matched to a frozen teacher's vectors: another signal enters a space that is there.

Duquenne et al., "SONAR" (arXiv 2308.11466): a speech encoder learns the vector that a frozen text
encoder gives the transcript, by mean square error; what reads the text's vectors then reads those
of speech. Errors of search as in LASER's xsim, without its margin.

Legend: `B` rows, `D` width of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from .base import Batch, Encode, Loss, Row, Task
from .retrieval_metrics import RetrievalMetrics


class DistillEmbedding(Task):
    """student: the stream that learns. teacher: the stream of the same rows whose vector it learns,
    frozen (`freeze: true` on all that would train in it). loss: `mse`, the mean over the width, or
    `cosine`, one minus the cosine (then lengths are free).

    dim: width of the space, where the teacher's connector leads to another than its encoder's.
    group: a column; rows that share its value are right answers to each other in the metrics.
    """

    def __init__(
        self,
        *,
        student: str,
        teacher: str,
        loss: Literal["mse", "cosine"] = "mse",
        dim: int | None = None,
        group: str | None = None,
    ) -> None:
        super().__init__()
        if student == teacher:
            raise ValueError(f"teacher: found {teacher!r}, which is the student; name another")
        self.student, self.teacher, self.kind, self.group = student, teacher, loss, group
        self.streams = (student, teacher)
        self.aside = self.fixed = (teacher,)
        self.follows = {student: teacher}
        self.dim = dim

    def targets(self, row: Row) -> dict[str, Any]:
        """`group`, where it is asked for and the row has it."""
        if self.group is None or self.group not in row:
            return {}
        value = row[self.group]
        return {"group": value.item() if hasattr(value, "item") else value}

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Summed over rows; zero where the vectors coincide. `mse` and `cosine` are both logged."""
        own, goal = self._vectors(encode)
        squares = (own - goal).square().mean(1)
        cosines = F.cosine_similarity(own, goal, dim=1)
        total = squares.sum() if self.kind == "mse" else (1 - cosines).sum()
        parts = {"mse": squares.detach().sum(), "cosine": cosines.detach().sum()}
        return Loss(total, len(batch), parts)

    def _vectors(self, encode: Encode) -> tuple[Tensor, Tensor]:
        """`[B, D]` the student's and the teacher's; nothing is learned of the latter."""
        own = encode(self.student).vector().float()
        with torch.no_grad():
            goal = encode(self.teacher).vector().detach().float()
        return own, goal

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, list[float]]]:
        """A row's two vectors, as they are, by stream."""
        own, goal = (vectors.tolist() for vectors in self._vectors(encode))
        return [{self.student: a, self.teacher: b} for a, b in zip(own, goal, strict=True)]

    def metrics(self) -> DistanceMetrics:
        return DistanceMetrics(self.student, self.teacher)

    def written(
        self,
        predictions: Sequence[Any],
        targets: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> list[dict[str, Any]]:
        """In each direction the rank of the right answer, and the row that came first."""
        search = RetrievalMetrics([(self.student, self.teacher)])
        search.update(predictions, targets)
        return search.answers(keys)

    def example(self) -> list[dict[str, Any]]:
        return [{} if self.group is None else {self.group: f"{self.group} {i}"} for i in range(2)]


class DistanceMetrics:
    """How near a student came to its teacher: `mse` (mean over the width), `cosine`, `xsim` (share
    of the student's rows whose nearest teacher's vector is of another row or group), and the
    measures of retrieval in both directions."""

    def __init__(self, student: str, teacher: str) -> None:
        self.student, self.teacher = student, teacher
        self.search = RetrievalMetrics([(student, teacher)])

    def update(
        self,
        predictions: Sequence[Mapping[str, Sequence[float]]],
        targets: Sequence[Mapping[str, Any]],
    ) -> None:
        self.search.update(predictions, targets)

    def compute(self) -> dict[str, float]:
        found = self.search.compute()
        own, goal = (
            torch.cat(self.search.vectors[name]).double() for name in (self.student, self.teacher)
        )
        return {
            "mse": float((own - goal).square().mean()),
            "cosine": float(F.cosine_similarity(own, goal, dim=1).mean()),
            "xsim": 1 - found[f"{self.student}_to_{self.teacher}_recall@1"],
            **found,
        }
