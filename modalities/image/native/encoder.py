"""A transformer over the patches of pictures of any sizes, packed in one sequence (Kimi-VL).

Every layer but the attention runs over the patches of all pictures at once; the attention runs
picture by picture, so that nothing is padded and a picture sees itself alone.

Legend: `B` pictures, `T` patches of the largest, `N` of all, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...base import Encoder, Features, LayerHook, PositiveInt, Sample
from .processor import NativeProcessor


class NativeViT(Encoder):
    """patch: px of a side. merge: neighbours along each axis that `connector: {type: pixel_shuffle,
    factor: ...}` may fold: sides are multiples of it. max_patches: of a picture, which is shrunk if
    it has more. dim, depth, heads: of the layers; positions are rotations by row and column.
    packed: False pads all pictures to the largest one.
    """

    supports = frozenset({"hidden_states", "layer_hooks"})

    def __init__(
        self,
        *,
        patch: PositiveInt = 14,
        merge: PositiveInt = 2,
        max_patches: PositiveInt = 1024,
        dim: PositiveInt = 192,
        depth: PositiveInt = 6,
        heads: PositiveInt = 4,
        packed: bool = True,
    ) -> None:
        super().__init__()
        if dim % (4 * heads):
            raise ValueError(f"native: dim {dim}, heads {heads}; dim must be a multiple of 4 heads")
        if max_patches < merge**2:
            raise ValueError(f"native: max_patches {max_patches}, expected {merge**2} or more")
        self.dim, self.heads, self.packed, self.patch = dim, heads, packed, patch
        self.processor = NativeProcessor(patch, merge, max_patches)
        self.embed = nn.Linear(3 * patch**2, dim)
        self.layers = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """patches `[B, T, 3 p p]`, padded on the right, their places `[B, T, 2]`, mask `[B, T]`."""
        pad = nn.utils.rnn.pad_sequence
        lengths = torch.tensor([len(s["patches"]) for s in samples])
        return {
            "patches": pad([s["patches"] for s in samples], batch_first=True),
            "place": pad([s["place"] for s in samples], batch_first=True),
            "mask": torch.arange(int(lengths.max())) < lengths[:, None],
        }

    def forward(
        self,
        patches: Tensor,
        place: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """Return tokens `[B, T, D]` with their row and column as `positions [B, T, 2]`."""
        packed = self.packed and not mask.is_meta
        lengths = mask.sum(1).tolist() if packed else []
        x = self.embed(patches[mask] if packed else patches)
        turns = _turns(place[mask] if packed else place, self.dim // self.heads, x.dtype)
        chosen = [self._index(n) for n in hidden_states]
        hooks = {self._index(n): hook for n, hook in (layer_hooks or {}).items()}
        states: dict[int, Tensor] = {}
        for number, layer in enumerate(self.layers):
            x = layer(x, turns, lengths, mask)
            if number in hooks:
                changed = hooks[number](_unpacked(x, mask) if packed else x, mask)
                x = changed[mask] if packed else changed
            if number in chosen:
                states[number] = x

        def features(x: Tensor) -> Features:
            x = self.norm(x)
            tokens = _unpacked(x, mask) if packed else x.masked_fill(~mask[..., None], 0)
            return Features(tokens, mask, positions=place)

        return features(x).replace(hidden_states=tuple(features(states[n]) for n in chosen))

    def _index(self, number: int) -> int:
        if not -len(self.layers) <= number < len(self.layers):
            raise ValueError(f"native: there is no layer {number}; it has {len(self.layers)}")
        return number % len(self.layers)


def _unpacked(x: Tensor, mask: Tensor) -> Tensor:
    """`[N, D]` -> `[B, T, D]`, zero in the padding."""
    tokens = x.new_zeros(*mask.shape, x.shape[-1])
    tokens[mask] = x
    return tokens


def _turns(place: Tensor, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines `[..., 1, width / 2]` of rotations: a half of the pairs turns with
    the row, a half with the column."""
    pairs = width // 4
    rates = 10000.0 ** (-torch.arange(pairs, device=place.device) / pairs)
    angles = (place[..., None].float() * rates).flatten(-2)[..., None, :]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    cosine, sine = turns
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], lengths: Sequence[int], mask: Tensor
    ) -> Tensor:
        """x `[N, D]` with the lengths of its pictures, or `[B, T, D]` with their mask."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3 * self.heads, -1)).chunk(3, -2)
        q, k = _rotate(q, turns), _rotate(k, turns)
        if lengths:
            parts = zip(*(t.split(list(lengths)) for t in (q, k, v)), strict=True)
            mixed = torch.cat([_attend(*part) for part in parts])
        else:
            mixed = _attend(q, k, v, mask[:, None, None])
        x = x + self.out(mixed.flatten(-2))
        return x + self.mlp(self.norm2(x))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q, k, v `[..., T, heads, d]` -> `[..., T, heads, d]`."""
    q, k, v = (t.transpose(-3, -2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(-3, -2)
