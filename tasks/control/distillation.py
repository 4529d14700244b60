"""Distillation of an action expert into a language decoder: VITA-VLA (arXiv 2510.09607).

A learned query follows the prompt; an MLP maps the decoder's output there to the features of a
frozen expert (a run of `action_regression`), whose own decoder then predicts the actions. First the
features are aligned with the backbone frozen, `distill_weight: 1, action_weight: 0`; then the
trainable parts are tuned on the actions, `action_weight: 1`.

The expert is named by parts of the recipe: its stream (`weights: runs/expert, freeze: true`), the
head `decoder` and the tokenizer, each with `weights: runs/expert:<its task>`.

Legend: `B` rows, `D` width of the decoder, `E` of the expert's features, `L` control points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...modalities.action.tokenizers import ActionTokenizer
from ...modalities.base import Features, Loss, NonNegativeFloat, PositiveInt
from ..base import Context, Row
from ..batch import Batch, Example, Tools
from ..common import assemble, head_output, parse_prompt, require_streams
from ..uses import BACKBONE, DecoderUse, StreamUse
from .decoders import INIT_STD, ChunkStatistics
from .regression import ActionRegression


class ActionDistillation(ActionRegression):
    """Distillation of an action expert into a language decoder.

    prompt: of the student. expert: the stream whose vector is the expert's features; only training
    reads it. distill_weight, action_weight: weights of the distance to the expert's features and of
    the error of the actions. distance: mean square error, or one minus the cosine.
    """

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        expert: str,
        tokenizer: ActionTokenizer,
        chunk: ChunkStatistics,
        action: str = "action",
        previous_action: str = "previous_action",
        distill_weight: NonNegativeFloat = 1.0,
        action_weight: NonNegativeFloat = 0.0,
        distance: Literal["mse", "cosine"] = "mse",
        attention: Literal["causal", "prefix"] = "causal",
    ) -> None:
        super().__init__(
            input=expert,
            tokenizer=tokenizer,
            chunk=chunk,
            action=action,
            previous_action=previous_action,
        )
        self.prompt = parse_prompt(prompt)
        prompt_streams = require_streams(self.prompt)
        if expert in self.prompt.streams:
            raise ValueError(
                f"expert: {expert!r} is in the prompt too; give the expert an input of its "
                "own, by data.columns of the same column"
            )
        if distill_weight < 0 or action_weight < 0 or not distill_weight + action_weight:
            raise ValueError(
                f"distill_weight: found {distill_weight}, with action_weight {action_weight}; "
                "expected 0 or more each, and one of them above 0"
            )
        self.streams = {name: StreamUse(width=BACKBONE) for name in prompt_streams}
        self.streams[expert] = StreamUse(role="teacher")
        self.decoders = {BACKBONE: DecoderUse(attention=frozenset({attention}))}
        self.distill_weight, self.action_weight, self.distance, self.attention = (
            distill_weight,
            action_weight,
            distance,
            attention,
        )

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        dim, expert_dim = decoders[BACKBONE].dim, widths[self.input]
        self.query = nn.Parameter(torch.randn(1, dim) * INIT_STD)
        self.mapper = nn.Sequential(
            nn.Linear(dim, expert_dim), nn.GELU(), nn.Linear(expert_dim, expert_dim)
        )

    def prompt_columns(self) -> tuple[str, ...]:
        return self.prompt.columns

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.prompt.columns, self.action)))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        example = super().prepare(row, tools, rng)
        example.labels |= self.prompt.encode(row, tools.tokenizer())
        return example

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        if part.endswith(".tokenizer"):
            return [text for text in self.prompt.render(row) if text]
        return super().fit_examples(part, row)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return `distill_weight` times the distance plus `action_weight` times the error of the
        control points, a sum over rows."""
        student = self._student(batch, ctx)
        teacher = ctx.encode(self.input).pool().float()
        distance = (student - teacher).square().mean(1)
        if self.distance == "cosine":
            distance = 1 - F.cosine_similarity(student, teacher, dim=1)
        total, parts = self.distill_weight * distance.sum(), {"distance": distance.detach().sum()}
        if self.action_weight:
            error = self.error(head_output(self, "decoder", _features(student)), batch)
            total, parts["l1"] = total + self.action_weight * error, error.detach()
        return Loss(total, len(batch), parts)

    def predict(
        self, batch: Batch, ctx: Context, *, steps: PositiveInt | None = None, **options: Any
    ) -> list[Any]:
        """As `ActionRegression`, without the expert's stream."""
        student = self._student(batch, ctx)
        return self.decoded(head_output(self, "decoder", _features(student)), batch, steps)

    def example_rows(self) -> list[dict[str, Any]]:
        return self.chunk_rows([self.prompt])

    def _student(self, batch: Batch, ctx: Context) -> Tensor:
        """Return `[B, E]`, the decoder's output at the query, mapped to the expert's features."""
        context = assemble(self.prompt.streams, batch, ctx)
        query = self.query.expand(len(context.tokens), 1, -1)
        hidden = ctx.decoder()(query, context=context, attention=self.attention)[:, 0]
        student: Tensor = self.mapper(hidden.to(self.mapper[0].weight.dtype))
        return student.float()


def _features(vectors: Tensor) -> Features:
    return Features.dense(vectors[:, None]).replace(pooled=vectors)
