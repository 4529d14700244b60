"""Terms on the encoder of an encoder-decoder.

`denoising` and `contrast`: Zhong et al. 2022 (E2S2). `contrast` with a pair of texts: Wang et al.
2023 (CodeT5+).

Legend: `B` rows, `P` tokens of the longest text, `D` width, `V` vocabulary, `N` chosen tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....backbones.base import Backbone
from ....modalities.base import PositiveFloat, Probability, Tokenizer
from ...base import Row
from ...common import parse_target
from ..masked import TextIds, positions_of
from ..masked.pretext import Losses
from .base import Term, TermInputs


class Denoising(Term):
    """The tokens of the text from the encoder's states of a corrupted copy: of those drawn with
    `prob`, a third each are masked, replaced and exchanged with one another. The head writes by
    the table of the encoder's embeddings; the decoder has no part in it."""

    def __init__(self, *, prob: Probability = 0.15) -> None:
        super().__init__()
        if not 0 < prob < 1:
            raise ValueError(f"prob: found {prob}, expected between 0 and 1")
        self.prob = prob

    def build(self, decoder: Backbone) -> None:
        dim = decoder.dim
        self.mask_vector = nn.Parameter(torch.randn(dim) * 0.02)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))

    def losses(self, inputs: TermInputs) -> Losses:
        text, decoder = inputs.text, inputs.decoder
        chosen = text.choose(self.prob, inputs.generator)
        ids, masked = self.corrupted(text, chosen, decoder.tokenizer.size, inputs.generator)
        embeds = torch.where(masked[..., None], self.mask_vector, decoder.embed(ids))
        states = self.head(inputs.encode(embeds, text.mask))
        positions = positions_of(chosen)
        table = decoder.embed(torch.arange(decoder.tokenizer.size, device=ids.device))
        logits = (states.flatten(0, 1)[positions] @ table.T).float() * decoder.dim**-0.5  # [N, V]
        labels = text.ids.flatten()[positions]
        values = F.cross_entropy(logits, labels, reduction="none")
        return Losses(values, positions // ids.shape[1])

    def corrupted(
        self, text: TextIds, chosen: Tensor, size: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return ids `[B, P]`, and which are to be masked."""
        kind = (text.draws(generator).to(text.ids.device) * 997 % 1 * 3).long()  # [B, P], 0 to 2
        other = (text.draws(generator).to(text.ids.device) * 7919 % 1 * size).long()
        ids = torch.where(chosen & (kind == 1), other, text.ids)
        moved = chosen & (kind == 2)
        places = torch.arange(moved.shape[1], device=moved.device)
        # The previous one of the moved places of a row; of the first one the last.
        behind = torch.where(moved, places, -1).cummax(1).values
        before = F.pad(behind[:, :-1], (1, 0), value=-1)
        source = torch.where(before < 0, behind[:, -1:].clamp(min=0), before)
        return torch.where(moved, text.ids.gather(1, source), ids), chosen & (kind == 0)


class Contrast(Term):
    """Each text against the others of the batch: cross-entropy over the cosines of the means of the
    encoder's states, divided by `temperature`. positive: a template of columns, what belongs to
    the text (a program to its description); by default the same text under another dropout."""

    def __init__(self, *, positive: str | None = None, temperature: PositiveFloat = 0.05) -> None:
        super().__init__()
        self.positive = None if positive is None else parse_target("positive", positive)
        self.temperature = temperature

    def columns(self) -> tuple[str, ...]:
        return () if self.positive is None else self.positive.columns

    def prepare(self, row: Row, tokenizer: Tokenizer) -> dict[str, Tensor]:
        if self.positive is None:
            return {}
        ids = tokenizer.encode(self.positive.render(row)[0])
        return {"positive": torch.tensor([*ids, tokenizer.eos_id])}

    def losses(self, inputs: TermInputs) -> Losses:
        logits = self.compare(inputs)
        rows = torch.arange(len(logits), device=logits.device)
        return Losses(F.cross_entropy(logits, rows, reduction="none"), rows)

    def compare(self, inputs: TermInputs) -> Tensor:
        """Return `[B, B]`, each text against what belongs to each."""
        text = inputs.text
        if self.positive is not None:
            ids, mask = inputs.labels[f"{self.name}.positive"]
            text = TextIds(ids, mask, ~mask)
        return inputs.text_vectors @ inputs.vectors(text).T / self.temperature

    def measures(self, inputs: TermInputs) -> dict[str, Tensor]:
        logits = self.compare(inputs)
        rows = torch.arange(len(logits), device=logits.device)
        return {"contrast_accuracy": (logits.argmax(1) == rows).float()}
