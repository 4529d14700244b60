"""Candidates of a query in a contrastive loss: rows of all processes, and hard negatives.

Legend: `B` rows of this process, `N` rows of all processes, `M` hard negatives of all processes,
`C = N + M` candidates, `D` width of the space.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common import all_gather_with_grad
from .losses import (
    cross_entropy,
    harden,
    likely_false_negatives,
    pairwise_sigmoid,
    prefix,
    triplet_hinge,
)


@dataclass(frozen=True)
class Candidates:
    """One side of a comparison. vectors: `[C, D]`, the rows before the hard negatives. row: `[C]`
    the row of each, counted over all processes. rows: N."""

    vectors: Tensor
    row: Tensor
    rows: int

    def prefix(self, width: int) -> Candidates:
        return Candidates(prefix(self.vectors, width), self.row, self.rows)


def gather_candidates(
    rows: Tensor, negatives: Sequence[tuple[Tensor, Tensor]], start: int
) -> Candidates:
    """Return the candidates of one stream; a collective if there are hard negatives.

    rows: `[N, D]` of all processes. negatives: the vectors `[., D]` of this process's hard
    negatives and the row `[.]` of each in its batch. start: the first row of this process.
    """
    vectors, row = [rows], [torch.arange(len(rows), device=rows.device)]
    for local, local_row in negatives:
        vectors.append(all_gather_with_grad(local)[0])
        row.append(all_gather_with_grad((local_row.to(rows.device) + start)[:, None])[0][:, 0])
    return Candidates(torch.cat(vectors), torch.cat(row), len(rows))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The loss of queries with candidates.

    loss: `infonce`, `soft`, `siglip` or `hinge`. in_batch: candidates of other rows are negatives.
    hinge_margin: of `hinge`, else None. false_negative_margin, hardness: see
    `likely_false_negatives`, `harden`; None and 0 leave them out.
    """

    loss: str = "infonce"
    in_batch: bool = True
    hinge_margin: float | None = None
    false_negative_margin: float | None = None
    hardness: float = 0.0

    def __call__(
        self,
        queries: Tensor,
        candidates: Candidates,
        rows: Tensor,
        positive: Tensor,
        targets: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, a sum over queries, and the number of them whose nearest candidate is a
        positive.

        queries: `[B, D]`, rows `[B]` the row of each. positive, targets: `[B, N]`. reverse: the
        other direction of a pair, of which `siglip` counts the hard negatives alone.
        """
        negatives = len(candidates.row) - candidates.rows
        positive = _widen(positive, negatives)
        cosines = queries @ candidates.vectors.T
        own_cosine = cosines.gather(1, rows[:, None])[:, 0]
        compared = self._compared(candidates, cosines, own_cosine, rows, positive)
        correct = _top1_correct(cosines, positive, compared)
        if self.hinge_margin is not None:
            negative = ~positive if compared is None else compared & ~positive
            return triplet_hinge(cosines, own_cosine, negative, self.hinge_margin), correct
        logits = scale * cosines
        if self.hardness:
            logits = harden(logits, cosines, positive, self.hardness)
        if self.loss != "siglip":
            return cross_entropy(logits, _widen(targets, negatives), compared), correct
        if reverse:
            once = torch.arange(len(candidates.row), device=rows.device) >= candidates.rows
            compared = once.expand_as(cosines) if compared is None else compared & once
        logits = logits if bias is None else logits + bias
        return pairwise_sigmoid(logits, positive, compared), correct

    def _compared(
        self,
        candidates: Candidates,
        cosines: Tensor,
        own_cosine: Tensor,
        rows: Tensor,
        positive: Tensor,
    ) -> Tensor | None:
        """Return `[B, C]` bool, the candidates that count; None: all."""
        compared = None
        if not self.in_batch:
            compared = (rows[:, None] == candidates.row) | positive
        if self.false_negative_margin is not None:
            dropped = likely_false_negatives(
                cosines, own_cosine, positive, self.false_negative_margin
            )
            compared = ~dropped if compared is None else compared & ~dropped
        return compared


def _widen(values: Tensor, columns: int) -> Tensor:
    """Return `[B, N + columns]`, the new columns zero or False."""
    return torch.cat([values, values.new_zeros(len(values), columns)], 1) if columns else values


def _top1_correct(cosines: Tensor, positive: Tensor, compared: Tensor | None) -> Tensor:
    """Return the number of rows whose nearest candidate is a positive."""
    if not cosines.numel():
        return cosines.new_zeros(())
    cosines = cosines.detach()
    if compared is not None:
        cosines = cosines.masked_fill(~compared, -torch.inf)
    return positive.gather(1, cosines.argmax(1, keepdim=True)).sum().float()


def positives(rows: Tensor, total: int, groups: Tensor | None = None) -> Tensor:
    """Return `[B, N]` bool, the positives of each row: itself, and those of its group.

    rows: `[B]` of this process, out of `total`. groups: `[B]`, 0 for none; a collective if given.
    """
    positive = rows[:, None] == torch.arange(total, device=rows.device)
    if groups is None:
        return positive
    groups = groups.reshape(-1, 1).to(rows.device)
    every_group, _ = all_gather_with_grad(groups)
    return positive | ((groups == every_group.T) & (groups != 0))


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Disable autocast: cosines times 100 need float32."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
