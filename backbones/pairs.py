"""Models of an encoder and a decoder: their parts, and the ids before the target."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

from ..modalities.base import Tokenizer
from ..modalities.submodules import path_of
from .generation import Generative


class Pair(Generative):
    """A model of two stacks: its options, and which of its parts run. See `Seq2Seq`."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        attn: Literal["sdpa", "eager"] = "sdpa",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        options: dict[str, Any] | None = None,
        generation: dict[str, Any] | None = None,
        own_encoder: bool = True,
        start: list[int | str] | None = None,
    ) -> None:
        self.auto: Any = AutoModelForSeq2SeqLM
        self.encodes_context = own_encoder
        self.start = start
        super().__init__(
            tokenizer=tokenizer, name=name, config=config, attn=attn, dtype=dtype,
            options=options, generation=generation,
        )  # fmt: skip

    def transformed(self, check: bool = True) -> None:
        if not self.encodes_context:
            self._remove_encoder()
        super().transformed(check)
        assert self.start_ids  # a token that the tokenizer lacks is refused here
        if self.encodes_context:
            return
        self.supports -= {"bidirectional"}
        width = getattr(self.settings, "hidden_size", self.dim)
        cross = getattr(self.settings, "cross_attention_hidden_size", None) or width
        if cross != self.dim:
            raise ValueError(
                f"own_encoder: the decoder of {self.kind} attends to features {cross} wide, its "
                f"embeddings are {self.dim} wide; take a model whose two widths are one"
            )

    def _remove_encoder(self) -> None:
        encoder = self.model.get_encoder()
        if any(True for _ in encoder.parameters()):
            shared = {id(p) for p in self.decoder.parameters()}
            table = self.model.get_input_embeddings().weight
            if id(table) not in shared and any(table is p for p in encoder.parameters()):
                self.model.set_input_embeddings(self.decoder.get_input_embeddings())
            self.model.set_submodule(path_of(self.model, encoder), nn.Identity())

    def load(self) -> None:
        super().load()
        if not self.encodes_context:
            self._remove_encoder()

    def _complete_config(self, config: Any, options: Mapping[str, Any]) -> None:
        pair = getattr(config, "is_encoder_decoder", False)
        if not pair:
            raise ValueError(
                f"config: {config.model_type} is no encoder-decoder of text; use type: causal with "
                "its text_config"
            )
        if type(config) in AutoModelForSeq2SeqLM._model_mapping:
            return
        if self.encodes_context and type(config) in AutoModelForSpeechSeq2Seq._model_mapping:
            raise ValueError(
                f"config: the encoder of {config.model_type} reads sounds; set own_encoder: false, "
                "and name that encoder in an audio stream"
            )
        self.auto = AutoModelForSpeechSeq2Seq

    @property
    def encoder(self) -> Any:
        return self.model.get_encoder()

    @property
    def settings(self) -> Any:
        """The configuration of the decoder."""
        return self.decoder.config

    @property
    def start_ids(self) -> list[int]:
        """The ids before the first target."""
        if self.start is not None:
            return [self._start_id(token) for token in self.start]
        config, stored = self.model.config, self.model.generation_config
        for settings in (config, stored):
            if (start := getattr(settings, "decoder_start_token_id", None)) is not None:
                return [int(start)]
        bos = self.tokenizer.bos_id
        return [self.tokenizer.pad_id if bos is None else bos]

    def _start_id(self, token: int | str) -> int:
        if isinstance(token, int):
            return token
        backend = getattr(self.tokenizer, "backend", None)
        index = None if backend is None else backend.token_to_id(token)
        if index is None:
            raise ValueError(f"start: the tokenizer has no token {token!r}; give its id")
        return int(index)

    def _masks_context(self, real: Tensor) -> bool:
        """Return whether the decoder takes a mask of the context. Raise ValueError if it does not,
        as Whisper's, and some of it is padding."""
        takes = "encoder_attention_mask" in inspect.signature(self.decoder.forward).parameters
        if not (takes or real.device.type == "meta" or bool(real.all())):
            raise ValueError(
                f"{self.kind}: its decoder attends to all of the context, also to padding; give it "
                "rows of one length (of Whisper's encoder: whole_window: true)"
            )
        return takes

    def _bridged(self, encoded: Tensor) -> Tensor:
        """Return the encoder's output as the decoder reads it: a pair of two widths has a map."""
        bridge = getattr(self.model, "enc_to_dec_proj", None) if self.encodes_context else None
        return encoded if bridge is None else bridge(encoded)
