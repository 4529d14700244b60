"""CLAP's audio tower: sound in the space of texts that describe it.

Wu et al., "Large-Scale Contrastive Language-Audio Pretraining" (LAION-CLAP), 2023; its HTS-AT
folds ten seconds of spectrogram into a square picture.

Legend: `B` batch, `F` mel frames, `M` mel bands, `t`, `m` cells along time and bands, `D` width,
`E` width of the space shared with text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from transformers import ClapAudioModelWithProjection

from ...base import Features
from ..hf_extractor import FusedMel
from .hf import HubSound, Json


class Clap(HubSound):
    """A model by its hub id, its folder, or `config` (`model_type: clap_audio_model`, or `clap`
    with its `audio_config`). name, config, processor: see `HubSound`.

    output: `tokens` returns the last map of HTS-AT, on a grid (time, bands), and its mean as
    `pooled`; `embedding` the vector in the space shared with text, not yet normalised. A short
    sound is repeated to the window, as in training; one longer than the window is refused, since
    the model's own way is a random crop.
    """

    kind = "clap"
    types = ("clap_audio_model", "clap")
    supports = frozenset()

    def __init__(
        self,
        name: str = "",
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
        *,
        output: Literal["tokens", "embedding"] = "tokens",
    ) -> None:
        super().__init__(name, config, processor)
        self.output = output
        if output == "tokens":
            self.model.audio_projection = nn.Identity()  # nothing reads it, nothing would train it
        self.dim = int(
            self.config.projection_dim if output == "embedding" else self.config.hidden_size
        )

    def _configuration(self, settings: Json) -> Any:
        config = super()._configuration(settings)
        return getattr(config, "audio_config", config)

    def loader(self) -> Any:
        return ClapAudioModelWithProjection

    def part(self, model: Any) -> Any:
        if getattr(self, "output", "") == "tokens":  # once built, as this encoder is
            model.audio_projection = nn.Identity()
        return model

    def default_settings(self) -> Json:
        return {
            "feature_extractor_type": "ClapFeatureExtractor",
            "feature_size": self.config.num_mel_bins,
            "sampling_rate": 48000,
            "hop_length": 480,
            "max_length_s": 10,
            "truncation": "fusion" if self.config.enable_fusion else "rand_trunc",
        }

    def extractor(self, settings: Json) -> FusedMel:
        seconds = float(settings.get("max_length_s", 10))
        if (settings.get("truncation") == "fusion") != self.config.enable_fusion:
            raise ValueError(
                f"processor: truncation is {settings.get('truncation')!r}, the model's "
                f"enable_fusion {self.config.enable_fusion}; take the extractor of the same weights"
            )
        return FusedMel(settings["feature_extractor_type"], settings, 0.025, seconds)

    def blocks(self) -> Sequence[nn.Module]:
        return tuple(self.model.audio_model.audio_encoder.layers)

    def forward(self, values: Tensor, longer: Tensor) -> Features:
        """values `[B, 1 or 4, F, M]`, longer `[B, 1]` -> tokens `[B, t * m, D]` or `[B, 1, E]`."""
        if values.is_meta:
            return self._outline(values)
        output = self.model(input_features=values, is_longer=longer)
        if self.output == "embedding":
            vector = output.audio_embeds
            return Features.dense(vector.unsqueeze(1), pooled=vector)
        return self._cells(output.last_hidden_state)

    def _cells(self, states: Tensor) -> Features:
        """`[B, D, m, t]` -> Features, time first."""
        bands, times = states.shape[2:]
        seconds, height = self.processor.most / times, self.config.num_mel_bins / bands
        return Features.dense(
            states.permute(0, 3, 2, 1).flatten(1, 2),
            grid=(times, bands),
            spacing=(seconds, height),
            origin=(seconds / 2, (height - 1) / 2),
            pooled=states.flatten(2).mean(-1),
        )

    def _outline(self, values: Tensor) -> Features:
        """Shapes alone: which sounds are longer cannot be seen on the meta device."""
        if self.output == "embedding":
            vector = values.new_empty(len(values), self.dim)
            return Features.dense(vector.unsqueeze(1), pooled=vector)
        folds = self.config.spec_size // self.config.num_mel_bins
        reduced = 2 ** (len(self.config.depths) - 1)
        high, wide = (self.config.spec_size // reduced // s for s in self.config.patch_stride)
        return self._cells(values.new_empty(len(values), self.dim, high // folds, folds * wide))
