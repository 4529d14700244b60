"""Packed rows, position ids and additive masks for a visibility.

Legend: `B` batch, `N` positions of a row, `Q` queries, `K` keys, `T` embeds, `P` context, `D`
width.

Rows are packed first: the real tokens of [context, embeds] are moved to the left. A causal model
then needs no mask, since a real token never attends to the padding after it, and keeps its fast
path; every other visibility becomes an additive 4-D float mask, here only (never bool: eager
attention would add True as +1 and reveal the future).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import RowErrors
from ..visibility import AttentionKind, Visibility


@dataclass(frozen=True)
class Positions:
    """Positions of a row. index: `[B, N]` (or `[1, N]`), the number of real positions before.
    real, context: bool `[B, N]`, whether a position is real, and whether it is of the context."""

    index: Tensor
    real: Tensor
    context: Tensor

    def __getitem__(self, part: slice) -> Positions:
        return Positions(self.index[:, part], self.real[:, part], self.context[:, part])

    def __add__(self, other: Positions) -> Positions:
        pairs = zip(self.parts, other.parts, strict=True)
        return Positions(*(torch.cat([a.expand(len(b), -1), b], 1) for a, b in pairs))

    def after(self, start: Tensor) -> Positions:
        """Return the same positions behind `start [B, 1]` others."""
        return Positions(self.index + start, self.real, self.context)

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.index, self.real, self.context


@dataclass(frozen=True)
class Packed:
    """A packed row. tokens: `[B, N, D]`, real ones first. first: `P`, the number of positions
    before the embeds. order: `[B, N]`, which of [context, embeds] is at each position; back:
    `[B, T]`, where the embeds went (both None: all stayed where they were)."""

    tokens: Tensor
    positions: Positions
    first: int = 0
    order: Tensor | None = None
    back: Tensor | None = None

    def unpack(self, hidden: Tensor) -> Tensor:
        """hidden `[B, N, D]` -> `[B, T, D]` of the embeds' positions, in their own order."""
        return hidden if self.back is None else take(hidden, self.back)

    def put_back(self, hidden: Tensor, changed: Tensor) -> Tensor:
        """hidden `[B, N, D]` with `changed [B, T, D]` at the embeds' positions."""
        if self.back is None:
            return changed
        return hidden.scatter(1, self.back[..., None].expand_as(changed), changed)

    @property
    def indices(self) -> Tensor:
        """`order [B, N]`, the identity if it is None."""
        if self.order is not None:
            return self.order
        rows, length = self.tokens.shape[:2]
        return torch.arange(length, device=self.tokens.device).expand(rows, -1)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Return `[B, K, D]` of tokens `[B, N, D]` at index `[B, K]`: whole rows are copied, several
    times faster than `gather` forward and backward."""
    rows, length, width = tokens.shape
    start = torch.arange(rows, device=index.device)[:, None] * length
    flat = tokens.reshape(rows * length, width).index_select(0, (index + start).flatten())
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
        return Packed(embeds, packed_positions(real, torch.zeros_like(real)))
    mask = embeds.new_ones((rows, length), dtype=torch.bool) if mask is None else mask
    real, tokens, first = mask, embeds, 0
    if before is not None and before_mask is not None:
        first = before.shape[1]
        real, tokens = torch.cat([before_mask, mask], 1), torch.cat([before, embeds], 1)
    order = real_first(real)
    back = order.argsort(dim=1)[:, first:]
    positions = packed_positions(real.gather(1, order), order < first)
    return Packed(take(tokens, order), positions, first, order, back)


def real_first(mask: Tensor) -> Tensor:
    """Return `[B, N]`: the positions of `mask [B, N]`, real ones first, otherwise in order."""
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)


def packed_positions(real: Tensor, context: Tensor) -> Positions:
    return Positions(torch.arange(real.shape[1], device=real.device)[None], real, context & real)


def positions_from_mask(mask: Tensor, context: bool) -> Positions:
    """Return the positions of `mask [B, N]` in order, for padding on either side."""
    index = (mask.cumsum(1) - 1).clamp(min=0)
    return Positions(index, mask, mask if context else torch.zeros_like(mask))


def arrange(mask: Tensor, past: int, length: int, queries: Tensor, keys: Tensor) -> Tensor:
    """Return a visibility's mask, with rows and columns in the caller's order, `[B, Q, K]`.

    past, length: `P` and `T` of the caller. queries `[B, Q]`, keys `[B, K]`: indices into
    [context, embeds]. Rows and columns of the context that the mask lacks see everything.
    """
    rows, columns = mask.shape[1:]
    total = past + length
    if (rows, columns) not in {(length, length), (length, total), (total, total)}:
        raise ValueError(
            f"visibility: found a mask {tuple(mask.shape)}, expected [B, {length}, {length}], "
            f"[B, {length}, {total}] or [B, {total}, {total}] for {past} positions of context "
            f"and {length} after it"
        )
    mask = F.pad(mask.to(queries.device), (total - columns, 0, total - rows, 0), value=True)
    mask = mask.expand(len(queries), -1, -1)
    chosen = mask.gather(1, queries[..., None].expand(-1, -1, total))
    return chosen.gather(2, keys[:, None].expand(-1, queries.shape[1], -1))


@dataclass(frozen=True)
class Windows:
    """The sliding windows of a stack. by_type: layer type -> its window (None: it sees
    everything); the type is empty where all layers are alike. types: the type of each layer."""

    by_type: Mapping[str, int | None]
    types: Sequence[str]

    def of(self, layer: int) -> int | None:
        return self.by_type[self.types[layer] if self.types else ""]

    @property
    def narrowest(self) -> int | None:
        return min((w for w in self.by_type.values() if w is not None), default=None)


def sliding_windows(config: Any, both_ways: bool = False) -> Windows:
    """Return the windows of a configuration. both_ways: it is an encoder's, which sees as far
    ahead, and whose window does not count the position itself."""
    window: int | None = getattr(config, "sliding_window", None)
    if both_ways and window is not None:
        window += 1
    types = getattr(config, "layer_types", None)
    if types is None:
        return Windows({"": window}, ())
    return Windows({t: window if t == "sliding_attention" else None for t in types}, types)


def base_rule(base: AttentionKind, query: Positions, key: Positions) -> Tensor:
    """Return `[B, Q, K]` bool: which keys each query attends to under a named kind of attention."""
    q, k = query.index[:, :, None], key.index[:, None, :]
    visible = k <= q
    if base == "prefix":
        return visible | key.context[:, None, :]
    if base == "block":
        return key.context[:, None, :] | ~query.context[:, :, None]
    return torch.ones_like(visible) if base == "bidirectional" else visible


def position_ids(visibility: Visibility, query: Positions, key: Positions) -> Tensor:
    """Return `[B, Q]`. The visibility's mask has the order of the queries and keys, `[B, Q, K]`."""
    if not visibility.restart_positions or visibility.mask is None:
        return query.index.expand(len(query.real), -1)
    earlier = key.index[:, None, :] < query.index[:, :, None]
    return (visibility.mask & earlier & key.real[:, None, :]).sum(2)


