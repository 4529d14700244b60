"""Regression of control points from a stream's vector by a head, without a language decoder.

The smallest policy with splines, and the expert of `distill_actions`.

Legend: `B` rows, `L` control points of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ...modalities.action.tokenizers import ActionTokenizer
from ...modalities.base import Loss, PositiveInt
from ..base import Context
from ..batch import Batch
from ..common import head_output
from ..uses import HeadUse, StreamUse
from .base import ControlTask
from .decoders import Chunk, ChunkStatistics, Points, fixed_length


class ActionRegression(ControlTask):
    """input: the stream. tokenizer: one with control points. The head is called `decoder`."""

    head_types: ClassVar[Mapping[str, str]] = {"decoder": "mlp"}

    def __init__(
        self,
        *,
        input: str,
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        action: str = "action",
        previous_action: str = "previous_action",
    ) -> None:
        super().__init__(tokenizer, chunk, action, previous_action)
        self.input = input
        self.streams = {input: StreamUse()}
        self.points = Points(tokenizer)

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        length = fixed_length(self.tokenizer, self.chunk.steps, "regression")
        return {"decoder": HeadUse(stream=self.input, out_dim=length)}

    def encode(self, chunk: Chunk) -> Tensor | list[Tensor]:
        return self.points.encode(chunk)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the absolute error, the mean of a chunk's control points, a sum over rows."""
        points = head_output(self, "decoder", ctx.encode(self.input))
        return Loss(self.error(points, batch), len(batch))

    def error(self, points: Tensor, batch: Batch) -> Tensor:
        """Return the absolute error of control points `[B, L]`, the mean of a chunk, a sum over
        rows."""
        return (points - self.target(batch)).abs().mean(1).sum()

    def predict(
        self, batch: Batch, ctx: Context, *, steps: PositiveInt | None = None, **options: Any
    ) -> list[Any]:
        """Return `{"actions": [steps][dof]}` a row, always finite. steps: the number of samples
        over the time of a chunk, by default that of the data's."""
        return self.decoded(head_output(self, "decoder", ctx.encode(self.input)), batch, steps)

    def decoded(self, points: Tensor, batch: Batch, steps: int | None) -> list[dict[str, Any]]:
        """Return control points `[B, L]` as predictions."""
        count = steps or self.chunk.steps
        actions = self.points.decode(points.cpu(), count, self.starts(batch))
        return [{"actions": row} for row in actions.tolist()]
