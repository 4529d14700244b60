"""Speech models that learned from sound alone: Wav2Vec2, HuBERT, WavLM, w2v-BERT...

Baevski et al., "wav2vec 2.0", 2020; Hsu et al., "HuBERT", 2021; Chen et al., "WavLM", 2022;
Barrault et al., "Seamless" (w2v-BERT 2.0), 2023.

Legend: `B` batch, `N` steps of the input, `M` values of a step, `T` tokens, `D` width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from ...base import Features, Sample
from ..hf_extractor import Extractor, FilterBank
from .hf import HubSound, Json
from .padding import in_time, padded, up_to


class Wav2Vec2(HubSound):
    """A model by its hub id, its folder, or `config` with its `model_type`.

    Options: see `HubSound`. The masking that the weights were trained with is off; where the
    model has a mask token, a task may use it. An adapter behind the layers is left out: shorten
    by a connector. Where the convolutions are normed over groups (the base kinds) or see what is
    padded, padding changes features: sounds of one length are encoded together.
    """

    kind = "wav2vec2"
    types = (
        "wav2vec2",
        "hubert",
        "wavlm",
        "wav2vec2-bert",
        "data2vec-audio",
        "unispeech",
        "unispeech-sat",
        "wav2vec2-conformer",
    )

    def __init__(
        self,
        name: str = "",
        config: dict[str, Any] | None = None,
        processor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, config, processor)
        self.dim = int(self.config.hidden_size)
        # Its masks would be drawn by numpy in training, on top of the recipe's.
        self.model.config.mask_time_prob = self.model.config.mask_feature_prob = 0.0
        if hasattr(self.model, "masked_spec_embed"):
            self.supports = frozenset({"hidden_states", "token_mask"})
        layered = getattr(self.config, "feat_extract_norm", "layer") != "group"
        self.batch_invariant = layered
        # Models normed over groups were trained without: silence fills their batches.
        self.attends = self.processor.options.get("return_attention_mask", layered)
        self.step, self.origin = self._geometry()
        self.time_inputs = {"values": 1, "mask": 1} if self.banks else {}

    @property
    def banks(self) -> bool:
        """True for w2v-BERT, which hears filter banks and not the wave."""
        return hasattr(self.config, "feature_projection_input_dim")

    def _configuration(self, settings: Json) -> Any:
        return super()._configuration({**settings, "add_adapter": False})

    def build(self) -> Any:
        # A copy, since the model's own loses its masking and `load` needs it again.
        full_config, self.config = self.config, copy.deepcopy(self.config)
        model = self.loader()(full_config)
        # transformers makes the mask token by a call that no device context reaches.
        return model.to("meta") if torch.empty(0).is_meta else model

    def loader(self) -> Any:
        return MODEL_MAPPING[type(self.config)]

    def default_settings(self) -> Json:
        if self.banks:
            bands = self.config.feature_projection_input_dim // 2
            return {
                "feature_extractor_type": "SeamlessM4TFeatureExtractor",
                "feature_size": bands,
                "num_mel_bins": bands,
                "sampling_rate": 16000,
                "stride": 2,
            }
        return {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": 16000,
            "do_normalize": True,
            "return_attention_mask": self.config.feat_extract_norm != "group",
        }

    def extractor(self, settings: Json) -> Extractor:
        kind, rate = settings["feature_extractor_type"], settings["sampling_rate"]
        if self.banks:
            return FilterBank(kind, settings, least=0.035)  # two frames of 25 ms, 10 ms apart
        return Extractor(kind, settings, least=self._field() / rate)

    def _field(self) -> int:
        """Return samples that one token hears."""
        field, jump = 1, 1
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            field, jump = field + (kernel - 1) * jump, jump * stride
        return field

    def _geometry(self) -> tuple[float, float]:
        """Return seconds of a token, and where the first is centred."""
        if self.banks:
            return 0.02, 0.0175  # the middle of two frames of 25 ms
        jump = 1
        for stride in self.config.conv_stride:
            jump *= stride
        rate = self.processor.rate
        return jump / rate, (self._field() - 1) / 2 / rate

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """values `[B, N]` or `[B, N, M]` padded on the right with zeros, mask `[B, N]`."""
        key = "values" if self.banks else "wave"
        return padded([sample[key] for sample in samples], "values")

    def forward(
        self,
        values: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
    ) -> Features:
        """values `[B, N]` or `[B, N, M]`, mask `[B, N]` -> tokens `[B, T, D]`.

        layers: blocks by place, 0 the first, -1 the last.
        """
        kwargs: dict[str, Any] = {} if token_mask is None else {"mask_time_indices": token_mask}
        if (self.attends or self.banks) and not mask.is_meta:  # on meta there is nothing to see
            kwargs["attention_mask"] = mask.long()
        output = self.model(values, output_hidden_states=bool(hidden_states), **kwargs)
        tokens = output.last_hidden_state
        lengths = mask.sum(1)
        if not self.banks:
            lengths = self.model._get_feat_extract_output_lengths(lengths)
        real = up_to(lengths, tokens.shape[1])
        return in_time(tokens, real, self.step, self.origin, self.hidden(output, hidden_states))
