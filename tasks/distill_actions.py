"""A language decoder learns to act from a small expert: VITA-VLA (arXiv 2510.09607).

A learned query stands behind the prompt; a mapper takes what the decoder makes of it to the
features of a frozen expert (a run of `action_regression`), whose own decoder then gives the
actions. First the two are aligned, `align: 1, act: 0` with the backbone frozen; then what the
recipe leaves open is tuned on the actions themselves, `act: 1`.

The expert is named by parts of the recipe: its stream (`weights: runs/expert, freeze: true`), the
head `decoder` and the tokenizer, each with `weights: runs/expert:<its task>`.

Legend: `B` rows, `D` width of the decoder, `E` of the expert's features, `L` control points.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..connectors.base import Connector
from ..modalities.action.base import ActionTokenizer
from ..modalities.base import Features
from ._action_forms import SPREAD
from ._action_prompt import context, decoder, parsed
from ._heads import head_output
from .action_regression import ActionRegression
from .base import Batch, Encode, Loss, Row
from .chunks import Chunks


class DistillActions(ActionRegression):
    """prompt: of the student. expert: the stream whose vector is the expert's features; only
    training reads it. align, act: weights of the distance to the expert's features and of the
    error of the actions. distance: mean square, or one minus the cosine."""

    uses_backbone = True

    def __init__(
        self,
        *,
        prompt: str,
        expert: str,
        tokenizer: ActionTokenizer,
        chunk: Chunks,
        action: str = "action",
        last_action: str = "last_action",
        align: float = 1.0,
        act: float = 0.0,
        distance: Literal["mse", "cosine"] = "mse",
        attention: Literal["causal", "prefix"] = "causal",
    ) -> None:
        super().__init__(
            input=expert,
            tokenizer=tokenizer,
            chunk=chunk,
            action=action,
            last_action=last_action,
        )
        self.prompt = parsed(prompt)
        if expert in self.prompt.streams:
            raise ValueError(
                f"expert: {expert!r} stands in the prompt too; give the expert an input of its "
                "own, by data.columns of the same column"
            )
        if align < 0 or act < 0 or not align + act:
            raise ValueError(
                f"align: found align {align} and act {act}, expected 0 or more, one of them more"
            )
        self.streams = (*dict.fromkeys(self.prompt.streams), expert)
        self.aside = self.answers = (expert,)
        self.align, self.act, self.distance, self.attention = align, act, distance, attention

    def attach(self, backbone: Backbone | None, first: int | None) -> None:
        dim, head = decoder(backbone).dim, self.heads["decoder"]
        assert isinstance(head, Connector)
        self.query = nn.Parameter(torch.randn(1, dim) * SPREAD)
        self.mapper = nn.Sequential(
            nn.Linear(dim, head.in_dim), nn.GELU(), nn.Linear(head.in_dim, head.in_dim)
        )

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.prompt.columns, self.action)))

    def targets(self, row: Row) -> dict[str, Any]:
        return {"prompt": self.prompt.render(row), **super().targets(row)}

    def corpus(self, row: Row) -> Iterable[str]:
        return [text for text in self.prompt.render(row) if text]

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """`align` times the distance and `act` times the error of the control points, a sum over
        rows."""
        mapped = self._mapped(batch, encode, backbone)
        wanted = encode(self.streams[-1]).vector().detach().float()
        apart = (mapped - wanted).square().mean(1)
        if self.distance == "cosine":
            apart = 1 - F.cosine_similarity(mapped, wanted, dim=1)
        total, parts = self.align * apart.sum(), {"distance": apart.detach().sum()}
        if self.act:
            error = self.error(head_output(self, "decoder", _features(mapped)), batch)
            total, parts["l1"] = total + self.act * error, error.detach()
        return Loss(total, len(batch), parts)

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, Any]]:
        """As `ActionRegression`; the expert's stream is not looked at."""
        mapped = self._mapped(batch, encode, backbone)
        return self.told(head_output(self, "decoder", _features(mapped)), batch, options)

    def example(self) -> list[dict[str, Any]]:
        return self.example_rows([self.prompt])

    def _mapped(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Tensor:
        """`[B, E]` what the student would have the expert's features be."""
        known = context(self.prompt, batch, encode, backbone)
        query = self.query.expand(len(known.tokens), 1, -1)
        hidden = decoder(backbone)(query, context=known, attention=self.attention)[:, 0]
        found: Tensor = self.mapper(hidden.to(self.mapper[0].weight.dtype))
        return found.float()


def _features(vectors: Tensor) -> Features:
    return Features.full(vectors[:, None]).replace(pooled=vectors)
