"""A second condition of a generator: a cross-attention beside each of the model's own.

Legend: `B` rows, `P` positions of the picture, `T` tokens of the condition.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from ...base import Features


class SecondAttention(nn.Module):
    """Positions of a picture attend to the tokens of the second condition."""

    def __init__(self, width: int, condition: int, heads: int, *, zero: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(condition, width, bias=False)
        self.value = nn.Linear(condition, width, bias=False)
        self.out = nn.Linear(width, width)
        if zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, condition: Features) -> Tensor:
        """`[B, P, width]` -> the same shape."""
        query = self.query(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (
            layer(condition.tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.key, self.value)
        )
        mask = condition.mask[:, None, None]
        mask = mask | ~mask.any(-1, keepdim=True)  # a row without tokens reads its zeros
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return output


class SecondCondition(nn.Module):
    """Joins a second condition to every cross-attention of a model.

    join: `average` of both outputs, or `add`, which begins as the model without it.
    """

    def __init__(self, model: nn.Module, dim: int, join: Literal["average", "add"]) -> None:
        super().__init__()
        self.join = join
        self.condition: Features | None = None
        layers = []
        for module in model.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                width, heads = module.query_dim, module.heads
                layers.append(SecondAttention(width, dim, heads, zero=join == "add"))
                module.register_forward_hook(
                    functools.partial(self._hook, len(layers) - 1), with_kwargs=True
                )
        if not layers:
            raise ValueError("second: the model has no cross-attention that it could join")
        self.layers = nn.ModuleList(layers)

    @contextlib.contextmanager
    def reading(self, condition: Features) -> Iterator[None]:
        """Let the model read a condition within the block."""
        self.condition = condition
        try:
            yield
        finally:
            self.condition = None

    def _hook(
        self, index: int, module: nn.Module, args: Any, kwargs: Any, output: Tensor
    ) -> Tensor:
        if self.condition is None:
            return output
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        second = self.layers[index](hidden, self.condition)
        if self.join == "add":
            return output + second
        return torch.lerp(output, second, 0.5)
