"""The types that pass between parts: a batch of token sequences and their geometry, and a loss.

Legend: `B` batch, `T` tokens of a sample, `D` width of a token.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Features:
    """A batch of token sequences, and the geometry of their tokens.

    tokens: `[B, T, D]`, zeros in the padding. mask: `[B, T]` bool, True = real, padded on the
    right (volumes: at the far ends of their axes).
    grid: arrangement of the tokens, `(14, 14)`, `(6, 7, 6)`, `(frames,)`, or None;
    `T == prod(grid)`.
    spacing, origin: extent of a token and centre of the first, per axis of the grid, in s, mm or
    px. affine: `[B, n + 1, n + 1]`, from the places that spacing and origin count in to the world:
    mm for volumes, px of the picture that was read.
    pooled: `[B, D]`, a vector of the whole (a CLS token), or None.
    hidden_states: the `Features` of the hidden layers that were requested, in that order.
    positions: `[B, T]` or `[B, T, axes]`, position of each token for encoders of native
    resolution and for packed or shortened sequences, or None.
    codes: `[B, T]` long, discrete ids of encoders that quantize, or None.
    """

    tokens: Tensor
    mask: Tensor
    grid: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    origin: tuple[float, ...] | None = None
    affine: Tensor | None = None
    pooled: Tensor | None = None
    hidden_states: tuple[Features, ...] = ()
    positions: Tensor | None = None
    codes: Tensor | None = None

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
        for name, value in (("positions", self.positions), ("codes", self.codes)):
            if value is not None and value.shape[:2] != self.mask.shape:
                raise ValueError(
                    f"Features: {name} begin with {tuple(self.mask.shape)}, "
                    f"found {tuple(value.shape)}"
                )

    @classmethod
    def dense(cls, tokens: Tensor, **where: Any) -> Self:
        """Return features without padding: every token of `tokens [B, T, D]` is real."""
        return cls(tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool), **where)

    @classmethod
    def pad(cls, sequences: Sequence[Tensor]) -> Self:
        """Return sequences `[T_i, D]` of any lengths, padded on the right with zeros."""
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

    def extents(self) -> Tensor:
        """Return `[B, n]` tokens along each axis of the grid up to a sample's last real one, at
        least 1: its own grid within the padded one. Raise ValueError if there is no grid."""
        if self.grid is None:
            raise ValueError("Features: without a grid there are no extents")
        real = self.mask.unflatten(1, self.grid)
        extents = []
        for axis, size in enumerate(self.grid):
            other_axes = tuple(i + 1 for i in range(len(self.grid)) if i != axis)
            along = real.any(dim=other_axes) if other_axes else real  # [B, size]
            index = torch.arange(1, size + 1, device=real.device)
            extents.append((along * index).amax(1).clamp(min=1))
        return torch.stack(extents, -1)

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def mean(self) -> Tensor:
        """Return `[B, D]` mean of the real tokens; zeros for a sample without any."""
        weights = self.mask.unsqueeze(-1).to(self.tokens.dtype)
        total = (self.tokens * weights).sum(1)
        return total / weights.sum(1).clamp(min=1)

    def pool(self) -> Tensor:
        """Return `[B, D]` `pooled`, or the mean of the real tokens if it is None."""
        return self.mean() if self.pooled is None else self.pooled

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Apply `Tensor.to` to every tensor; a dtype changes only floating-point tensors."""

        def move(value: Tensor) -> Tensor:
            if value.is_floating_point():
                return value.to(*args, **kwargs)
            positional = [a for a in args if not isinstance(a, torch.dtype)]
            keywords = {k: v for k, v in kwargs.items() if k != "dtype"}
            return value.to(*positional, **keywords) if positional or keywords else value

        return self._map(move)

    def pin_memory(self) -> Self:
        """Return the same features in page-locked memory, from which copies to an accelerator do
        not wait."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor, those of `hidden_states` too."""

        def apply(value: Any) -> Any:
            if isinstance(value, Features):
                return value._map(function)
            if isinstance(value, tuple):
                return tuple(apply(each) for each in value)
            return function(value) if isinstance(value, Tensor) else value

        fields = dataclasses.fields(self)
        return type(self)(**{field.name: apply(getattr(self, field.name)) for field in fields})


@dataclasses.dataclass
class Loss:
    """A sum over items and their number, so that the engine can divide by the count of all
    processes and accumulation steps.

    total: scalar with a graph. count: items (target tokens, rows) that it sums over. parts: further
    sums to log. failed: (key, reason) of rows that could not be learned; they are in no sum, and
    are reported and counted as unreadable rows are.
    """

    total: Tensor
    count: Tensor | int
    parts: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    failed: list[tuple[str, str]] = dataclasses.field(default_factory=list)


@runtime_checkable
class HasTargets(Protocol):
    """An encoder that supports `targets`: what a masked objective predicts of each token.

    target_dim: numbers of a token's target.
    """

    target_dim: int

    def targets(self, **batch: Tensor) -> Features:
        """Return the targets `[B, T, target_dim]` of the tokens that `forward` returns of a batch,
        with their mask and grid, without running the layers."""
        ...


class HasQuantizer(Protocol):
    """An encoder that supports `quantizer`: discrete targets, learned with it (wav2vec 2.0).

    `forward(**batch, token_mask=..., gumbel_temperature=t)` returns features whose last
    `hidden_states` are the predictions `[B, T, P]` of tokens, the quantized vectors `[B, T, P]` of
    the signal under them, which no mask hides, and the logits `[B, T, V]` of each codebook.
    """

    def __call__(
        self, *, gumbel_temperature: float | None = None, **batch: Tensor | None
    ) -> Features: ...


def split_signal(signal: Tensor, grid: Sequence[int], steps: Sequence[int]) -> Tensor:
    """signal `[B, C, *axes]` -> the values under each token of a grid, `[B, T, prod(steps) C]`.

    A token lies over `steps` samples of each axis; the end is filled with zeros, or cut.
    """
    sizes = [count * step for count, step in zip(grid, steps, strict=True)]
    missing = [size - n for size, n in zip(sizes, signal.shape[2:], strict=True)]
    signal = F.pad(signal, [p for gap in reversed(missing) for p in (0, gap)])
    batch, channels, axes = signal.shape[0], signal.shape[1], len(sizes)
    blocks = [n for pair in zip(grid, steps, strict=True) for n in pair]
    signal = signal.reshape(batch, channels, *blocks)
    order = [0, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2), 1]
    return signal.permute(order).reshape(batch, math.prod(grid), -1)
