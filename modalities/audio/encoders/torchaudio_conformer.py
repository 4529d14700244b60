"""torchaudio's unchanged Conformer, on the same log-mels as ours.

Gulati et al. 2020, by `torchaudio.models.Conformer`. Its convolutions read padding, so that a
sound's last frames depend on the longest of its batch.

Legend: `B` batch, `F` mel frames, `M` mel bands, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torchaudio
from torch import Tensor, nn

from ...base import (
    Count,
    Encoder,
    Features,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Sample,
)
from ..processor import LogMel
from .padding import layer_indices, mask_tokens, padded, up_to


class TorchaudioConformer(Encoder):
    """Log-mel frames stacked `subsample` at a time, then `torchaudio.models.Conformer`.

    dim, depth, heads, expand, kernel, dropout: of the Conformer; expand is the width of a
    feed-forward in dims. Bands are brought to mean 0 over the sound. The rest is the
    spectrogram's: see `LogMel`.
    """

    batch_invariant = False
    supports = frozenset({"hidden_states"})

    def __init__(
        self,
        *,
        dim: PositiveInt = 144,
        depth: Count = 4,
        heads: PositiveInt = 4,
        expand: PositiveInt = 4,
        kernel: PositiveInt = 31,
        subsample: PositiveInt = 4,
        dropout: Fraction = 0.1,
        rate: PositiveInt = 16000,
        mels: PositiveInt = 64,
        window: PositiveFloat = 0.025,
        hop: PositiveFloat = 0.01,
        low: NonNegativeFloat = 20.0,
        high: PositiveFloat = 7600.0,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads: found {heads} at dim {dim}, expected a divisor of dim")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel: found {kernel}, expected an odd number; use {kernel + 1}")
        if subsample < 1:
            raise ValueError(f"subsample: found {subsample}, expected at least 1")
        self.dim, self.subsample = dim, subsample
        self.processor: LogMel = LogMel(rate, mels, window, hop, low, high)
        self.enter = nn.Linear(mels * subsample, dim)
        self.model = torchaudio.models.Conformer(
            dim, heads, expand * dim, depth, kernel, dropout=dropout
        )
        self.step = subsample * round(hop * rate) / rate
        self.origin = (subsample - 1) / 2 * round(hop * rate) / rate

    def blocks(self) -> Sequence[nn.Module]:
        return [self.enter, *self.model.conformer_layers]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """mels `[B, F, M]` padded on the right, mask `[B, F]`."""
        return padded([sample["mels"] for sample in samples], "mels")

    def forward(self, mels: Tensor, mask: Tensor, hidden_states: Sequence[int] = ()) -> Features:
        """mels `[B, F, M]`, mask `[B, F]` -> tokens `[B, ceil(F / subsample), D]`.

        layers: Conformer layers by place, 0 the first, -1 the last.
        """
        indices = layer_indices(hidden_states, len(self.model.conformer_layers))
        frames = mask.sum(1)
        mean = mask_tokens(mels, mask).sum(1) / frames[:, None]  # [B, M]
        normal = mask_tokens((mels - mean[:, None]) / 5, mask)
        missing = -mels.shape[1] % self.subsample
        stacked = nn.functional.pad(normal, (0, 0, 0, missing)).unflatten(1, (-1, self.subsample))
        x = self.enter(stacked.flatten(2))  # [B, T, D]
        real = up_to((frames + self.subsample - 1) // self.subsample, x.shape[1])
        hidden: list[Tensor] = []
        x = x.transpose(0, 1)  # the layers want time first
        for layer in self.model.conformer_layers:
            x = layer(x, ~real)
            hidden.append(x)
        layers = tuple(self._features(hidden[index], real) for index in indices)
        return self._features(x, real).replace(hidden_states=layers)

    def _features(self, x: Tensor, mask: Tensor) -> Features:
        tokens = mask_tokens(x.transpose(0, 1), mask)
        grid = (mask.shape[1],)
        return Features(tokens, mask, grid=grid, spacing=(self.step,), origin=(self.origin,))
