"""Audio Spectrogram Transformer: a ViT on the patches of a spectrogram.

Gong et al., "AST: Audio Spectrogram Transformer", 2021.

Legend: `B` batch, `F` mel frames, `M` mel bands, `T` tokens, `D` width, `t`, `m` patches along
time and along the bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ASTModel

from ...base import Features, Sample
from ..hf_extractor import PatchMel
from .hf import HubSound, Json
from .padding import mask_tokens, up_to

SPECIAL = 2
"""The class token and the distillation token precede the patches."""


class AST(HubSound):
    """A model by its hub id, its folder, or `config` (`model_type:
    audio-spectrogram-transformer`). Options: see `HubSound`.

    Tokens lie on a grid (time, bands), cut back to the longest sound of the batch; its step is
    in seconds and in mel bands. pooled: the mean of the two special tokens. A sound longer than
    the model's window is refused: cut it before.
    """

    kind = "ast"
    types = ("audio-spectrogram-transformer",)

    def __init__(
        self,
        name: str = "",
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, config, processor)
        self.dim = int(self.config.hidden_size)
        size = self.config.patch_size
        self.along_time, self.along_bands = self.config.time_stride, self.config.frequency_stride
        self.bands = (self.config.num_mel_bins - size) // self.along_bands + 1
        self.times = (self.config.max_length - size) // self.along_time + 1
        self.step = (0.01 * self.along_time, float(self.along_bands))
        self.origin = (0.0125 + 0.01 * (size - 1) / 2, (size - 1) / 2)

    def loader(self) -> Any:
        return ASTModel

    def default_settings(self) -> Json:
        return {
            "feature_extractor_type": "ASTFeatureExtractor",
            "sampling_rate": 16000,
            "num_mel_bins": self.config.num_mel_bins,
            "max_length": self.config.max_length,
        }

    def extractor(self, settings: Json) -> PatchMel:
        frames = settings.get("max_length", 1024)
        if frames != self.config.max_length:
            raise ValueError(
                f"processor: max_length is {frames} frames, the model's {self.config.max_length}; "
                "take the extractor of the same weights"
            )
        most = 0.025 + 0.01 * (frames - 1)
        return PatchMel(settings["feature_extractor_type"], settings, 0.025, most + 0.0099)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """values `[B, F, M]`, mask `[B, T]` of the patches that begin within the sound."""
        frames = torch.stack([sample["frames"] for sample in samples])
        times = (-(-frames // self.along_time)).clamp(max=self.times)
        mask = up_to(times, int(times.max())).repeat_interleave(self.bands, dim=1)
        return {"values": torch.stack([sample["values"] for sample in samples]), "mask": mask}

    def forward(self, values: Tensor, mask: Tensor, hidden_states: Sequence[int] = ()) -> Features:
        """values `[B, F, M]`, mask `[B, t * m]` -> tokens `[B, t * m, D]`, time first.

        layers: blocks by place, 0 the first, -1 the last.
        """
        output = self.model(values, output_hidden_states=bool(hidden_states))
        layers = tuple(self._patches(state, mask) for state in self.hidden(output, hidden_states))
        tokens = self._patches(output.last_hidden_state, mask)
        return tokens.replace(pooled=output.pooler_output, hidden_states=layers)

    def _patches(self, states: Tensor, mask: Tensor) -> Features:
        """`[B, 2 + m * times, D]`, bands first, -> Features `[B, t * m, D]`, time first."""
        patches = states[:, SPECIAL:].unflatten(1, (self.bands, self.times)).transpose(1, 2)
        tokens = patches.flatten(1, 2)[:, : mask.shape[1]]
        grid = (mask.shape[1] // self.bands, self.bands)
        return Features(
            mask_tokens(tokens, mask), mask, grid=grid, spacing=self.step, origin=self.origin
        )
