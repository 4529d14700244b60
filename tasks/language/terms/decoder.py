"""Terms on the decoder of an encoder-decoder.

`detection` and `redenoising`: Yang et al. 2022 (GanLM): the decoder's own samples are told from
the target, and the target is written behind them. `matching`: Wang et al. 2023 (CodeT5+).

Legend: `B` rows, `L` tokens of the longest target, `D` width, `N` predictions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....backbones.base import Backbone
from ....modalities.base import Features, Tokenizer
from ...base import Row
from ...common import parse_target
from ..masked import positions_of
from ..masked.pretext import Losses
from .base import Term, TermInputs


class Detection(Term):
    """Which tokens of the target were replaced, where each was drawn from the decoder's own
    prediction, from the state that has read it. A token drawn right is an original; sampling has
    no gradient."""

    def __init__(self) -> None:
        super().__init__()

    def build(self, decoder: Backbone) -> None:
        self.head = nn.Sequential(
            nn.Linear(decoder.dim, decoder.dim), nn.GELU(), nn.Linear(decoder.dim, 1)
        )

    def scores(self, inputs: TermInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and labels `[N]`, and the flattened position of each."""
        ids, mask = inputs.target
        positions = positions_of(mask)
        scores = self.head(inputs.reread[:, 1:]).flatten()[positions].float()
        return scores, (inputs.sampled != ids).flatten()[positions].float(), positions

    def losses(self, inputs: TermInputs) -> Losses:
        scores, labels, positions = self.scores(inputs)
        values = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        return Losses(values, positions // inputs.target[0].shape[1])


class Redenoising(Term):
    """The target behind the tokens that the decoder drew in place of it."""

    def __init__(self) -> None:
        super().__init__()

    def losses(self, inputs: TermInputs) -> Losses:
        ids, mask = inputs.target
        positions = positions_of(mask)
        hidden = inputs.reread[:, :-1].flatten(0, 1)[positions]
        logits = inputs.decoder.logits(hidden).float()
        values = F.cross_entropy(logits, ids.flatten()[positions], reduction="none")
        return Losses(values, positions // ids.shape[1])


class Matching(Term):
    """Whether a text and its `pair`, a template of columns, belong together, from the decoder's
    last state behind both. Each text also stands with the pair of another row of the batch: of
    the text nearest to it by the encoder's vectors (a hard negative)."""

    def __init__(self, *, pair: str) -> None:
        super().__init__()
        self.pair = parse_target("pair", pair)

    def columns(self) -> tuple[str, ...]:
        return self.pair.columns

    def build(self, decoder: Backbone) -> None:
        self.head = nn.Linear(decoder.dim, 1)

    def prepare(self, row: Row, tokenizer: Tokenizer) -> dict[str, Tensor]:
        ids = tokenizer.encode(self.pair.render(row)[0])
        return {"pair": torch.tensor([*ids, tokenizer.eos_id])}

    def match(self, inputs: TermInputs, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the logits `[B]` that ids `[B, L]` belong to the texts."""
        text = inputs.text
        context = Features(inputs.decoder.embed(text.ids), text.mask)
        hidden = inputs.decoder.teacher_force(context, F.pad(ids, (0, 1)), F.pad(mask, (0, 1)))
        rows = torch.arange(len(ids), device=ids.device)
        scores: Tensor = self.head(hidden[rows, mask.sum(1)])[:, 0].float()
        return scores

    def scores(self, inputs: TermInputs) -> tuple[Tensor, Tensor | None]:
        """Return the logits `[B]` of the pairs and of the hard negatives; None of a single row."""
        ids, mask = inputs.labels[f"{self.name}.pair"]
        right = self.match(inputs, ids, mask)
        if len(ids) < 2:
            return right, None
        vectors = inputs.text_vectors.detach()
        nearest = (vectors @ vectors.T).fill_diagonal_(-2.0).argmax(1)
        return right, self.match(inputs, ids[nearest], mask[nearest])

    def losses(self, inputs: TermInputs) -> Losses:
        right, wrong = self.scores(inputs)
        rows = torch.arange(len(right), device=right.device)
        if wrong is None:
            return Losses(F.softplus(-right), rows)
        return Losses(torch.cat([F.softplus(-right), F.softplus(wrong)]), rows.repeat(2))

    def measures(self, inputs: TermInputs) -> dict[str, Tensor]:
        right, wrong = self.scores(inputs)
        hits = (right > 0).float()
        return {"matching_accuracy": hits if wrong is None else (hits + (wrong <= 0).float()) / 2}
