"""Sound as units: the clusters of an encoder's features (GSLM, arXiv 2102.01192).

Legend: `T` tokens of the encoder, `D` their width, `L` units of a sound, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from ...base import Encoder, PositiveInt
from ...messages import did_you_mean
from ...signal_tokens import Codebook, SignalTokenizer, TokenEncoder, check_ids
from .. import AUDIO


class AudioTokenizer(SignalTokenizer):
    """A tokenizer of sounds."""

    kind = "audio_tokenizer"


class AudioTokens(TokenEncoder):
    """Sounds as tokens, `encoder: {type: tokens, tokenizer: {type: units, ...}}`. dim: width of the
    learned vectors, where the stream is an input."""

    def __init__(self, *, tokenizer: AudioTokenizer, dim: PositiveInt = 64) -> None:
        super().__init__(tokenizer, dim)


class Units(AudioTokenizer):
    """The nearest of `codes` centroids of an encoder's features, found by k-means.

    encoder: an encoder of sounds as a stream's section has it, `{type: wav2vec2, name: org/name}`;
    without weights (`weights: none`) it is drawn from one seed, a random projection. layer: the
    hidden layer that is clustered; None: the output. deduplicate: a unit that lasts is one token,
    so that durations are lost. Decoding returns the centroids `[L, D]`, for a vocoder.
    """

    def __init__(
        self,
        *,
        encoder: dict[str, Any],
        codes: Annotated[int, Ge(2)] = 100,
        layer: int | None = None,
        deduplicate: bool = True,
    ) -> None:
        if "type" not in encoder:
            raise ValueError(
                "encoder: has no type; expected an encoder of sounds, {type: wav2vec2}"
            )
        if encoder["type"] not in AUDIO.encoders or encoder["type"] == "tokens":
            near = did_you_mean(encoder["type"], set(AUDIO.encoders) - {"tokens"})
            raise ValueError(f"encoder.type: found {encoder['type']!r}{near}")
        self.encoder, self.layer, self.deduplicate = dict(encoder), layer, deduplicate
        self.codes = self.size = codes
        self.aligned = not deduplicate
        self._codebook: Codebook | None = None
        self._encoder: Encoder | None = None

    def fit(self, rows: Iterable[Any]) -> None:
        """Cluster the features of sounds. Raise ValueError if fewer than `codes` differ."""
        book = Codebook.fit((self.features(row).numpy() for row in rows), self.codes)
        self.load_state({"centroids": book.vectors})

    def encode(self, signals: Sequence[Any]) -> list[Tensor]:
        """Return the units `[L]` of each sound."""
        return [self.quantize(self.features(sound)) for sound in signals]

    def decode(self, ids: Sequence[Any]) -> list[Tensor]:
        """Return the centroids `[L, D]` of each row of units. Raise ValueError, with the position,
        for a unit that repeats the one before, if they are deduplicated."""
        table = torch.from_numpy(self._fitted().vectors)
        return [table[self._checked(row)] for row in ids]

    def quantize(self, features: Tensor) -> Tensor:
        """features `[T, D]` -> units `[L]`."""
        units = self._fitted().nearest(features)
        return torch.unique_consecutive(units) if self.deduplicate else units

    def next_ids(self, ids: Sequence[int]) -> tuple[Collection[int], bool]:
        """Any unit may follow; if they are deduplicated, any other than the last."""
        if not (self.deduplicate and ids):
            return range(self.size), bool(ids)
        return [unit for unit in range(self.size) if unit != ids[-1]], True

    @torch.no_grad()
    def features(self, sound: Any) -> Tensor:
        """Return the features `[T, D]` of a sound, float32."""
        encoder = self._built()
        options = {} if self.layer is None else {"hidden_states": (self.layer,)}
        features = encoder(**encoder.collate([encoder.processor.prepare(sound)]), **options)
        if self.layer is not None:
            features = features.hidden_states[0]
        if self.aligned and features.spacing is not None:
            self.span = features.spacing[0]
        return features.tokens[features.mask].float()

    def _checked(self, row: Any) -> list[int]:
        units = check_ids(row, self.size, "units")
        for position in range(1, len(units)):
            if self.deduplicate and units[position] == units[position - 1]:
                raise ValueError(
                    f"units: position {position}: {units[position]} repeats the unit before; "
                    "expected another one, or deduplicate: false"
                )
        return units

    def _built(self) -> Encoder:
        """Return the encoder, built and loaded when it is first used."""
        if self._encoder is None:
            options = dict(self.encoder)
            module, _, name = AUDIO.encoders[options.pop("type")].partition(":")
            kind = getattr(import_module(module), name)
            weights = options.pop("weights", None)
            pretrained = kind.has_pretrained_weights(options)
            if weights not in (None, "none", "pretrained") or not (pretrained or weights):
                raise ValueError(
                    f"encoder.weights: found {weights}, expected the name of a model with weights, "
                    "or weights: none for a random projection"
                )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                encoder: Encoder = kind(**kind.resolve(options))
            if weights != "none":
                encoder.load()
            if self.layer is not None and "hidden_states" not in encoder.supports:
                raise ValueError(f"layer: found {self.layer}, and {name} returns no hidden layers")
            self._encoder = encoder.eval().requires_grad_(False)
        return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_encoder": None}  # a worker builds its own

    def _fitted(self) -> Codebook:
        if self._codebook is None:
            raise ValueError("units: used before fit; fit it, or load a saved one")
        return self._codebook

    def state(self) -> dict[str, Any]:
        """Return `centroids [K, D]` float32, and the seconds of a unit where they are known."""
        known = {} if self.span is None else {"span": self.span}
        return {"centroids": self._fitted().vectors, **known}

    def load_state(self, state: Mapping[str, Any]) -> None:
        centroids = np.asarray(state["centroids"])
        if len(centroids) != self.codes:
            raise ValueError(
                f"units: found {len(centroids)} saved centroids, expected {self.codes}"
            )
        self._codebook, self.span = Codebook(centroids), state.get("span", self.span)
