"""Attention to an encoder's output, beside the self-attention of a causal decoder.

Legend: `B` batch, `T` positions of the decoder, `S` tokens of the encoder, `D`, `E` their widths,
`H` heads, `K` width of a head.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Source:
    """The encoder's output that a decoder reads: tokens `[B, S, E]` and mask `[B, S]`."""

    tokens: Tensor | None = None
    mask: Tensor | None = None


class CrossAttention(nn.Module):
    """Attention of `[B, T, D]` to a source of width `E`, without positions.

    heads, kv_heads: of queries, and of keys and values, which groups of queries share. bias: of
    queries, keys, values and outputs.
    """

    def __init__(
        self,
        source: Source,
        dim: int,
        source_dim: int,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        bias: tuple[bool, bool, bool, bool],
        scale: float,
    ) -> None:
        super().__init__()
        self.source, self.head_dim, self.scale = source, head_dim, scale
        self.q_proj = nn.Linear(dim, heads * head_dim, bias=bias[0])
        self.k_proj = nn.Linear(source_dim, kv_heads * head_dim, bias=bias[1])
        self.v_proj = nn.Linear(source_dim, kv_heads * head_dim, bias=bias[2])
        self.o_proj = nn.Linear(heads * head_dim, dim, bias=bias[3])

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden `[B, T, D]` -> what it reads of the source, `[B, T, D]`."""
        tokens, mask = self.source.tokens, self.source.mask
        if tokens is None:
            raise ValueError("a decoder with cross-attention needs encoder_hidden_states")
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for states in (self.q_proj(hidden), self.k_proj(tokens), self.v_proj(tokens))
        )
        if mask is not None and mask.ndim == 2:
            mask = mask.bool()[:, None, None]
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.scale, enable_gqa=True
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


@functools.cache
def with_cross(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a class of attentions that adds what its `cross_attn` reads."""

    def forward(self: Any, *args: Any, **options: Any) -> Any:
        hidden = args[0] if args else options["hidden_states"]
        output = kind.forward(self, *args, **options)
        read = self.cross_attn(hidden)
        if isinstance(output, tuple):
            return (output[0] + read, *output[1:])
        return output + read

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def takes_context(block: nn.Module) -> bool:
    """Return whether a block reads a source that is no argument of its forward."""
    return any(isinstance(module, CrossAttention) for module in block.modules())
