"""Control points from a stream's vector by a head, without a language decoder: a small policy.

What behaviour cloning with splines needs least, and the expert that `distill_actions` learns from.

Legend: `B` rows, `L` control points of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ..backbones.base import Backbone
from ..modalities.action.base import ActionTokenizer
from ._action_forms import fixed_length
from ._action_points import Points
from ._action_rows import ActionTask
from ._heads import head_output
from .base import Batch, Encode, Loss
from .chunks import Chunks


class ActionRegression(ActionTask):
    """input: the stream. tokenizer: one with control points. Its head is the `decoder`."""

    head_names: ClassVar[tuple[str, ...]] = ("decoder",)
    head_types: ClassVar[Mapping[str, str]] = {"decoder": "mlp"}

    def __init__(
        self,
        *,
        input: str,
        tokenizer: ActionTokenizer,
        chunk: Chunks,
        action: str = "action",
        last_action: str = "last_action",
    ) -> None:
        super().__init__(tokenizer, chunk, action, last_action)
        self.streams = (input,)
        self.points = Points(tokenizer)

    def head_widths(self) -> dict[str, tuple[str, int]]:
        length = fixed_length(self.tokenizer, self.chunk.steps, "regression")
        return {"decoder": (self.streams[-1], length)}

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Absolute error, the mean of a chunk's control points, a sum over rows."""
        error = self.error(head_output(self, "decoder", encode(self.streams[-1])), batch)
        return Loss(error, len(batch))

    def error(self, found: Tensor, batch: Batch) -> Tensor:
        """Of control points `[B, L]`: the mean of a chunk's absolute errors, a sum over rows."""
        wanted = self.points.encode(self.chunks_of(batch)).to(found.device)
        return (found - wanted).abs().mean(1).sum()

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, Any]]:
        """`{"actions": [steps][dof]}` a row, always finite. options: `steps`, the samples over
        the time of a chunk."""
        found = head_output(self, "decoder", encode(self.streams[-1]))
        return self.told(found, batch, options)

    def told(
        self, points: Tensor, batch: Batch, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Control points `[B, L]` as predictions."""
        made = self.points.decode(points.cpu(), self.steps_of(options), self.starts(batch))
        return [{"actions": one} for one in made.tolist()]