def additive(
    visibility: Visibility,
    query: Positions,
    key: Positions,
    windows: Windows,
    dtype: torch.dtype,
) -> Tensor | dict[str, Tensor]:
    """Return the mask `[B, 1, Q, K]` a model takes, or one for each type of layer where they
    differ.

    The queries are the last positions of the keys; the visibility's mask has the order of both.
    """
    masks: dict[int | None, Tensor] = {}
    for window in set(windows.by_type.values()):
        masks[window] = _additive(visibility, query, key, window, dtype)
    if len(masks) == 1:
        return next(iter(masks.values()))
    return {layer_type: masks[window] for layer_type, window in windows.by_type.items()}


def additive_by_layer(
    layers: Mapping[int, Visibility],
    query: Positions,
    key: Positions,
    windows: Windows,
    dtype: torch.dtype,
) -> dict[int, Tensor]:
    """Return the masks `[B, 1, Q, K]` of the layers with their own visibility."""
    return {
        layer: _additive(inner, query, key, windows.of(layer), dtype)
        for layer, inner in layers.items()
    }


def _additive(
    visibility: Visibility, query: Positions, key: Positions, window: int | None, dtype: torch.dtype
) -> Tensor:
    base = base_rule(visibility.base, query, key)
    visible = torch.ones_like(base) if visibility.future_weight else base
    limit = min((w for w in (window, visibility.window) if w is not None), default=None)
    if limit is not None:
        distance = query.index[:, :, None] - key.index[:, None, :]
        visible = visible & (distance.abs() < limit)
    visible = visible & key.real[:, None, :]
    if visibility.mask is not None:
        visible = visible & visibility.mask
    # A position always attends to itself: a row of -inf only would be NaN in half precision.
    n, m = query.real.shape[1], key.real.shape[1]
    itself = torch.ones((n, m), dtype=torch.bool, device=visible.device).tril(m - n).triu(m - n)
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    if visibility.future_weight:
        bias = bias.masked_fill(~base, math.log(visibility.future_weight))
    return bias.masked_fill(~(visible | itself), torch.finfo(dtype).min)[:, None]


def check_length(
    config: Any, kind: str, real: Tensor, visibility: Visibility, offset: int = 0
) -> None:
    """Raise RowErrors for rows that the model of this kind has no positions for, and ValueError if
    it has no window for them.

    real: bool `[B, N]`, the positions that are not padding. offset: the position that counts as
    the first."""
    length = real.shape[1]
    limit = getattr(config, "max_position_embeddings", None)
    limit = None if limit is None else limit - offset
    rotary = getattr(config, "rope_parameters", None)
    if limit is not None and rotary is None and length > limit:
        text = f"{kind} has {limit} positions, found {{}}; shorten the context or the text"
        counts = [] if real.is_meta else real.sum(1).tolist()
        reasons = {row: text.format(n) for row, n in enumerate(counts) if n > limit}
        if not reasons:
            raise ValueError(text.format(length))
        raise RowErrors(reasons, len(real))
    window = sliding_windows(config).narrowest
    if visibility.sees_ahead and window is not None and length > window:
        raise ValueError(
            f"{kind} has a sliding window of {window}, found {length} positions that see each "
            f"other both ways; set options: {{sliding_window: {length}}}"
        )
