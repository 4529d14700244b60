"""ReAGent: which tokens of a text each word of a prediction rests on, by replacing them.

Zhao & Shan, "ReAGent: Towards A Model-agnostic Feature Attribution Method for Generative Language
Models", 2024. Only forward passes are needed.

Legend: `L` tokens of the text, `U` words of the prediction, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....modalities.base import Tokenizer
from .scorer import Place, Scorer

Proposals = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(ids `[L]`, which to replace `[L]` bool, generator) -> ids `[L]` with others there."""


@dataclass(frozen=True)
class TextTokens:
    """The ids of a text in the batch. fixed: `[L]` True for those that are not replaced (special
    tokens)."""

    place: Place
    ids: Tensor
    tokenizer: Tokenizer
    fixed: Tensor

    def texts(self) -> list[str]:
        """Return the text of each token."""
        return [self.tokenizer.decode([int(i)]) or f"<{int(i)}>" for i in self.ids]


def reagent(
    scorer: Scorer,
    text: TextTokens,
    proposals: Proposals | None = None,
    *,
    replaced: float = 0.3,
    keep: int = 3,
    min_steps: int = 20,
    max_steps: int = 300,
    runs: int = 3,
    tolerance: float = 0.5,
    seed: int = 0,
) -> np.ndarray:
    """Return `[U, L]`, the importance of each token for each word; a word's values sum to 1.

    In each step a random share `replaced` of the tokens is replaced by proposals; the fall of the
    word's probability p, as `logit((p - p') / 2 + 1 / 2)`, is added to the scores of the replaced
    tokens and subtracted from the others'. A run ends when, after `min_steps`, the `keep` highest
    tokens alone, all others replaced, leave the word a probability of at least `tolerance` times p.
    The importances of `runs` runs are averaged. proposals: by default random tokens of the
    vocabulary.
    """
    propose = proposals or random_tokens(text.tokenizer)
    free = (~text.fixed).nonzero().flatten().cpu()
    whole = scorer.score_many(text.place, [text.ids])[0].exp()  # [U]
    units = len(scorer.units)
    total = torch.zeros(units, len(text.ids), dtype=torch.float64)
    count = max(1, round(replaced * len(free)))
    for run in range(runs):
        generator = torch.Generator().manual_seed(seed + run)
        scores = torch.randn(units, len(text.ids), generator=generator).double()
        active = torch.ones(units, dtype=torch.bool)
        for step in range(max_steps):
            chosen = torch.zeros(len(text.ids), dtype=torch.bool)
            chosen[free[torch.randperm(len(free), generator=generator)[:count]]] = True
            variant = propose(text.ids, chosen.to(text.ids.device), generator)
            changed = scorer.score_many(text.place, [variant])[0].exp()
            delta = ((whole - changed).double().cpu() * 0.5 + 0.5).clamp(1e-6, 1 - 1e-6)
            update = torch.logit(delta)[:, None] * torch.where(chosen, 1.0, -1.0)
            scores += update * active[:, None]
            if step + 1 < min_steps:
                continue
            active &= ~_sufficient(scorer, text, scores, propose, keep, whole, tolerance, generator)
            if not bool(active.any()):
                break
        scores[:, text.fixed.cpu()] = -torch.inf
        total += scores.softmax(-1)
    return np.asarray((total / runs).numpy())


def _sufficient(
    scorer: Scorer,
    text: TextTokens,
    scores: Tensor,
    propose: Proposals,
    keep: int,
    whole: Tensor,
    tolerance: float,
    generator: torch.Generator,
) -> Tensor:
    """Return `[U]`, whether the highest tokens alone leave each word likely."""
    variants, fixed = [], text.fixed.cpu()
    for row in scores.masked_fill(fixed, -torch.inf):
        hidden = ~fixed
        hidden[row.topk(min(keep, len(row))).indices] = False
        variants.append(propose(text.ids, hidden.to(text.ids.device), generator))
    likelihoods = scorer.score_many(text.place, variants).exp().diagonal()
    return (likelihoods >= tolerance * whole).cpu()


def random_tokens(tokenizer: Tokenizer) -> Proposals:
    """Return proposals drawn evenly from the vocabulary, without special tokens."""
    special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.mask_id}
    known = torch.tensor([i for i in range(tokenizer.size) if i not in special])

    def propose(ids: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
        drawn = known[torch.randint(len(known), ids.shape, generator=generator)]
        return torch.where(chosen, drawn.to(ids), ids)

    return propose


def masked_model_tokens(
    logits: Callable[[Tensor], Tensor], mask_id: int, tokenizer: Tokenizer
) -> Proposals:
    """Return proposals sampled from a masked language model. logits: `[1, L]` -> `[1, L, V]`."""
    special = [
        i for i in (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, mask_id) if i is not None
    ]

    @torch.no_grad()
    def propose(ids: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
        masked = torch.where(chosen, torch.full_like(ids, mask_id), ids)
        scores = logits(masked[None])[0].float().cpu()
        scores[:, special] = -torch.inf
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
        return torch.where(chosen, drawn.to(ids), ids)

    return propose
