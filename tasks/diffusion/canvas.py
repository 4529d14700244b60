"""Canvases of a batch: those that decoding begins with, and those for training.

Training matches decoding. Without a draft, a row is its tokens followed by `eos` up to a length as
in decoding; a fraction of the positions is masked (LLaDA's forward process). With a draft, a row is
laid out as in decoding: confident words are visible, right or wrong, and only the positions that
decoding would mask are masked. In half of these rows the visible wrong tokens are masked too, as
verification does.

Legend: `B` rows, `G` positions, `n` tokens of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .draft import Draft, DraftConfig, DraftLayout, align_targets, layout_draft
from .noising import apply_mask, elbo_weights, sample_timesteps
from .sampler import Canvas


@dataclass(frozen=True)
class Special:
    """Ids with a meaning on a canvas."""

    mask_id: int
    eos_id: int
    gap_id: int


@dataclass(frozen=True)
class NoisyTargets:
    """ids `[B, G]`: input. real `[B, G]`: positions of the row. target `[B, G]`. hidden `[B, G]`:
    masked positions. weight `[B, G]`: of the cross-entropy of each position."""

    ids: Tensor
    real: Tensor
    target: Tensor
    hidden: Tensor
    weight: Tensor


def make_initial_canvas(slots: Sequence[DraftLayout], special: Special) -> Canvas:
    """Return the canvases that denoising begins with."""
    rows = [torch.tensor([_token_or(t, special.mask_id) for t in s.tokens]) for s in slots]
    opened = [torch.tensor([t is None for t in s.tokens]) for s in slots]
    real = pad_sequence([torch.ones_like(row) for row in opened], True, False)
    ids, masks = pad_sequence(rows, True, special.eos_id), pad_sequence(opened, True, False)
    least = torch.tensor([s.least for s in slots])
    return Canvas(ids, real, masks, real & ~masks, least)


def empty(length: int) -> DraftLayout:
    """Return the layout of a canvas without a draft."""
    return DraftLayout([None] * length, 0, 0)


def make_training_canvas(
    truths: Sequence[Sequence[int]],
    priors: Sequence[Draft | None],
    config: DraftConfig,
    longest: int,
    special: Special,
    draws: torch.Generator,
) -> NoisyTargets:
    """Return noisy canvases for texts of `n` tokens. longest: positions of a canvas without a
    draft."""
    pairs = zip(truths, priors, strict=True)
    rows = [_row(truth, prior, config, longest, special, draws) for truth, prior in pairs]
    visible, targets, counted = (
        [torch.tensor(column) for column in group] for group in zip(*rows, strict=True)
    )
    ids = pad_sequence(visible, True, special.eos_id)  # -1: masked
    real = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in visible], True, False)
    truth = pad_sequence(targets, True, special.eos_id)
    share = sample_timesteps(len(rows), float(torch.rand((), generator=draws)))
    free = (ids < 0) & real
    noisy = apply_mask(
        torch.where(ids < 0, truth, ids),
        free,
        share,
        torch.rand(ids.shape, generator=draws),
        special.mask_id,
    )
    hidden = free & (noisy == special.mask_id)
    visible_weight = (real & ~free) / real.sum(1, keepdim=True)
    weight = (elbo_weights(hidden, share, real) + visible_weight) * pad_sequence(
        counted, True, False
    )
    return NoisyTargets(noisy, real, truth, hidden, weight)


def _row(
    truth: Sequence[int],
    prior: Draft | None,
    config: DraftConfig,
    longest: int,
    special: Special,
    draws: torch.Generator,
) -> tuple[list[int], list[int], list[bool]]:
    """Return the visible tokens (-1 where masked), the targets, and which positions have a loss."""

    def below(high: int) -> int:
        return int(torch.randint(max(high, 1), (), generator=draws))

    if prior is None:
        size = config.length(max(0, len(truth) + below(5) - 2))
        if below(2):
            size = len(truth) + 1 + below(longest - len(truth))
        size = max(size, len(truth) + 1)
        return [-1] * size, [*truth, *[special.eos_id] * (size - len(truth))], [True] * size
    slots = layout_draft(prior, config)
    targets, counted = align_targets(slots, truth, special.eos_id, special.gap_id)
    doubted = bool(below(2))
    visible = [
        -1 if token is None or (doubted and token != right) else token
        for token, right in zip(slots.tokens, targets, strict=True)
    ]
    return visible, targets, counted


def _token_or(token: int | None, other: int) -> int:
    return other if token is None else token
