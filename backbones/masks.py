"""Who sees whom: packing, positions and the additive masks of the four kinds of attention.

Legend: `B` batch, `N` places of a row, `Q` queries, `K` keys, `T` embeds, `P` context, `D` width.

Rows are packed first: the real tokens of [context, embeds] moved together to the left. A
causal model then needs no mask at all, since a real token never sees the padding that comes
after it, and keeps its fast path; the other kinds take an additive 4-D float mask (never
bool: eager attention would add True as +1 and let the future through).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Attention


@dataclass(frozen=True)
class Positions:
    """Places of a row. position: `[B, N]` (or `[1, N]`) count of real places before. real,
    context: `[B, N]` bool, whether a place is real, and whether it is of the context."""

    position: Tensor
    real: Tensor
    context: Tensor

    def __getitem__(self, part: slice) -> Positions:
        return Positions(self.position[:, part], self.real[:, part], self.context[:, part])

    def __add__(self, other: Positions) -> Positions:
        pairs = zip(self.parts, other.parts, strict=True)
        return Positions(*(torch.cat([a.expand(len(b), -1), b], 1) for a, b in pairs))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.position, self.real, self.context


@dataclass(frozen=True)
class Packed:
    """tokens `[B, N, D]`, real ones first; line: their places; back: `[B, T]`, where the
    positions of the embeds went (None: they stayed)."""

    tokens: Tensor
    line: Positions
    back: Tensor | None

    def unpack(self, hidden: Tensor) -> Tensor:
        """hidden `[B, N, D]` -> `[B, T, D]` of the embeds' positions, in their own order."""
        return hidden if self.back is None else take(hidden, self.back)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens `[B, N, D]`, index `[B, K]` -> `[B, K, D]`: whole rows are copied, which is several
    times faster than `gather` forwards and backwards."""
    rows, places, width = tokens.shape
    start = torch.arange(rows, device=index.device)[:, None] * places
    flat = tokens.reshape(rows * places, width).index_select(0, (index + start).flatten())
    return flat.view(rows, -1, width)


def pack(
    embeds: Tensor,
    mask: Tensor | None,
    before: Tensor | None = None,
    before_mask: Tensor | None = None,
) -> Packed:
    """Put `before [B, P, D]` in front of `embeds [B, T, D]` and the real tokens first.

    A mask of None means that all are real.
    """
    rows, length = embeds.shape[:2]
    if before is None and mask is None:
        real = embeds.new_ones((rows, length), dtype=torch.bool)
        return Packed(embeds, _line(real, torch.zeros_like(real)), None)
    mask = embeds.new_ones((rows, length), dtype=torch.bool) if mask is None else mask
    real, tokens, first = mask, embeds, 0
    if before is not None and before_mask is not None:
        first = before.shape[1]
        real, tokens = torch.cat([before_mask, mask], 1), torch.cat([before, embeds], 1)
    order = (~real).to(torch.uint8).argsort(dim=1, stable=True)
    back = order.argsort(dim=1)[:, first:]
    return Packed(take(tokens, order), _line(real.gather(1, order), order < first), back)


def _line(real: Tensor, context: Tensor) -> Positions:
    return Positions(torch.arange(real.shape[1], device=real.device)[None], real, context & real)


def positions_from_mask(mask: Tensor, context: bool) -> Positions:
    """The places of `mask [B, N]` where they stand, whichever side is padded."""
    position = (mask.cumsum(1) - 1).clamp(min=0)
    return Positions(position, mask, mask if context else torch.zeros_like(mask))


def sliding_windows(config: Any) -> dict[str, int | None]:
    """Layer type -> its sliding window (None: sees everything), from a decoder's configuration;
    the type is empty where all layers are alike."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is None:
        return {"": window}
    return {kind: window if kind == "sliding_attention" else None for kind in types}


def allowed(attention: Attention, query: Positions, key: Positions, window: int | None) -> Tensor:
    """`[B, Q, K]` bool: which keys a query sees. The queries are the last places of the keys."""
    q, k = query.position[:, :, None], key.position[:, None, :]
    seen = k <= q
    if attention == "prefix":
        seen = seen | key.context[:, None, :]
    elif attention == "block":
        seen = key.context[:, None, :] | ~query.context[:, :, None]
    elif attention == "bidirectional":
        seen = torch.ones_like(seen)
    if window is not None:
        seen = seen & ((q - k).abs() < window)
    seen = seen & key.real[:, None, :]
    # A place always sees itself: a row of nothing but -inf would be NaN in half precision.
    n, m = query.real.shape[1], key.real.shape[1]
    itself = torch.ones((n, m), dtype=torch.bool, device=seen.device).tril(m - n).triu(m - n)
    return seen | itself


def additive(
    attention: Attention,
    query: Positions,
    key: Positions,
    kinds: dict[str, int | None],
    dtype: torch.dtype,
) -> Tensor | dict[str, Tensor]:
    """The mask `[B, 1, Q, K]` a model takes, or one for each type of layer where they differ."""
    made: dict[int | None, Tensor] = {}
    for window in set(kinds.values()):
        seen = allowed(attention, query, key, window)[:, None]
        empty = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        made[window] = empty.masked_fill(~seen, torch.finfo(dtype).min)
    if len(made) == 1:
        return next(iter(made.values()))
    return {kind: made[window] for kind, window in kinds.items()}


def allowed_length(config: Any, kind: str, length: int, attention: Attention) -> None:
    """Refuse a row of `length` that the model of this kind has no positions or no window for."""
    limit = getattr(config, "max_position_embeddings", None)
    turning = getattr(config, "rope_parameters", None)
    if limit is not None and turning is None and length > limit:
        raise ValueError(f"{kind} has {limit} positions, found {length}; shorten the context")
    window = min((w for w in sliding_windows(config).values() if w is not None), default=None)
    wide = attention in ("block", "bidirectional")
    if wide and window is not None and length > window:
        raise ValueError(
            f"{kind} has a sliding window of {window}, found {length} positions under {attention} "
            f"attention, which sees all of them; set options: {{sliding_window: {length}}}"
        )
