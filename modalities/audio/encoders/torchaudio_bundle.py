"""torchaudio's Wav2Vec2 and HuBERT, built with the configurations of its bundles, without their
download.

The bundles' weights are pickles and are not read; weights come from a run or a safetensors file.
Its WavLM takes no lengths, so that no batch could be padded: take `wav2vec2` for that.

Legend: `B` batch, `N` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchaudio
from torch import Tensor, nn

from ...base import Encoder, Features, Sample
from ...messages import did_you_mean
from ..processor import Wave
from .padding import layer_indices, mask_tokens, padded, up_to


class TorchaudioBundle(Encoder):
    """A model by the name of its bundle, `WAV2VEC2_BASE`, `HUBERT_LARGE`, `WAV2VEC2_XLSR53`...

    options: changes to the bundle's arguments, as `torchaudio.models.wav2vec2_model` names it. A
    head for letters is left out. Where the convolutions are normed over groups (the base kinds)
    padding changes features.
    """

    supports = frozenset({"hidden_states"})

    @classmethod
    def list_names(cls) -> Sequence[str]:
        return list(_bundles())

    def __init__(self, name: str, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        bundle = _bundle(name)
        settings = {**bundle._params, **(options or {}), "aux_num_out": None}
        try:
            self.model = torchaudio.models.wav2vec2_model(**settings)
        except (TypeError, ValueError, AssertionError) as error:
            line = " ".join(str(error).split())
            raise ValueError(f"options: torchaudio cannot build {name} so: {line}") from error
        self.dim = int(settings["encoder_embed_dim"])
        self.batch_invariant = settings["extractor_mode"] != "group_norm"
        field, jump = 1, 1
        for _, kernel, stride in settings["extractor_conv_layer_config"]:
            field, jump = field + (kernel - 1) * jump, jump * stride
        rate = int(bundle.sample_rate)
        self.step, self.origin = jump / rate, (field - 1) / 2 / rate
        self.processor: Wave = Wave(rate, bundle._normalize_waveform, field / rate)

    def load(self) -> None:
        raise ValueError(
            "torchaudio_bundle: torchaudio publishes these weights as a pickle, which is not read; "
            "set weights: none, or name a run or a safetensors file (or take wav2vec2 by a hub id)"
        )

    def blocks(self) -> Sequence[nn.Module]:
        return tuple(self.model.encoder.transformer.layers)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """wave `[B, N]` padded on the right with zeros, mask `[B, N]`."""
        return padded([sample["wave"] for sample in samples], "wave")

    def forward(self, wave: Tensor, mask: Tensor, hidden_states: Sequence[int] = ()) -> Features:
        """wave `[B, N]`, mask `[B, N]` -> tokens `[B, T, D]`.

        layers: blocks by place, 0 the first, -1 the last.
        """
        blocks = self.blocks()
        hidden: dict[int, Tensor] = {}
        indices = layer_indices(hidden_states, len(blocks))
        handles = [blocks[i].register_forward_hook(_output_hook(hidden, i)) for i in set(indices)]
        try:
            # On meta there is nothing to see: the library looks for padding by its places.
            tokens, lengths = self.model(wave, None if wave.is_meta else mask.sum(1))
        finally:
            for handle in handles:
                handle.remove()
        longest = tokens.shape[1]
        real = mask[:, :longest] if lengths is None else up_to(lengths, longest)
        layers = tuple(self._features(hidden[index], real) for index in indices)
        return self._features(tokens, real).replace(hidden_states=layers)

    def _features(self, x: Tensor, mask: Tensor) -> Features:
        grid = (x.shape[1],)
        return Features(
            mask_tokens(x, mask), mask, grid=grid, spacing=(self.step,), origin=(self.origin,)
        )


def _output_hook(hidden: dict[int, Tensor], index: int) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        hidden[index] = output[0]  # the other is a position bias

    return hook


def _bundle(name: str) -> Any:
    bundles = _bundles()
    if name not in bundles:
        raise ValueError(f"name: no bundle {name!r}{did_you_mean(name, bundles)}")
    return bundles[name]


def _bundles() -> dict[str, Any]:
    values = vars(torchaudio.pipelines)
    return {n: v for n, v in values.items() if getattr(v, "_model_type", "") == "Wav2Vec2"}
