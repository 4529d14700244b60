"""A Conformer on log-mel frames, small enough to train from nothing.

Gulati et al. 2020; see `conformer_blocks.py` for the changes by which a sample's features depend
neither on padding nor on its neighbours.

Legend: `B` batch, `F` mel frames, `M` mel bands, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...base import (
    Count,
    Encoder,
    Features,
    Fraction,
    LayerHook,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Sample,
)
from ...features import split_signal
from ..processor import LogMel
from .conformer_blocks import ConformerBlock, ConvBlock, Subsampling
from .padding import layer_indices, mask_tokens, padded

CENTRE, SPREAD = -8.0, 5.0
"""About the mean and deviation of log powers of speech at a usual level, for `fixed`."""


class LogMelConformer(Encoder):
    """Log-mels, strided convolutions, convolution blocks, Conformer blocks.

    dim: width. front: convolution blocks before the depth Conformer blocks. expand: width of a
    feed-forward in dims. subsample: mel frames a token. normalize: `bands` takes from each band
    its mean over the sound (no microphone, no steady tone remains), `level` the mean of all
    bands (loudness goes, the spectrum stays), `fixed` nothing of the sound's own. mask_token:
    learn a token that replaces masked frames. causal: no token depends on sound behind it (its
    extent ends with the window of its last frame); needs `normalize: fixed`. The rest is the
    spectrogram's: see `LogMel`.
    """

    def __init__(
        self,
        *,
        dim: PositiveInt = 144,
        depth: Count = 4,
        heads: PositiveInt = 4,
        kernel: PositiveInt = 15,
        front: Count = 0,
        expand: PositiveInt = 4,
        subsample: Literal[2, 4, 8] = 4,
        dropout: Fraction = 0.1,
        normalize: Literal["bands", "level", "fixed"] = "bands",
        mask_token: bool = False,
        causal: bool = False,
        rate: PositiveInt = 16000,
        mels: PositiveInt = 64,
        window: PositiveFloat = 0.025,
        hop: PositiveFloat = 0.01,
        low: NonNegativeFloat = 20.0,
        high: PositiveFloat = 7600.0,
    ) -> None:
        super().__init__()
        _check(dim, heads, kernel)
        if causal and normalize != "fixed":
            raise ValueError(
                f"causal: normalize: {normalize} takes the mean of the whole sound, also of what "
                "is yet to come; set normalize: fixed"
            )
        self.dim, self.normalize, self.subsample = dim, normalize, subsample
        self.processor: LogMel = LogMel(rate, mels, window, hop, low, high)
        self.time_inputs = {"mels": subsample, "mask": subsample}
        self.step = subsample * round(hop * rate) / rate
        self.origin = (round(window * rate) / rate - self.step) / 2 if causal else 0.0
        self.subsampling = Subsampling(mels, dim, subsample.bit_length() - 1, causal=causal)
        hidden = expand * dim
        self.layers = nn.ModuleList(
            [ConvBlock(dim, kernel, dropout, causal) for _ in range(front)]
            + [ConformerBlock(dim, heads, hidden, kernel, dropout, causal) for _ in range(depth)]
        )
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02) if mask_token else None
        optional = {"token_mask": mask_token, "causal": causal}
        self.supports = frozenset(
            {"hidden_states", "layer_hooks", "targets", *(n for n, on in optional.items() if on)}
        )
        self.target_dim = subsample * mels

    def blocks(self) -> Sequence[nn.Module]:
        return [self.subsampling, *self.layers]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """mels `[B, F, M]` padded on the right, mask `[B, F]`."""
        return padded([sample["mels"] for sample in samples], "mels")

    def forward(
        self,
        mels: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        layer_hooks: Mapping[int, LayerHook] | None = None,
    ) -> Features:
        """mels `[B, F, M]`, mask `[B, F]` -> tokens `[B, ceil(F / subsample), D]`.

        layers, layer_hooks: blocks (`front`, then `depth`), from 0 or from the end (-1).
        """
        count = len(self.layers)
        indices, added = layer_indices(hidden_states, count), dict(layer_hooks or {})
        added = dict(zip(layer_indices(added, count), added.values(), strict=True))
        x, mask = self.subsampling(_normal(mels, mask, self.normalize), mask)
        if token_mask is not None:
            if self.mask_token is None:
                raise ValueError("logmel_conformer: got a token mask; set mask_token: true")
            x = torch.where(token_mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        hidden: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            x = layer(x, mask)
            if index in added:
                x = added[index](x, mask)
            if index in indices:
                hidden[index] = x
        layers = tuple(self._features(hidden[index], mask) for index in indices)
        return self._features(x, mask).replace(hidden_states=layers)

    def targets(self, mels: Tensor, mask: Tensor) -> Features:
        """Return the normalized log powers of the frames of each token, `[B, T, subsample M]`."""
        frames = _normal(mels, mask, self.normalize).masked_fill(~mask[..., None], 0)
        grid = (-(-frames.shape[1] // self.subsample),)
        values = split_signal(frames.transpose(1, 2), grid, (self.subsample,))
        real = split_signal(mask[:, None].float(), grid, (self.subsample,)).any(-1)
        return self._features(values, real)

    def _features(self, x: Tensor, mask: Tensor) -> Features:
        grid, spacing, origin = (x.shape[1],), (self.step,), (self.origin,)
        return Features(mask_tokens(x, mask), mask, grid, spacing, origin)


def _normal(mels: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Log powers of a usual mean and spread; statistics of the real frames alone."""
    if mode == "fixed":
        return (mels - CENTRE) / SPREAD
    real = mask.unsqueeze(-1)
    frames = real.sum(1, keepdim=True)
    mean = mels.masked_fill(~real, 0).sum(1, keepdim=True) / frames  # [B, 1, M]
    if mode == "level":
        mean = mean.mean(-1, keepdim=True)
    return (mels - mean) / SPREAD


def _check(dim: int, heads: int, kernel: int) -> None:
    if heads < 1 or dim % (2 * heads):
        raise ValueError(
            f"heads: found {heads} at dim {dim}, expected a number whose double divides dim"
        )
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel: found {kernel}, expected an odd number; use {kernel + 1}")
