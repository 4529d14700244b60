"""Denoising of a canvas: passes that reveal confident tokens until the text is decided.

The confidence rule and pruning follow dLLM-ASR (arXiv 2601.17902) and LLaDA's sampler (Nie et al.
2025): a pass reveals every masked position whose best token is confident enough, and at least one.
Revealed tokens never change. Tokens of a draft may be masked again once, in the first pass. The
canvas is cut at a confident `eos`.

Legend: `B` rows, `G` positions of the canvas, `N` positions with logits, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .noising import reveal_schedule

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(ids `[B, G]`, real `[B, G]`, selected `[B, G]`) -> logits `[N, V]` of the selected positions."""


@dataclass
class Canvas:
    """ids: `[B, G]`. real: positions of the row. open: masked positions. given: tokens of the
    draft, which may be masked again. least: `[B]`, positions before which no text ends."""

    ids: Tensor
    real: Tensor
    open: Tensor
    drafted: Tensor
    min_length: Tensor

    def to(self, device: torch.device | str) -> Canvas:
        return Canvas(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class SamplerConfig:
    """threshold: the probability from which a token is revealed. remask_below: tokens of the draft
    with a lower probability are masked again, once; None keeps them. steps: number of passes that
    reveal equal numbers of positions, in place of the threshold. max_passes: number of passes after
    which the rest is revealed at once."""

    mask_id: int
    eos_id: int
    threshold: float = 0.9
    remask_below: float | None = None
    steps: int | None = None
    max_passes: int = 1000


@dataclass(frozen=True)
class Denoised:
    """ids: each row's tokens, cut before its first `eos`. passes: `[B]`, number of passes that a
    row took part in. canvas: `[B]`, positions left at the end."""

    ids: list[list[int]]
    passes: list[int]
    canvas: list[int]


@torch.no_grad()
def sample(canvas: Canvas, predict: Predict, rule: SamplerConfig) -> Denoised:
    """Denoise a canvas; the input is not changed."""
    state = _State(canvas, rule)
    while bool((active := state.undecided()).any()):
        state.step(predict, active)
    return state.result()


class _State:
    """The state of a canvas between passes."""

    def __init__(self, canvas: Canvas, rule: SamplerConfig) -> None:
        self.rule = rule
        self.ids, self.real = canvas.ids.clone(), canvas.real.clone()
        self.open = canvas.open & canvas.real
        self.doubted = canvas.drafted & canvas.real
        if rule.remask_below is None:
            self.doubted = torch.zeros_like(self.doubted)
        position = torch.arange(self.ids.shape[1], device=self.ids.device)
        self.early = position < canvas.min_length[:, None]  # no `eos` here
        self.passes = torch.zeros(len(self.ids), dtype=torch.long, device=self.ids.device)
        self.quota = [reveal_schedule(int(n), rule.steps or 1) for n in self.open.sum(1)]

    def undecided(self) -> Tensor:
        """Return `[B]`: rows with a masked position before their first `eos`, or with tokens to
        verify."""
        ended = (self._ends().cumsum(1) > 0) | ~self.real
        return (self.open & ~ended).any(1) | self.doubted.any(1)

    def _ends(self) -> Tensor:
        return (self.ids == self.rule.eos_id) & self.real & ~self.open

    def step(self, predict: Predict, active: Tensor) -> None:
        """Run one pass over the rows that are not decided."""
        width = int((self.real & active[:, None]).sum(1).max())
        selected = ((self.open | self.doubted) & active[:, None])[:, :width]
        ids, doubted = self.ids[:, :width], self.doubted[:, :width]
        logits = predict(ids, self.real[:, :width], selected).float()
        early = self.early[:, :width][selected]
        logits[:, self.rule.eos_id] = logits[:, self.rule.eos_id].masked_fill(early, -torch.inf)
        probabilities = logits.softmax(-1)  # [N, V], float32: smaller types round to 1
        best, token = probabilities.max(-1)
        confidence = torch.full(selected.shape, -1.0, device=best.device).masked_scatter(
            selected, best
        )
        self.passes += active
        revealed = self._positions_to_reveal(confidence.masked_fill(doubted, -1.0))
        again = doubted.clone()
        if self.rule.remask_below is not None:
            current = probabilities.gather(1, ids[selected][:, None])[:, 0]
            again[selected] &= current < self.rule.remask_below
        self._write(
            torch.where(revealed, ids.masked_scatter(selected, token), ids), revealed, again
        )
        self._truncate(revealed & (confidence >= self.rule.threshold), width)
        self.doubted = self.doubted & ~active[:, None]

    def _write(self, ids: Tensor, revealed: Tensor, again: Tensor) -> None:
        width = ids.shape[1]
        self.ids[:, :width] = ids.masked_fill(again, self.rule.mask_id)
        self.open[:, :width] = (self.open[:, :width] & ~revealed) | again

    def _truncate(self, sure: Tensor, width: int) -> None:
        """Remove the first confident `eos` of a row and everything behind it."""
        after_end = (sure & (self.ids[:, :width] == self.rule.eos_id)).cumsum(1) > 0
        self.real[:, :width] &= ~after_end
        self.real[:, width:] &= ~after_end[:, -1:]
        self.open &= self.real

    def _positions_to_reveal(self, confidence: Tensor) -> Tensor:
        """Return `[B, G]`, the positions that this pass reveals, of those with a confidence (not
        -1)."""
        number = int(self.passes.max())
        if number >= self.rule.max_passes:
            return confidence >= 0
        if self.rule.steps is None:
            revealed = confidence >= max(self.rule.threshold, 0.0)
            first = confidence.argmax(1, keepdim=True)
            return revealed | torch.zeros_like(revealed).scatter(
                1, first, confidence.gather(1, first) >= 0
            )
        revealed = torch.zeros_like(confidence, dtype=torch.bool)
        for row, quota in enumerate(self.quota):
            count = quota[number - 1] if number <= len(quota) else 1
            positions = confidence[row].topk(min(count, len(confidence[row]))).indices
            revealed[row, positions] = confidence[row, positions] >= 0
        return revealed

    def result(self) -> Denoised:
        ids = []
        for row, real in zip(self.ids.tolist(), self.real.tolist(), strict=True):
            tokens = [token for token, is_real in zip(row, real, strict=True) if is_real]
            ids.append(
                tokens[: tokens.index(self.rule.eos_id)] if self.rule.eos_id in tokens else tokens
            )
        return Denoised(ids, self.passes.tolist(), self.real.sum(1).tolist())
