"""Whisper's encoder, cut back from the silence that it is padded with.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022. The model
hears a window of 30 s for any length of the sound; as Llama-AVSR does (Cappellazzo et al. 2024),
only the tokens of the sound are given on.

Legend: `B` batch, `F` mel frames of the window, `M` mel bands, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ...base import Features, Sample
from ..hf_extractor import WhisperMel
from .hf import HubSound, Json
from .padding import in_time, up_to


class Whisper(HubSound):
    """The encoder of a Whisper by its hub id, its folder, or `config` (`model_type: whisper`).

    whole_window: keep the tokens of the silence behind the sound, which the weights' own decoder
    attends to. Other options: see `HubSound`. A sound longer than the window is refused: cut it
    before.
    """

    kind = "whisper"
    types = ("whisper",)
    processor: WhisperMel

    def __init__(
        self,
        name: str = "",
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
        whole_window: bool = False,
    ) -> None:
        super().__init__(name, config, processor)
        self.whole_window = whole_window
        self.dim = int(self.config.d_model)
        options = self.processor.options
        self.step = 2 * options["hop_length"] / options["sampling_rate"]

    def build(self) -> Any:
        return WhisperEncoder(self.config)

    def loader(self) -> Any:
        return WhisperModel

    def part(self, model: Any) -> Any:
        return model.encoder

    def default_settings(self) -> Json:
        rate, hop = 16000, 160
        seconds = self.config.max_source_positions * 2 * hop / rate
        return {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": self.config.num_mel_bins,
            "sampling_rate": rate,
            "hop_length": hop,
            "chunk_length": int(seconds),
        }

    def extractor(self, settings: Json) -> WhisperMel:
        kind, seconds = settings["feature_extractor_type"], settings.get("chunk_length", 30)
        processor = WhisperMel(kind, settings, 0.025, float(seconds))
        frames = seconds * settings["sampling_rate"] // settings["hop_length"]
        if frames != 2 * self.config.max_source_positions:
            raise ValueError(
                f"processor: a window of {seconds} s makes {frames} frames, the model takes "
                f"{2 * self.config.max_source_positions}; take the extractor of the same weights"
            )
        return processor

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """values `[B, M, F]`, mask `[B, T]` of the tokens of the longest sound, or of the whole
        window."""
        window = 2 * self.config.max_source_positions
        rows = [sample["values"] for sample in samples]
        padded = [torch.cat([row, row[-1:].expand(window - len(row), -1)]).mT for row in rows]
        tokens = torch.stack([(sample["frames"] + 1) // 2 for sample in samples])
        if self.whole_window:
            tokens = torch.full_like(tokens, window // 2)
        return {"values": torch.stack(padded), "mask": up_to(tokens, int(tokens.max()))}

    def forward(self, values: Tensor, mask: Tensor, hidden_states: Sequence[int] = ()) -> Features:
        """values `[B, M, F]`, mask `[B, T]` -> tokens `[B, T, D]`, of 20 ms each.

        layers: blocks by place, 0 the first, -1 the last (which the model returns normed).
        """
        output = self.model(values, output_hidden_states=bool(hidden_states))
        real = mask.shape[1]
        layers = [state[:, :real] for state in self.hidden(output, hidden_states)]
        return in_time(output.last_hidden_state[:, :real], mask, self.step, 0.0, layers)
