"""Candidates of a query in a contrastive loss: rows of all processes, hard negatives, and rows of a
queue.

Legend: `B` rows of this process, `N` rows of all processes, `M` hard negatives of all processes,
`K` rows of the queue, `C = N + M + K` candidates, `D` width of the space. The queue: He et al.,
"Momentum Contrast for Unsupervised Visual Representation Learning", 2020; for sentences of two
languages Chi et al., "InfoXLM", 2021.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..common import all_gather_with_grad
from .losses import (
    cross_entropy,
    harden,
    likely_false_negatives,
    pairwise_sigmoid,
    prefix,
    triplet_hinge,
)
from .similarity import cat_embeddings, compare, gather_embeddings


@dataclass(frozen=True)
class Candidates:
    """One side of a comparison. vectors: `[C, D]` (`[C, T, D]` with maxsim), the rows, then the
    hard negatives, then the queue. row: `[C]` the row of each, counted over all processes, -1 of
    the queue. rows: N. excluded: `[B, K]` bool, rows of the queue that a row is not compared
    with."""

    vectors: Tensor
    row: Tensor
    rows: int
    excluded: Tensor | None = None

    def prefix(self, width: int) -> Candidates:
        return replace(self, vectors=prefix(self.vectors, width))

    def without_queue(self) -> Tensor:
        """Return the vectors of the rows and the hard negatives."""
        queued = 0 if self.excluded is None else self.excluded.shape[1]
        return self.vectors[: len(self.vectors) - queued]

    def with_queue(self, vectors: Tensor, excluded: Tensor) -> Candidates:
        """Return the same with the rows of a queue `[K, D]` at the end."""
        row = torch.cat([self.row, self.row.new_full((len(vectors),), -1)])
        return Candidates(torch.cat([self.vectors, vectors]), row, self.rows, excluded)


def gather_candidates(
    rows: Tensor, negatives: Sequence[tuple[Tensor, Tensor]], start: int
) -> Candidates:
    """Return the candidates of one stream; a collective if there are hard negatives.

    rows: `[N, D]` of all processes. negatives: the vectors `[., D]` of this process's hard
    negatives and the row `[.]` of each in its batch. start: the first row of this process.
    """
    vectors, row = [rows], [torch.arange(len(rows), device=rows.device)]
    for local, local_row in negatives:
        vectors.append(gather_embeddings({"": local})[0][""])
        row.append(all_gather_with_grad((local_row.to(rows.device) + start)[:, None])[0][:, 0])
    return Candidates(cat_embeddings(vectors), torch.cat(row), len(rows))


@dataclass(frozen=True)
class Sides:
    """The embeddings of a batch by stream. local: of this process's rows. negatives: of its hard
    negatives, with the row of each. candidates: of all processes."""

    local: Mapping[str, Tensor]
    negatives: Mapping[str, Sequence[tuple[Tensor, Tensor]]]
    candidates: Mapping[str, Candidates]

    def every(self, stream: str) -> Tensor:
        """Return the embeddings of the rows of all processes `[N, D]`."""
        candidates = self.candidates[stream]
        return candidates.vectors[: candidates.rows]

    def prefix(self, width: int) -> Sides:
        negatives = {
            name: [(prefix(vectors, width), row) for vectors, row in parts]
            for name, parts in self.negatives.items()
        }
        local = {name: prefix(vectors, width) for name, vectors in self.local.items()}
        return Sides(local, negatives, {n: c.prefix(width) for n, c in self.candidates.items()})

    def with_queue(self, vectors: Mapping[str, Tensor], excluded: Tensor) -> Sides:
        candidates = {
            name: side.with_queue(vectors[name], excluded) for name, side in self.candidates.items()
        }
        return replace(self, candidates=candidates)


def gather_sides(
    local: Mapping[str, Tensor], negatives: Mapping[str, Sequence[tuple[Tensor, Tensor]]]
) -> tuple[Sides, int]:
    """Return the sides of a batch, and the first row of this process; a collective."""
    gathered, start = gather_embeddings(local)
    candidates = {
        name: gather_candidates(gathered[name], negatives.get(name, ()), start) for name in local
    }
    return Sides(local, negatives, candidates), start


@dataclass(frozen=True)
class Labels:
    """What a direction of a pair is compared by. rows: `[B]`, the row of each query. positive,
    targets: `[B, N]`. guide: `[B, N + M]`, the similarities of a frozen guide, or None."""

    rows: Tensor
    positive: Tensor
    targets: Tensor
    guide: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The loss of queries with candidates.

    loss: `infonce`, `soft`, `siglip` or `hinge`. similarity: see `similarity.compare`. in_batch:
    candidates of other rows are negatives. hinge_margin: of `hinge`, else None.
    false_negative_margin, hardness: see `likely_false_negatives`, `harden`; None and 0 leave them
    out. guide_margin: the same margin for the similarities of a guide.
    """

    loss: str = "infonce"
    similarity: str = "cosine"
    in_batch: bool = True
    hinge_margin: float | None = None
    false_negative_margin: float | None = None
    guide_margin: float = 0.0
    hardness: float = 0.0

    def __call__(
        self,
        queries: Tensor,
        candidates: Candidates,
        labels: Labels,
        scale: Tensor,
        bias: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, a sum over queries, and the number of them whose nearest candidate is a
        positive.

        queries: `[B, D]`. reverse: the other direction of a pair, in which the candidates are the
        queries of a similarity that is not symmetric, and of which `siglip` counts the hard
        negatives alone.
        """
        negatives = len(candidates.row) - candidates.rows
        positive, rows = _widen(labels.positive, negatives), labels.rows
        sides = (candidates.vectors, queries) if reverse else (queries, candidates.vectors)
        similarities = compare(self.similarity, *sides)
        similarities = similarities.T if reverse else similarities
        own = similarities.gather(1, rows[:, None])[:, 0]
        compared = self._compared(candidates, similarities, own, labels, positive)
        correct = _top1_correct(similarities, positive, compared)
        if self.hinge_margin is not None:
            negative = ~positive if compared is None else compared & ~positive
            return triplet_hinge(similarities, own, negative, self.hinge_margin), correct
        logits = scale * similarities
        if self.hardness:
            logits = harden(logits, similarities, positive, self.hardness)
        if self.loss != "siglip":
            return cross_entropy(logits, _widen(labels.targets, negatives), compared), correct
        if reverse:
            once = torch.arange(len(candidates.row), device=rows.device) >= candidates.rows
            compared = once.expand_as(logits) if compared is None else compared & once
        logits = logits if bias is None else logits + bias
        return pairwise_sigmoid(logits, positive, compared), correct

    def _compared(
        self,
        candidates: Candidates,
        similarities: Tensor,
        own: Tensor,
        labels: Labels,
        positive: Tensor,
    ) -> Tensor | None:
        """Return `[B, C]` bool, the candidates that count; None: all."""
        dropped: list[Tensor] = []
        if not self.in_batch:
            dropped.append((labels.rows[:, None] != candidates.row) & ~positive)
        if self.false_negative_margin is not None:
            dropped.append(
                likely_false_negatives(similarities, own, positive, self.false_negative_margin)
            )
        if labels.guide is not None:
            guide = _widen(labels.guide, similarities.shape[1] - labels.guide.shape[1], -torch.inf)
            own_guide = guide.gather(1, labels.rows[:, None])[:, 0]
            dropped.append(likely_false_negatives(guide, own_guide, positive, self.guide_margin))
        if candidates.excluded is not None:
            before = similarities.shape[1] - candidates.excluded.shape[1]
            dropped.append(torch.cat([torch.zeros_like(positive[:, :before]),
                                      candidates.excluded], 1))  # fmt: skip
        return ~torch.stack(dropped).any(0) if dropped else None


def _widen(values: Tensor, columns: int, fill: float = 0) -> Tensor:
    """Return `[B, N + columns]`, the new columns filled with a value."""
    if not columns:
        return values
    return torch.cat([values, values.new_full((len(values), columns), fill)], 1)


def _top1_correct(similarities: Tensor, positive: Tensor, compared: Tensor | None) -> Tensor:
    """Return the number of rows whose nearest candidate is a positive."""
    if not similarities.numel():
        return similarities.new_zeros(())
    similarities = similarities.detach()
    if compared is not None:
        similarities = similarities.masked_fill(~compared, -torch.inf)
    return positive.gather(1, similarities.argmax(1, keepdim=True)).sum().float()


class Queue(nn.Module):
    """The last K rows of each stream. rows, groups: `[K]` hashes of the key and the group of each,
    0 where the place is empty or the row has no group."""

    rows: Tensor
    groups: Tensor
    next: Tensor

    def __init__(self, size: int, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.size, self.names = size, tuple(dims)
        for name, dim in dims.items():
            self.register_buffer(f"vectors_{name}", torch.zeros(size, dim))
        for name in ("rows", "groups"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.long))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))

    def vectors(self, stream: str) -> Tensor:
        """Return `[K, D]`, as they are now: later rows do not change the result."""
        vectors: Tensor = getattr(self, f"vectors_{stream}")
        return vectors.clone()

    def excluded(self, rows: Tensor, groups: Tensor) -> Tensor:
        """Return `[B, K]` bool: empty places, and those of the same row or group.

        rows, groups: `[B]` hashes of the keys and groups.
        """
        same_group = (groups[:, None] == self.groups) & (groups[:, None] != 0)
        return (self.rows == 0) | (rows[:, None] == self.rows) | same_group

    @torch.no_grad()
    def push(self, vectors: Mapping[str, Tensor], rows: Tensor, groups: Tensor) -> None:
        """Put the rows of all processes in place of the oldest.

        vectors: `[N, D]` by stream. rows, groups: `[N]`.
        """
        count = min(len(rows), self.size)
        places = (self.next + torch.arange(count, device=rows.device)) % self.size
        for name in self.names:
            getattr(self, f"vectors_{name}")[places] = vectors[name][-count:]
        self.rows[places], self.groups[places] = rows[-count:], groups[-count:]
        self.next.copy_((self.next + count) % self.size)


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
