"""Feature extractors of transformers: the settings of the weights, run by their library.

An extractor holds plain JSON values; the library's own is built from them when the first sound
comes (e.g. in a loader's worker) and is never pickled.

Legend: `N` samples, `F` frames, `M` mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..base import Processor, ReadError, Sample
from .processor import framed
from .read import Sound

SETTINGS = ("feature_extractor_type", "processor_class", "image_processor_type")


@dataclass(frozen=True)
class Extractor(Processor):
    """Sound -> `{"wave": [N]}` by `kind`, a class of transformers, with its `options`.

    least, most: seconds that the model takes; most of 0 is no limit.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    least: float = 0.025
    most: float = 0.0

    @property
    def rate(self) -> int:
        return int(self.options["sampling_rate"])

    @cached_property
    def _extractor(self) -> Any:
        import transformers

        extractor_class = getattr(transformers, self.kind, None)
        if extractor_class is None:
            raise ValueError(f"processor: transformers has no feature extractor {self.kind!r}")
        return extractor_class(**{k: v for k, v in self.options.items() if k not in SETTINGS})

    def library(self) -> Any:
        """Return the feature extractor of transformers."""
        return self._extractor

    def wave(self, raw: Sound) -> Tensor:
        """Return `[N]` one channel at the model's rate; ReadError where it is too short or too
        long."""
        wave = framed(raw, self.rate, self.least)
        if self.most and len(wave) > round(self.most * self.rate):
            wrong = f"{raw.seconds:.4g} s of sound"
            raise ReadError(raw, wrong, f"at most {self.most:.4g} s; cut it by start and end")
        return wave

    def extract(self, wave: Tensor, **options: Any) -> dict[str, Tensor]:
        """Return the library's output for one sound."""
        outputs = self._extractor(
            wave.numpy(), sampling_rate=self.rate, return_tensors="pt", **options
        )
        return {name: value[0] for name, value in outputs.items() if len(value)}

    def prepare(self, raw: Sound) -> Sample:
        """`{"wave": [N]}`, at the rate and of the mean and spread that the weights want."""
        return {"wave": self.extract(self.wave(raw))["input_values"].float()}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_extractor"}

    def settings(self) -> dict[str, Any]:
        return {**self.__getstate__(), "options": dict(self.options)}


class FilterBank(Extractor):
    """`{"values": [F, 2 M]}`, frames in pairs: w2v-BERT's. An odd last frame is left out."""

    def prepare(self, raw: Sound) -> Sample:
        inputs = self.extract(self.wave(raw), return_attention_mask=True)
        real = inputs["attention_mask"].bool()
        return {"values": inputs["input_features"][: len(real)][real].float()}


class WhisperMel(Extractor):
    """`{"values": [F, M], "frames": []}`: the frames of the sound, and those behind it up to the
    first that hears nothing of it; `Whisper.collate` repeats that one to the window's end."""

    def prepare(self, raw: Sound) -> Sample:
        wave = self.wave(raw)
        mels = self.extract(wave)["input_features"].mT  # [frames of the window, M]
        hop = int(self._extractor.hop_length)
        silent = -(-(len(wave) + int(self._extractor.n_fft) // 2) // hop) + 1
        real = min(-(-len(wave) // hop), len(mels))
        # A copy: a view would keep the whole window in the cache of samples.
        return {"values": mels[:silent].float().clone(), "frames": torch.tensor(real)}


class PatchMel(Extractor):
    """`{"values": [F, M], "frames": []}`: AST's window, and how many of its frames are real."""

    def prepare(self, raw: Sound) -> Sample:
        wave = self.wave(raw)
        values = self.extract(wave)["input_values"].float()
        window, hop = round(0.025 * self.rate), round(0.01 * self.rate)  # kaldi's, not an option
        real = 1 + (len(wave) - window) // hop
        return {"values": values, "frames": torch.tensor(min(real, len(values)))}


class FusedMel(Extractor):
    """`{"values": [1 or 4, F, M], "longer": [1]}`: CLAP's, short sounds repeated."""

    def prepare(self, raw: Sound) -> Sample:
        inputs = self.extract(self.wave(raw))
        return {"values": inputs["input_features"].float(), "longer": inputs["is_longer"]}


MAIN = ("input_features", "input_values", "audio_mel", "input_audio_embeds", "audio_input_ids")
"""What feature extractors call that which the model reads first."""


@dataclass(frozen=True)
class AnyExtractor(Extractor):
    """`{"values": [...], "seconds": []}` and the other outputs of the library's extractor.

    masks: ask it for the mask of real steps too, which some models cannot go without.
    """

    masks: bool = False

    def features(self, wave: Tensor) -> Sample:
        """Return the library's output for `[N]`; `values` is the model's main input."""
        returned = self.extract(wave, **{"return_attention_mask": True} if self.masks else {})
        tensors = {key: value for key, value in returned.items() if isinstance(value, Tensor)}
        main = next((key for key in MAIN if key in tensors), next(iter(tensors), None))
        if main is None:
            raise ValueError(f"processor: {self.kind} returns no tensor")
        values = tensors.pop(main)
        if values.is_floating_point():  # silence has no spread to divide by
            values = values.float().nan_to_num(0.0)
        return {"values": values, **tensors}

    def prepare(self, raw: Sound) -> Sample:
        wave = self.wave(raw)
        return {**self.features(wave), "seconds": torch.tensor(len(wave) / self.rate)}

    def window(self, frames: int) -> float:
        """Return the seconds to which sounds are padded, as `frames` of the input."""
        samples = getattr(self._extractor, "n_samples", None)
        if samples:
            return float(samples) / self.rate
        hop = getattr(self._extractor, "hop_length", None) or 0.01 * self.rate
        return float(frames * hop / self.rate if frames < self.rate else frames / self.rate)


def settings_of_family(model_type: str, config: Any) -> dict[str, Any]:
    """Return the settings of the feature extractor that transformers has for a model from nothing.

    config: of its encoder, whose bands and frames the extractor returns. Without its own, a model
    has that of its family: `parakeet_ctc` for `parakeet_ctc_audio`. Raise ValueError if there is
    none.
    """
    import transformers
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    names = FEATURE_EXTRACTOR_MAPPING_NAMES
    known = [
        t for t in names for k in (config.model_type, model_type) if f"{k}_".startswith(f"{t}_")
    ]
    name = names[max(known, key=len)] if known else None
    if name is None:
        raise ValueError(
            f"config: {model_type} has no feature extractor; set processor: "
            "{feature_extractor_type: Wav2Vec2FeatureExtractor, sampling_rate: 16000}"
        )
    extractor = getattr(transformers, name)()
    settings = {"feature_extractor_type": name, "sampling_rate": extractor.sampling_rate}
    bands = getattr(config, "num_mel_bins", None)
    if bands and hasattr(extractor, "feature_size"):
        settings["feature_size"] = bands
    frames = getattr(config, "max_source_positions", None)
    if frames and hasattr(extractor, "chunk_length") and hasattr(extractor, "hop_length"):
        seconds = 2 * frames * extractor.hop_length // extractor.sampling_rate
        settings["chunk_length"] = max(1, seconds)
    return settings
