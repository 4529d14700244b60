"""Rows of unequal length as one batch, padding that is blank, layers by their place.

Legend: `B` batch, `T` steps of the longest, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ...base import Features


def mask_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """x `[B, T, D]` with zeros where mask `[B, T]` is False, for any value there."""
    return x.masked_fill(~mask.unsqueeze(-1), 0)


def padded(rows: Sequence[Tensor], name: str) -> dict[str, Tensor]:
    """Return rows `[T_i, ...]` as one batch, padded on the right with zeros, and its `mask [B,
    T]`."""
    batch = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return {name: batch, "mask": up_to(torch.tensor([len(row) for row in rows]), batch.shape[1])}


def up_to(lengths: Tensor, longest: int) -> Tensor:
    """lengths `[B]` -> mask `[B, longest]`, True for so many."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def layer_indices(layers: Iterable[int], count: int) -> list[int]:
    """Layers counted from the end (-1) as layers counted from 0; ValueError if there is none."""
    indices = list(layers)
    for layer in indices:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} was requested, found {count} layers")
    return [layer % count for layer in indices]


def in_time(
    tokens: Tensor, mask: Tensor, step: float, origin: float, hidden_states: Sequence[Tensor] = ()
) -> Features:
    """Features along time, zeros outside the sound; layers likewise."""

    def along(x: Tensor) -> Features:
        grid = (x.shape[1],)
        return Features(mask_tokens(x, mask), mask, grid=grid, spacing=(step,), origin=(origin,))

    return along(tokens).replace(hidden_states=tuple(along(layer) for layer in hidden_states))
