"""Speech models that learned from sound alone: Wav2Vec2, HuBERT, WavLM, w2v-BERT...

Baevski et al., "wav2vec 2.0", 2020; Hsu et al., "HuBERT", 2021; Chen et al., "WavLM", 2022;
Barrault et al., "Seamless" (w2v-BERT 2.0), 2023.

Legend: `B` batch, `N` steps of the input, `M` values of a step, `T` tokens, `D` width.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_PRETRAINING_MAPPING,
    MODEL_MAPPING,
)

from ...base import Features, Sample
from ...features import split_signal
from ..hf_extractor import Extractor, FilterBank
from .hf import HubSound, Json
from .padding import in_time, padded, up_to


class Wav2Vec2(HubSound):
    """A model by its hub id, its folder, or `config` with its `model_type`.

    Options: see `HubSound`. The masking that the weights were trained with is off; where the
    model has a mask token, a task may use it. An adapter behind the layers is left out: shorten
    by a connector. Where the convolutions are normed over groups (the base kinds) or see what is
    padded, padding changes features: sounds of one length are encoded together.

    quantizer: keep what the model's `ForPreTraining` has beside it (quantizer and projections), so
    that `masked_contrast` continues its pre-training from a checkpoint; refused for models whose
    class has no such loss. The targets of `masked_signal` are the samples under a token, or its
    filter banks.
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
        quantizer: bool = False,
    ) -> None:
        self.pretrains = quantizer
        super().__init__(name, config, processor)
        self.dim = int(self.config.hidden_size)
        whole, self.model = self.model, self.part(self.model)
        self.heads = nn.ModuleDict(dict(self._heads(whole)))
        # Its masks would be drawn by numpy in training, on top of the recipe's.
        self.model.config.mask_time_prob = self.model.config.mask_feature_prob = 0.0
        self.supports = frozenset({"hidden_states", "targets"})
        if hasattr(self.model, "masked_spec_embed"):
            self.supports |= {"token_mask", *(("quantizer",) if quantizer else ())}
        elif quantizer:
            raise ValueError("quantizer: the model has no mask token; set config.mask_time_prob")
        layered = self._layered
        self.batch_invariant = layered
        # Models normed over groups were trained without: silence fills their batches.
        self.attends = self.processor.options.get("return_attention_mask", layered)
        self.step, self.origin = self._geometry()
        self.time_inputs = {"values": 1, "mask": 1} if self.banks else {}

    @property
    def banks(self) -> bool:
        """True for w2v-BERT, which hears filter banks and not the wave."""
        return hasattr(self.config, "feature_projection_input_dim")

    @property
    def _layered(self) -> bool:
        """True where every convolution is normed over its layer (data2vec's always are)."""
        return getattr(self.config, "feat_extract_norm", "layer") != "group"

    def _configuration(self, settings: Json) -> Any:
        return super()._configuration({**settings, "add_adapter": False})

    def build(self) -> Any:
        # A copy, since the model's own loses its masking and `load` needs it again.
        full_config, self.config = self.config, copy.deepcopy(self.config)
        model = self.loader()(full_config)
        # transformers makes the mask token by a call that no device context reaches.
        return model.to("meta") if torch.empty(0).is_meta else model

    def loader(self) -> Any:
        if not self.pretrains:
            return MODEL_MAPPING[type(self.config)]
        family = MODEL_FOR_PRETRAINING_MAPPING.get(type(self.config), None)
        arguments = () if family is None else inspect.signature(family.forward).parameters
        if "sampled_negative_indices" not in arguments:
            kind = self.config.model_type
            raise ValueError(f"quantizer: transformers has no contrastive loss for {kind}; omit it")
        return family

    def part(self, model: Any) -> Any:
        return model.base_model

    def _heads(self, model: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yield what a model has beside its base: none, or the parts of its pre-training."""
        base = self.part(model)
        for name, child in model.named_children():
            if self.pretrains and child is not base:
                yield name, child

    def loaded(self, model: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield from super().loaded(model)
        yield from ((self.heads[name], child) for name, child in self._heads(model))

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
            "return_attention_mask": self._layered,
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

    @property
    def target_dim(self) -> int:
        """Numbers of a token's target."""
        if self.banks:
            return int(self.config.feature_projection_input_dim)
        return round(self.step * self.processor.rate)

    def targets(self, values: Tensor, mask: Tensor) -> Features:
        """Return the samples in the middle of what each token hears, or its filter banks, as `[B,
        T, target_dim]`."""
        if self.banks:
            return in_time(values, mask, self.step, self.origin)
        jump = self.target_dim
        count = int(self.model._get_feat_extract_output_lengths(values.shape[1]))
        start = (self._field() - jump) // 2
        blocks = split_signal(values[:, None, start:], (count,), (jump,))
        return in_time(blocks, self._real(mask, count), self.step, self.origin)

    def _real(self, mask: Tensor, count: int) -> Tensor:
        """mask `[B, N]` of the input -> that of `count` tokens."""
        lengths = mask.sum(1)
        if not self.banks:
            lengths = self.model._get_feat_extract_output_lengths(lengths)
        return up_to(lengths, count)

    def forward(
        self,
        values: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        token_mask: Tensor | None = None,
        gumbel_temperature: float | None = None,
    ) -> Features:
        """values `[B, N]` or `[B, N, M]`, mask `[B, N]` -> tokens `[B, T, D]`.

        hidden_states: blocks by place, 0 the first, -1 the last. gumbel_temperature: see
        `HasQuantizer`.
        """
        kwargs: dict[str, Any] = {}
        if not mask.is_meta:  # on meta there is nothing to see
            if token_mask is not None:
                kwargs["mask_time_indices"] = token_mask
            if self.attends or self.banks:
                kwargs["attention_mask"] = mask.long()
        output = self.model(values, output_hidden_states=bool(hidden_states), **kwargs)
        tokens = output.last_hidden_state
        layers = self.hidden(output, hidden_states)
        if gumbel_temperature is not None:
            layers += self._quantized(output, gumbel_temperature)
        real = self._real(mask, tokens.shape[1])
        return in_time(tokens, real, self.step, self.origin, layers)

    def _quantized(self, output: Any, temperature: float) -> list[Tensor]:
        """Return the predictions, the quantized vectors, and the logits of each codebook."""
        heads: Any = self.heads
        quantizer = heads["quantizer"]
        quantizer.temperature = temperature
        convolved = heads["dropout_features"](output.extract_features)
        quantized, _ = quantizer(convolved)
        logits = quantizer.weight_proj(convolved).chunk(quantizer.num_groups, -1)
        predictions = heads["project_hid"](output.last_hidden_state)
        return [predictions, heads["project_q"](quantized), *logits]
