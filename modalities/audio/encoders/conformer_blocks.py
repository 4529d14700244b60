"""Conformer blocks whose frames do not depend on padding.

Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition", 2020, with
rotary positions (Su et al., "RoFormer", 2021: a product of query and key depends on the
distance alone) and a norm over the width of a frame in place of BatchNorm, whose statistics
would hold padding. Frames that are padding are zeroed before every convolution.

Legend: `B` batch, `T` frames, `D` width, `H` heads, `K` kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .padding import mask_tokens


class TimeConv(nn.Conv1d):
    """A convolution of an odd kernel over time, padded with zeros: frame `j` of the output is
    centred on frame `j * stride`, or, `causal`, ends with it."""

    def __init__(
        self, in_dim: int, out_dim: int, kernel: int, causal: bool, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(in_dim, out_dim, kernel, stride=stride, groups=groups)
        self.ends = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.ends))


class Convolution(nn.Module):
    """The convolution of a Conformer block: gate, depthwise over time, norm, mix."""

    def __init__(self, dim: int, kernel: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.enter = nn.Linear(dim, 2 * dim)
        self.depthwise = TimeConv(dim, dim, kernel, causal=causal, groups=dim)
        self.inner = nn.LayerNorm(dim)
        self.leave = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`[B, T, D]` -> the residual added to it."""
        gated = mask_tokens(F.glu(self.enter(self.norm(x))), mask)
        mixed = self.depthwise(gated.mT).mT
        added: Tensor = self.dropout(self.leave(F.silu(self.inner(mixed))))
        return added


class FeedForward(nn.Sequential):
    """Two linear maps, frame by frame."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.SiLU(),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )


class Attention(nn.Module):
    """Self-attention over the real frames, causal: those up to its own; positions turn queries and
    keys."""

    def __init__(self, dim: int, heads: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(dim)
        self.enter = nn.Linear(dim, 3 * dim)
        self.leave = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`[B, T, D]` -> the residual added to it."""
        parts = self.enter(self.norm(x)).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, H, D / H]
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query), rotate(key)
        visible = mask[:, None, None]  # [B, 1, 1, T]
        if self.causal:
            visible = visible & mask.new_ones(x.shape[1], x.shape[1]).tril()
        attended = F.scaled_dot_product_attention(query, key, value, visible)
        added: Tensor = self.dropout(self.leave(attended.transpose(1, 2).flatten(2)))
        return added


class ConvBlock(nn.Module):
    """The convolution alone: local, and cheap in front of the attention."""

    def __init__(self, dim: int, kernel: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.convolution = Convolution(dim, kernel, dropout, causal)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        added: Tensor = x + self.convolution(x, mask)
        return added


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        kernel: int,
        dropout: float,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.before = FeedForward(dim, hidden, dropout)
        self.attention = Attention(dim, heads, dropout, causal)
        self.convolution = Convolution(dim, kernel, dropout, causal)
        self.after = FeedForward(dim, hidden, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.attention(x, mask)
        x = x + self.convolution(x, mask)
        normed: Tensor = self.norm(x + 0.5 * self.after(x))
        return normed


class Subsampling(nn.Module):
    """Mel bands -> frames of width D, halved in number by each strided convolution.

    A sample of L frames has `ceil(L / 2^n)`, for any padding: frame `j` of the
    result is centred on frame `j * 2^n`, or, `causal`, ends with it.
    """

    def __init__(
        self, mels: int, dim: int, halvings: int, kernel: int = 5, causal: bool = False
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            TimeConv(dim if i else mels, dim, kernel, causal, stride=2) for i in range(halvings)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, F, M]`, `[B, F]` -> `[B, T, D]`, `[B, T]`."""
        for convolution in self.convolutions:
            x = F.silu(convolution(mask_tokens(x, mask).mT).mT)
            mask = mask[:, ::2]
        return self.norm(x), mask


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate pairs of the values of x `[B, H, T, D]` by an angle proportional to the frame."""
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
