"""The type that passes between parts: a batch of token sequences and their geometry.

Legend: `B` batch, `T` tokens of a sample, `D` width of a token.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Features:
    """A batch of token sequences, and where their tokens lie.

    tokens: `[B, T, D]`, zeros in the padding. mask: `[B, T]` bool, True = real, padded on the
    right (volumes: at the far ends of their axes).
    grid: how the tokens lie, `(14, 14)`, `(6, 7, 6)`, `(frames,)`, or None; `T == prod(grid)`.
    step, origin: extent of a token and centre of the first, an axis of the grid, in s, mm or px.
    affine: `[B, 4, 4]` voxel to world, for volumes. pooled: `[B, D]` or None (a CLS token, say).
    layers: the `Features` of hidden layers that were asked for, in that order.
    """

    tokens: Tensor
    mask: Tensor
    grid: tuple[int, ...] | None = None
    step: tuple[float, ...] | None = None
    origin: tuple[float, ...] | None = None
    affine: Tensor | None = None
    pooled: Tensor | None = None
    layers: tuple[Features, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(f"Features: tokens are [B, T, D], found {tuple(self.tokens.shape)}")
        if self.mask.shape != self.tokens.shape[:2] or self.mask.dtype != torch.bool:
            raise ValueError(
                f"Features: mask is bool {tuple(self.tokens.shape[:2])}, "
                f"found {self.mask.dtype} {tuple(self.mask.shape)}"
            )
        if self.grid is not None and math.prod(self.grid) != self.tokens.shape[1]:
            raise ValueError(
                f"Features: grid {self.grid} holds {math.prod(self.grid)} tokens, "
                f"found {self.tokens.shape[1]}"
            )

    @classmethod
    def full(cls, tokens: Tensor, **where: Any) -> Self:
        """Features without padding: every token of `tokens [B, T, D]` is real."""
        return cls(tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool), **where)

    @classmethod
    def pack(cls, sequences: Sequence[Tensor]) -> Self:
        """Sequences `[T_i, D]` of any lengths, padded on the right with zeros."""
        tokens = nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
        lengths = torch.tensor([len(s) for s in sequences], device=tokens.device)
        return cls(tokens, torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None])

    @property
    def dim(self) -> int:
        return self.tokens.shape[-1]

    @property
    def lengths(self) -> Tensor:
        """`[B]` number of real tokens of each sample."""
        return self.mask.sum(1)

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def mean(self) -> Tensor:
        """`[B, D]` mean of the real tokens; zeros for a sample that has none."""
        weights = self.mask.unsqueeze(-1).to(self.tokens.dtype)
        total = (self.tokens * weights).sum(1)
        return total / weights.sum(1).clamp(min=1)

    def vector(self) -> Tensor:
        """`[B, D]` `pooled` where there is one, else the mean of the real tokens."""
        return self.mean() if self.pooled is None else self.pooled

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `Tensor.to`, for every tensor; a dtype leaves the mask alone."""

        def move(value: Any) -> Any:
            if isinstance(value, Features):
                return value.to(*args, **kwargs)
            if not isinstance(value, Tensor):
                return tuple(move(v) for v in value) if isinstance(value, tuple) else value
            if value.is_floating_point():
                return value.to(*args, **kwargs)
            places = [a for a in args if not isinstance(a, torch.dtype)]
            rest = {k: v for k, v in kwargs.items() if k != "dtype"}
            return value.to(*places, **rest) if places or rest else value

        return type(self)(**{f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)})
