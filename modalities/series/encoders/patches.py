"""A transformer over patches of time, all channels of a patch in one token.

Patches after PatchTST (Nie et al., 2023, https://arxiv.org/abs/2211.14730), with the channels mixed
as in a picture's patch, and the mask of measured values as further inputs.

Legend: `B` batch, `C` channels, `N` samples, `T` tokens, `P` samples of a patch, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...base import Features, LayerHook, PositiveInt, Probability, Sample
from ..preprocessing import Preprocessing
from .base import SeriesEncoder, padded


class Patches(SeriesEncoder):
    """patch: samples of a patch. stride: samples from one patch to the next, by default as many.
    depth: blocks. heads: of the attention; they divide dim. dropout: in the blocks.

    No token attends to a patch without a measured value, which has a learned token of its own.
    """

    supports = frozenset({"hidden_states", "layer_hooks", "token_mask"})

    def __init__(
        self,
        *,
        preprocessing: Preprocessing,
        patch: PositiveInt,
        stride: PositiveInt | None = None,
        dim: PositiveInt = 128,
        depth: PositiveInt = 2,
        heads: PositiveInt = 4,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__(preprocessing, least=patch)
        if dim % heads or dim % 2:
            raise ValueError(f"heads: found {heads} of dim {dim}, expected ones that divide it")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: found {dropout}, expected a share below 1")
        self.patch, self.stride, self.dim = patch, stride or patch, dim
        self.embedding = nn.Linear(2 * self.channels * patch, dim)
        self.missing = nn.Parameter(torch.zeros(dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        for token in (self.missing, self.mask_token):
            nn.init.trunc_normal_(token, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return `values`, `observed` `[B, T, C * P]`, padded on the right, and `mask [B, T]`."""
        patches = {key: [self._patches(s[key]) for s in samples] for key in ("values", "mask")}
        lengths = torch.tensor([len(rows[0]) for rows in patches["mask"]])
        values, observed = (padded(patches[key])[:, 0] for key in ("values", "mask"))
        mask = torch.arange(values.shape[1]) < lengths[:, None]
        return {"values": values, "observed": observed, "mask": mask}

    def _patches(self, values: Tensor) -> Tensor:
        """Return `[1, T, C * P]` of `[C, N]`; a last patch that is not whole is left out."""
        return values.unfold(1, self.patch, self.stride).transpose(0, 1).flatten(1)[None]

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """values, observed `[B, T, C * P]`, mask `[B, T]`; hidden_states: layers, from 0 or from
        the end (-1)."""
        requested = [self._layer(i) for i in hidden_states]
        hooks = {self._layer(i): hook for i, hook in (layer_hooks or {}).items()}
        measured = observed.any(2)
        x = self._embed(values, observed, measured, token_mask)
        ignored = ~(mask & measured)
        ignored = ignored & ~ignored.all(1, keepdim=True)  # a row of gaps alone attends to them
        hidden: dict[int, Features] = {}
        for number, layer in enumerate(self.layers):
            x = layer(x, src_key_padding_mask=ignored)
            if number in hooks:
                x = hooks[number](x, mask)
            if number in requested:
                hidden[number] = self._features(x, mask)
        return self._features(x, mask).replace(hidden_states=tuple(hidden[i] for i in requested))

    def _embed(
        self, values: Tensor, observed: Tensor, measured: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        x = self.embedding(torch.cat([values, observed.to(values.dtype)], -1))
        x = torch.where(measured.unsqueeze(-1), x, self.missing.to(x.dtype))
        if token_mask is not None:
            x = torch.where(token_mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        steps = torch.arange(values.shape[1], device=values.device)
        return x + sinusoids(steps, self.dim).to(x.dtype)

    def _features(self, x: Tensor, mask: Tensor) -> Features:
        tokens = self.norm(x).masked_fill(~mask.unsqueeze(-1), 0)
        places = self.places(self.patch, self.stride)
        return Features(tokens, mask, grid=(mask.shape[1],), **places)

    def _layer(self, number: int) -> int:
        depth = len(self.layers)
        if not -depth <= number < depth:
            raise ValueError(f"patches: there is no layer {number}; it has {depth}")
        return number % depth


def sinusoids(steps: Tensor, dim: int) -> Tensor:
    """Return sines and cosines `[..., dim]` of step numbers `[...]` (Vaswani et al., 2017, 3.5)."""
    half = torch.arange(dim // 2, device=steps.device, dtype=torch.float32)
    angles = steps[..., None] * torch.exp(-(half / (dim // 2)) * torch.log(torch.tensor(1e4)))
    return torch.cat([angles.sin(), angles.cos()], -1)
