"""Denoising a canvas: passes that reveal what the decoder is sure of, until the text is decided.

The confidence rule and pruning follow dLLM-ASR (arXiv 2601.17902) and LLaDA's sampler (Nie et
al. 2025): a pass reveals every open place whose best token is sure enough, and at least one.
What is revealed never changes. Tokens that were given beforehand (a prior) may be masked again
once, in the first pass. The canvas is cut at an `eos` that is sure.

Legend: `B` rows, `G` places of the canvas, `N` places asked for, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .noising import reveal_schedule

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(ids `[B, G]`, real `[B, G]`, wanted `[B, G]`) -> logits `[N, V]` of the wanted places."""


@dataclass
class Canvas:
    """ids: `[B, G]`. real: places that the row has. open: places that are masked. given: prior
    tokens, which may be masked again. least: `[B]` places before which no text ends."""

    ids: Tensor
    real: Tensor
    open: Tensor
    given: Tensor
    least: Tensor

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
    """ids: each row's tokens, cut before its first `eos`. passes: `[B]` how many of the passes
    a row took part in. canvas: `[B]` places left at the end."""

    ids: list[list[int]]
    passes: list[int]
    canvas: list[int]


@torch.no_grad()
def sample(canvas: Canvas, predict: Predict, rule: SamplerConfig) -> Denoised:
    """Fill a canvas; the canvas itself stays as it is."""
    state = _State(canvas, rule)
    while bool((active := state.undecided()).any()):
        state.step(predict, active)
    return state.result()


class _State:
    """A canvas on its way."""

    def __init__(self, canvas: Canvas, rule: SamplerConfig) -> None:
        self.rule = rule
        self.ids, self.real = canvas.ids.clone(), canvas.real.clone()
        self.open = canvas.open & canvas.real
        self.doubted = canvas.given & canvas.real
        if rule.remask_below is None:
            self.doubted = torch.zeros_like(self.doubted)
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        self.early = place < canvas.least[:, None]  # no text ends here
        self.passes = torch.zeros(len(self.ids), dtype=torch.long, device=self.ids.device)
        self.quota = [reveal_schedule(int(n), rule.steps or 1) for n in self.open.sum(1)]

    def undecided(self) -> Tensor:
        """`[B]` rows with an open place before their first `eos`, or with tokens to verify."""
        ended = (self._ends().cumsum(1) > 0) | ~self.real
        return (self.open & ~ended).any(1) | self.doubted.any(1)

    def _ends(self) -> Tensor:
        return (self.ids == self.rule.eos_id) & self.real & ~self.open

    def step(self, predict: Predict, active: Tensor) -> None:
        """One pass over the rows that are not decided."""
        width = int((self.real & active[:, None]).sum(1).max())
        asked = ((self.open | self.doubted) & active[:, None])[:, :width]
        ids, doubted = self.ids[:, :width], self.doubted[:, :width]
        logits = predict(ids, self.real[:, :width], asked).float()
        early = self.early[:, :width][asked]
        logits[:, self.rule.eos_id] = logits[:, self.rule.eos_id].masked_fill(early, -torch.inf)
        shares = logits.softmax(-1)  # [N, V], float32: smaller types call everything sure
        best, token = shares.max(-1)
        sure = torch.full(asked.shape, -1.0, device=best.device).masked_scatter(asked, best)
        self.passes += active
        shown = self._chosen(sure.masked_fill(doubted, -1.0))
        again = doubted.clone()
        if self.rule.remask_below is not None:
            own = shares.gather(1, ids[asked][:, None])[:, 0]
            again[asked] &= own < self.rule.remask_below
        self._write(torch.where(shown, ids.masked_scatter(asked, token), ids), shown, again)
        self._cut(shown & (sure >= self.rule.threshold), width)
        self.doubted = self.doubted & ~active[:, None]

    def _write(self, ids: Tensor, shown: Tensor, again: Tensor) -> None:
        width = ids.shape[1]
        self.ids[:, :width] = ids.masked_fill(again, self.rule.mask_id)
        self.open[:, :width] = (self.open[:, :width] & ~shown) | again

    def _cut(self, sure: Tensor, width: int) -> None:
        """Take away the first sure `eos` of a row and whatever stands behind it."""
        cut = (sure & (self.ids[:, :width] == self.rule.eos_id)).cumsum(1) > 0
        self.real[:, :width] &= ~cut
        self.real[:, width:] &= ~cut[:, -1:]
        self.open &= self.real

    def _chosen(self, sure: Tensor) -> Tensor:
        """`[B, G]` the places that this pass reveals, of those with a confidence (not -1)."""
        turn = int(self.passes.max())
        if turn >= self.rule.max_passes:
            return sure >= 0
        if self.rule.steps is None:
            shown = sure >= max(self.rule.threshold, 0.0)
            first = sure.argmax(1, keepdim=True)
            return shown | torch.zeros_like(shown).scatter(1, first, sure.gather(1, first) >= 0)
        shown = torch.zeros_like(sure, dtype=torch.bool)
        for row, quota in enumerate(self.quota):
            count = quota[turn - 1] if turn <= len(quota) else 1
            place = sure[row].topk(min(count, len(sure[row]))).indices
            shown[row, place] = sure[row, place] >= 0
        return shown

    def result(self) -> Denoised:
        ids = []
        for row, real in zip(self.ids.tolist(), self.real.tolist(), strict=True):
            kept = [token for token, there in zip(row, real, strict=True) if there]
            ids.append(kept[: kept.index(self.rule.eos_id)] if self.rule.eos_id in kept else kept)
        return Denoised(ids, self.passes.tolist(), self.real.sum(1).tolist())
