"""Decoders that read single states: a bag of words, and the tokens that follow.

`bow`: Liu et al. 2022 (RetroMAE-2). `future`: Future Token Prediction, 2024.

Legend: `B` rows, `L` tokens, `D` width, `V` vocabulary, `K` future tokens, `S` pseudo-sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .....modalities.base import Count, PositiveInt, Probability
from ..text import positions_of
from .base import Encoded, Losses, Pretext
from .blocks import Block


class BagOfWords(Pretext):
    """The words of a text from the largest logit of each among its ordinary tokens; the loss is
    least where their softmax is the text's own frequencies."""

    def __init__(self) -> None:
        super().__init__()

    def build(self, dim: int) -> None:
        """There are no parameters: the logits are the encoder's."""

    def losses(self, encoded: Encoded) -> Losses:
        """Return one loss a row."""
        ordinary = ~encoded.text.special
        scores = bag_of_words(encoded.encoder.logits(encoded.features.tokens), ordinary)
        counts = torch.zeros_like(scores).scatter_add(
            1, encoded.text.ids, ordinary.to(scores.dtype)
        )
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        values = -(shares * F.log_softmax(scores, -1)).sum(1)
        return Losses(values, torch.arange(len(values), device=values.device))


def bag_of_words(logits: Tensor, ordinary: Tensor) -> Tensor:
    """Return `[B, V]`, the largest of logits `[B, L, V]` among ordinary tokens `[B, L]`; zeros of
    a text without any."""
    lowest = torch.finfo(torch.float32).min
    scores = logits.float().masked_fill(~ordinary[..., None], lowest).amax(1)
    return scores * ordinary.any(1, keepdim=True)


class Future(Pretext):
    """The next `tokens` tokens from the state of each position, of an encoder that sees none of
    them: `{share: backbone}`. A state becomes a sequence of `length` vectors, which a decoder of
    `layers` reads; `layers: 0` with one token is next-token prediction. decay: factor of the loss
    of each further token. An evaluation has `smoothness`, the cosine of neighbouring states."""

    def __init__(
        self,
        *,
        tokens: PositiveInt = 4,
        decay: Probability = 0.8,
        layers: Count = 1,
        length: PositiveInt = 4,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if not layers and tokens > 1:
            raise ValueError(f"layers: found 0 with {tokens} tokens, expected 1 or more")
        self.tokens, self.decay, self.layers = tokens, decay, layers
        self.length, self.heads = length, heads

    def build(self, dim: int) -> None:
        if self.layers:
            self.expand = nn.Linear(dim, self.length * dim)
            self.queries = nn.Parameter(torch.randn(self.tokens, dim) * 0.02)
            self.blocks = nn.ModuleList(Block(dim, self.heads) for _ in range(self.layers))
            self.norm = nn.LayerNorm(dim)

    def losses(self, encoded: Encoded) -> Losses:
        """Return the losses of all tokens that follow a real one, those of the farther tokens with
        less weight; the mean of the weights is 1."""
        _check_causal(encoded)
        text, weights = encoded.text, self.decay ** torch.arange(self.tokens)
        weights = weights / weights.mean()
        parts: list[Losses] = []
        for k in range(self.tokens):
            after = text.mask[:, k + 1 :]
            if not after.shape[1]:
                break
            positions = positions_of(F.pad(after, (0, k + 1)))
            states = encoded.features.tokens.flatten(0, 1)[positions]
            logits = encoded.encoder.logits(self._predict(states, k)).float()
            labels = text.ids.flatten()[positions + k + 1]
            values = F.cross_entropy(logits, labels, reduction="none") * float(weights[k])
            parts.append(Losses(values, positions // text.ids.shape[1]))
        return Losses(torch.cat([p.values for p in parts]), torch.cat([p.rows for p in parts]))

    def _predict(self, states: Tensor, k: int) -> Tensor:
        """Return the states `[N, D]` that predict the token k + 1 places after states `[N, D]`."""
        if not self.layers:
            return states
        sequence = self.expand(states).unflatten(-1, (self.length, -1))  # [N, S, D]
        hidden = self.queries[k].expand(len(states), 1, -1)
        visible = torch.ones(1, 1, self.length, dtype=torch.bool, device=states.device)
        for block in self.blocks:
            hidden = block(hidden, sequence, visible)
        predicted: Tensor = self.norm(hidden[:, 0])
        return predicted

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        states, mask = encoded.features.tokens.detach().float(), encoded.text.mask
        cosine = F.cosine_similarity(states[:, 1:], states[:, :-1], dim=-1)
        return {"smoothness": (cosine * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1).clamp(min=1)}


def _check_causal(encoded: Encoded) -> None:
    attention = getattr(encoded.encoder, "attention", "bidirectional")
    if attention != "causal":
        raise ValueError(
            f"pretext: future predicts tokens that the encoder sees ({attention} attention); take "
            "encoder: {share: backbone}, or causal_lm with attention: causal"
        )
