"""A state-space layer in the place of a causal attention, whose maps it takes over.

mmMamba (Liao et al. 2025), after Mamba-2 (Dao and Gu 2024): queries, keys and values are the
roles C, B and x of a state space, `S_t = a_t S_(t-1) + k_t v_t^T`, `y_t = S_t^T q_t`. New are the
decay `a_t`, which begins at one, a causal convolution of width two, which begins by passing the
current token alone, and a gate, which begins at one. Without decay and gate it is linear attention
without normalization.

Legend: `B` batch, `T` tokens, `D` width, `H` heads, `K` width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

CHUNK = 128
"""Tokens whose mutual products are computed at once; the state carries what came before."""


class StateLayer(CacheLayerMixin):
    """The cache of one layer: the state `[B, H, K, K]`, of constant size, and the last
    token before the convolution `[B, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None
        self.last: Tensor | None = None
        self.seen = 0
        self.is_initialized = True

    def set(self, state: Tensor, last: Tensor, count: int) -> None:
        self.state, self.last, self.seen = state, last, self.seen + count

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is to be done: the layer sets its state itself."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        raise ValueError("a state-space layer keeps no keys and values")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.state, self.last, self.seen = None, None, 0

    def _map(self, change: Any) -> None:
        self.state = None if self.state is None else change(self.state)
        self.last = None if self.last is None else change(self.last)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map(lambda x: x[indices])

    def offload(self) -> None:
        self._map(lambda x: x.to("cpu"))

    def prefetch(self) -> None:
        """The state is small, and moved when it is used."""


class StateSpaceMixer(nn.Module):
    """query, key, value, output: linear maps of an attention, which are taken over. heads,
    kv_heads: of queries, and of keys and values, which groups of queries share. layer_idx: its
    place in a cache. gate: also the gate and the norm before it.

    It is called as the attention was, and returns `(output, None)`. Masks are not used: it sees
    what came before, so that padding may only follow a row.
    """

    holds_state = True

    def __init__(
        self,
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        output: nn.Module,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dim: int,
        layer_idx: int,
        gate: bool = True,
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = query, key, value, output
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.layer_idx = layer_idx
        like: Any = query
        options = {"device": like.weight.device, "dtype": like.weight.dtype}
        channels = (heads + 2 * kv_heads) * head_dim
        self.conv = nn.Parameter(torch.zeros(2, channels, **options))  # [before, now]
        self.conv_bias = nn.Parameter(torch.zeros(channels, **options))
        self.decay = nn.Linear(dim, heads, **options)
        self.gate = nn.Linear(dim, heads * head_dim, **options) if gate else None
        self.norm = nn.Parameter(torch.ones(head_dim, **options)) if gate else None
        with torch.no_grad():
            self.conv[1] = 1.0
            for linear in (self.decay, *([self.gate] if self.gate is not None else [])):
                linear.weight.zero_()
                linear.bias.zero_()

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the attention did not have; they are trained first."""
        parameters = [self.conv, self.conv_bias, *self.decay.parameters()]
        if self.gate is not None and self.norm is not None:
            parameters += [*self.gate.parameters(), self.norm]
        return parameters

    def forward(
        self, hidden_states: Tensor, *args: Any, past_key_values: Any = None, **options: Any
    ) -> tuple[Tensor, None]:
        """hidden_states `[B, T, D]` -> (output `[B, T, D]`, None)."""
        batch, length, _ = hidden_states.shape
        layer = self._layer(past_key_values)
        maps = (self.q_proj, self.k_proj, self.v_proj)
        mixed = torch.cat([m(hidden_states) for m in maps], -1)  # [B, T, C]
        last = mixed.new_zeros(batch, mixed.shape[-1]) if layer is None else layer.last
        last = mixed.new_zeros(batch, mixed.shape[-1]) if last is None else last
        before = torch.cat([last[:, None], mixed[:, :-1]], 1)
        conv = before * self.conv[0] + mixed * self.conv[1] + self.conv_bias
        query, key, value = self._heads(conv)  # [B, H, T, K] each
        # At zero the gradient of the clamp passes: the decay begins at one and learns.
        log_decay = self.decay(hidden_states).clamp(max=0).transpose(1, 2)  # [B, H, T]
        state = None if layer is None else layer.state
        if state is None:
            state = query.new_zeros(batch, self.heads, self.head_dim, self.head_dim)
        outputs = []
        for start in range(0, length, CHUNK):
            part = slice(start, start + CHUNK)
            mixed_part, state = scan(
                query[:, :, part], key[:, :, part], value[:, :, part], log_decay[:, :, part], state
            )
            outputs.append(mixed_part)
        if layer is not None:
            layer.set(state, mixed[:, -1], length)
        tokens = torch.cat(outputs, 2).transpose(1, 2)  # [B, T, H, K]
        if self.gate is not None:
            assert self.norm is not None
            tokens = F.rms_norm(tokens, (self.head_dim,), self.norm, 1e-6)
            gate = 2 * torch.sigmoid(self.gate(hidden_states))
            tokens = tokens * gate.view(batch, length, self.heads, self.head_dim)
        return self.o_proj(tokens.reshape(batch, length, -1)), None

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counts = (self.heads, self.kv_heads, self.kv_heads)
        parts = mixed.split([n * self.head_dim for n in counts], -1)
        heads = [
            part.unflatten(-1, (n, self.head_dim)).transpose(1, 2)
            for part, n in zip(parts, counts, strict=True)
        ]
        query, key, value = heads
        groups = self.heads // self.kv_heads
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        return query * self.head_dim**-0.5, key, value

    def _layer(self, cache: Any) -> StateLayer | None:
        """Return the cache of this layer, made in a library's cache if it is not there."""
        if cache is None:
            return None
        while len(cache.layers) <= self.layer_idx:
            cache.layers.append(DynamicLayer())
        if not isinstance(cache.layers[self.layer_idx], StateLayer):
            cache.layers[self.layer_idx] = StateLayer()
        layer: StateLayer = cache.layers[self.layer_idx]
        return layer


def scan(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Return outputs `[B, H, T, K]` and the state after them, of queries, keys and values
    `[B, H, T, K]`, decays `[B, H, T]` and the state `[B, H, K, K]` before."""
    total = log_decay.cumsum(-1)
    steps = total[..., :, None] - total[..., None, :]  # from s (exclusive) to t
    lower = torch.ones(steps.shape[-2:], dtype=torch.bool, device=steps.device).tril()
    weights = steps.masked_fill(~lower, float("-inf")).exp()
    inside = (query @ key.transpose(-1, -2) * weights) @ value
    carried = (query * total.exp()[..., None]) @ state
    remaining = (total[..., -1:] - total).exp()[..., None]
    after = state * total[..., -1, None, None].exp() + (key * remaining).transpose(-1, -2) @ value
    return inside + carried, after
