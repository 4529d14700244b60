"""Who attends to whom: the named kinds of attention, and the masks that go beyond them.

Legend: `B` rows, `P` positions of the context, `T` positions that are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor

AttentionKind = Literal["causal", "prefix", "block", "bidirectional"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Visibility:
    """Which positions each position attends to.

    A position attends to another if `base`, `mask` and `window` all allow it. It always attends
    to itself and never to padding.

    base: `causal`; `prefix` (the context sees itself both ways, the rest is causal); `block` (the
        context sees itself both ways, the positions see everything); `bidirectional` (everything;
        takes no context).
    mask: bool `[B, T, P + T]`, True = the row attends to the column; or `[B, T, T]`, which sees
        all of the context; or `[B, P + T, P + T]`, with rows for the context too. `B` may be 1.
    restart_positions: position ids count the earlier positions that are visible, so that a
        document or a facet has the ids that it has alone; otherwise they count all earlier ones.
    window: a position attends to the last `window` positions, itself counted, and as far ahead.
    future_weight: in [0, 1]; scales the attention to positions that `base` hides, before the
        weights are normalized. 0 hides them, 1 sees them fully.
    layers: the visibility of single layers, 0 the first, -1 the last; the others have this one.
    """

    base: AttentionKind = "causal"
    mask: Tensor | None = None
    restart_positions: bool = False
    window: int | None = None
    future_weight: float = 0.0
    layers: Mapping[int, Visibility] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.base not in get_args(AttentionKind):
            kinds = ", ".join(get_args(AttentionKind))
            raise ValueError(f"attention: found {self.base!r}, expected one of {kinds}")
        mask = self.mask
        if mask is not None and (mask.ndim != 3 or mask.dtype != torch.bool):
            raise ValueError(
                f"visibility: mask is bool [B, T, P + T], found {mask.dtype} {tuple(mask.shape)}"
            )
        if self.window is not None and self.window < 1:
            raise ValueError(f"visibility: window is at least 1, found {self.window}")
        if not 0 <= self.future_weight <= 1:
            raise ValueError(f"visibility: future_weight is in [0, 1], found {self.future_weight}")
        if any(inner.layers for inner in self.layers.values()):
            raise ValueError("visibility: a layer's visibility has no layers")

    @classmethod
    def documents(cls, ids: Tensor, base: AttentionKind = "causal") -> Self:
        """Return packed documents: each has the hidden states that it has alone.

        ids: `[B, T]`, the number of the document that each position belongs to; or `[B, P + T]`,
        the context included.
        """
        return cls(base=base, mask=_same(ids), restart_positions=True)

    @classmethod
    def facets(cls, ids: Tensor, base: AttentionKind = "causal") -> Self:
        """Facets that share the tokens before them and do not see each other (FLAME, Cao et al.
        2024): one pass returns the hidden states of one pass a facet.

        ids: `[B, T]` or `[B, P + T]`, the number of the facet, 0 for what all of them see.
        """
        return cls(base=base, mask=_same(ids) | (ids == 0)[:, None], restart_positions=True)

    @classmethod
    def bottleneck(cls, special: Tensor, base: AttentionKind = "causal") -> Self:
        """Special tokens that summarize the tokens before them (GEM, 2025): a segment sees itself
        and the special tokens before it, but no earlier segment; a special token sees the segment
        before it and no other special token.

        special: bool `[B, T]` or `[B, P + T]`. Without any, this is `base`.
        """
        last = special & ~torch.nn.functional.pad(special[:, 1:], (0, 1))
        segment = last.cumsum(1) - last.long()  # groups of special tokens that ended before
        ordinary = _same(segment) & ~special[:, None]
        to_special = special[:, None] & ~special[:, :, None]
        return cls(base=base, mask=ordinary | to_special)

    @classmethod
    def full_to_causal(cls, progress: float) -> Visibility:
        """Return a schedule from bidirectional attention (progress 0) to causal attention (1).

        In between, attention to later positions is scaled by `1 - progress` and the weights are
        normalized again (iLLaMA, Wang et al. 2024, whose release does not normalize them).
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"full_to_causal: progress is in [0, 1], found {progress}")
        return CAUSAL if progress == 1 else cls(future_weight=1 - progress)

    def with_windows(self, windows: Mapping[int, int]) -> Self:
        """Return this visibility with the windows of single layers, `{layer: window}`."""
        layers = {i: replace(self, layers={}, window=window) for i, window in windows.items()}
        return replace(self, layers={**self.layers, **layers})

    @property
    def is_named(self) -> bool:
        """True if `base` alone defines it."""
        is_plain = self.window is None and not self.future_weight and not self.layers
        return is_plain and self.mask is None and not self.restart_positions

    @property
    def sees_ahead(self) -> bool:
        """True if a position attends to later ones that are not of the context."""
        return self.base in ("block", "bidirectional") or self.future_weight > 0

    def map_masks(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return this visibility with every mask changed."""
        layers = {i: inner.map_masks(change) for i, inner in self.layers.items()}
        return replace(self, mask=None if self.mask is None else change(self.mask), layers=layers)


CAUSAL = Visibility()
PREFIX = Visibility(base="prefix")
BLOCK = Visibility(base="block")
BIDIRECTIONAL = Visibility(base="bidirectional")

Attention = AttentionKind | Visibility
"""What `attention` of a backbone takes: the name of a constant, or a visibility."""


def as_visibility(attention: Attention) -> Visibility:
    """Return the visibility of a name. Raise ValueError for an unknown name."""
    return attention if isinstance(attention, Visibility) else Visibility(base=attention)


def _same(ids: Tensor) -> Tensor:
    """Return `[B, N, N]`: whether two positions have the same id of `ids [B, N]`."""
    return ids[:, :, None] == ids[:, None]
