"""What encoders on transformers' models share: configuration, weights, layers, batches.

Legend: `B` batch, `L` tokens, `D` width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from ..base import Encoder, Features, LayerHook, Sample, Tokenizer
from ..messages import quiet_loading
from ..submodules import (
    ExtendedLMHead,
    HiddenOutput,
    freeze_unreached,
    hooked,
    lacks_values,
    list_of_layers,
    outline,
    path_of,
    precomputed,
    replace_submodules,
)
from ..text_processor import TextProcessor, collate_ids
from .repo_id import parse_repo_id
from .towers import (
    TextTrial,
    check_length,
    class_of,
    configuration,
    has_types,
    languages_of,
    positions,
    try_text,
    vocabulary_fields,
)


class HubText(Encoder):
    """A model of transformers that reads ids. Subclasses define `kind`, `auto_lm`, `part` and
    `pool`.

    name: a hub id or a folder (see `parse_repo_id`); its weights are read by `load`. config: the
    whole configuration, `model_type` first; with `name` it is filled by `resolve`, otherwise the
    model has random weights and the tokenizer's vocabulary. max_length: longer texts are truncated.
    lm_head: also build the language-model head; the encoder then supports `vocabulary`:
    `embed(ids)` and `logits(hidden)`.
    """

    kind: ClassVar[str]
    auto_lm: ClassVar[Any]

    def __init__(
        self,
        *,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: Tokenizer,
        max_length: int = 512,
        lm_head: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.tokenizer, self.lm_head = name, tokenizer, lm_head
        if config is None:
            raise ValueError(f"{self.kind}: give name (a hub id or folder) or config, and resolve")
        self.whole = configuration(
            self.kind,
            config if name else {**config, **vocabulary_fields(self.kind, config, tokenizer)},
        )
        self.model = self._built(self._auto.from_config(self.whole))
        self.processor: TextProcessor = TextProcessor(tokenizer, max_length)
        self.transformed(check=not self.transforms_follow)

    def transformed(self, check: bool = True) -> None:
        """See `Component`; check: that tokenizer and lengths fit."""
        if check:
            self._check(self.tokenizer, self.processor.max_length)
        self.dim: int = self.encoder.config.hidden_size
        self.processor.languages, self.processor.language = languages_of(self.encoder)
        trial, supported = self._trial, {"hidden_states", "inputs_embeds", "ids"}
        supported |= {"vocabulary"} if self.lm_head else set()
        supported |= {"layer_hooks"} if self.blocks() else set()
        supported |= {"types"} if has_types(self.encoder) else set()
        self.supports = frozenset(supported - trial.fails)
        freeze_unreached(self.encoder, trial.unused)

    @property
    def _trial(self) -> TextTrial:
        return try_text(self.encoder, self.tokenizer.bos_id, self.tokenizer.eos_id)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Read the configuration of `name` into `config`."""
        if options.get("name") is None or options.get("config") is not None:
            return options
        try:
            loaded = AutoConfig.from_pretrained(**parse_repo_id(options["name"]))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{cls.kind}: no model at {options['name']!r}: {reason}") from error
        # By way of JSON, but not `to_json_string`: that writes infinity as a dict.
        return {**options, "config": json.loads(json.dumps(loaded.to_diff_dict(), default=str))}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        """Return True for a hub id and for a folder with safetensors."""
        if options.get("name") is None:
            return False
        path = Path(parse_repo_id(options["name"])["pretrained_model_name_or_path"])
        return any(path.glob("*.safetensors")) if path.exists() else True

    def load(self) -> None:
        """Read the weights of `name`. Raise an error if the checkpoint lacks a weight."""
        if self.name is None:
            return super().load()
        with quiet_loading():
            pretrained, report = self._auto.from_pretrained(
                **parse_repo_id(self.name),
                config=self.whole,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        model = self._built(pretrained)
        parameters = {name for name, _ in pretrained.named_parameters()}
        lacking = sorted(set(report["missing_keys"]) & parameters)
        if lacking:
            raise ValueError(
                f"{self.kind}: {self.name!r} lacks {len(lacking)} weights ({lacking[0]}, ...); "
                "check the name, or set weights: none"
            )
        self.model = model.train(self.training)
        freeze_unreached(self.encoder, self._trial.unused)
        return None

    def _check(self, tokenizer: Tokenizer, max_length: int) -> None:
        max_positions = positions(self.encoder)
        rows = getattr(self.encoder.config, "vocab_size", self.whole.vocab_size)
        if rows < tokenizer.size:
            raise ValueError(
                f"{self.kind}: the tokenizer has {tokenizer.size} ids, the model {rows} rows; "
                "take the model's own tokenizer (own), or config without name"
            )
        if max_positions is not None and max_positions < max_length:
            raise ValueError(
                f"{self.kind}: max_length is {max_length}, the model has {max_positions} "
                f"positions; set max_length to {max_positions} or less"
            )

    @property
    def _auto(self) -> Any:
        if not self.lm_head:
            return class_of(self.whole) or AutoModel
        if type(self.whole) not in self.auto_lm._model_mapping or self.whole.is_encoder_decoder:
            raise ValueError(
                f"{self.kind}: {self.whole.model_type} has no {self.auto_lm.__name__} head; "
                "leave lm_head out"
            )
        return self.auto_lm

    def _built(self, model: Any) -> Any:
        """Return the parts of a model that are kept: all with its head, otherwise the encoder."""
        return model if self.lm_head else self.part(model)

    @property
    def encoder(self) -> Any:
        """The layers that read embeddings."""
        return self.part(self.model.base_model) if self.lm_head else self.model

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings `[..., L, E]` of ids `[..., L]`, as the model computes them."""
        embedded: Tensor = self.encoder.get_input_embeddings()(ids)
        return embedded

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits `[..., V]` of hidden `[..., D]`, or `[..., len(ids)]` of some ids, as the
        model computes them. Raise ValueError without `lm_head`."""
        if not self.lm_head:
            raise ValueError(f"{self.kind}: has no head; set lm_head: true")
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        stack, head = self.encoder, self.model.get_output_embeddings()
        parts: dict[str, nn.Module] = {path_of(self.model, stack): precomputed(stack, flat)}
        if ids is not None:
            parts[path_of(self.model, head)] = ExtendedLMHead(head, None, ids)
        logits: Tensor = replace_submodules(self.model, parts)(inputs_embeds=flat).logits
        return logits.view(*hidden.shape[:-1], -1)

    def part(self, model: nn.Module) -> Any:
        """Return the part of a model that encodes."""
        raise NotImplementedError

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        """Return `[B, D]` of tokens `[B, L, D]` and mask `[B, L]`."""
        raise NotImplementedError

    def inputs(self, ids: Tensor, mask: Tensor, embeds: Tensor | None) -> dict[str, Any]:
        """Return the model's keyword arguments."""
        if ids.is_meta:
            # transformers reads the values of ids and masks, which the meta device lacks.
            return {"inputs_embeds": self.embed(ids) if embeds is None else embeds}
        read = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        return {**read, "attention_mask": mask.long()}

    def padding_samples(self) -> Sequence[Sample]:
        """Return a short and a long text of plain ids."""
        tokenizer = self.tokenizer
        special = {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}
        special |= {getattr(tokenizer, "mask_id", None)}
        plain = [i for i in range(min(tokenizer.size, 64)) if i not in special] or [0]
        lengths = (5, min(12, self.processor.max_length))
        ids = [torch.tensor([plain[-i % len(plain)] for i in range(n)]) for n in lengths]
        return [{"ids": row} for row in ids]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ids `[B, L]` padded on the right, and mask `[B, L]`."""
        return collate_ids(samples, self.tokenizer.pad_id)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        hidden_states: Sequence[int] = (),
        layer_hooks: Mapping[int, LayerHook] | None = None,
        inputs_embeds: Tensor | None = None,
        types: Tensor | None = None,
        languages: Tensor | None = None,
    ) -> Features:
        """Return tokens `[B, L, D]` of ids `[B, L]` and mask `[B, L]`.

        hidden_states, layer_hooks: layers, 0 the first, -1 the last. inputs_embeds: `[B, L, E]`, in
        place of the ids' embeddings. types: `[B, L]` token types, 0 without them. languages: `[B]`
        indices, for a model with parameters of each language; its default without them.
        """
        check_length(self.kind, positions(self.encoder), inputs_embeds)
        with hooked(self.blocks(), layer_hooks, 0, mask):
            more = {"token_type_ids": types, "lang_ids": languages}
            out = self._run(ids, mask, inputs_embeds, bool(hidden_states), more)
        if (width := out.last_hidden_state.shape[-1]) != self.dim:
            raise ValueError(f"{self.kind}: the states have width {width}, expected {self.dim}")
        tokens = out.last_hidden_state.masked_fill(~mask.unsqueeze(-1), 0)
        layers = tuple(self._layer(out.hidden_states[1:], layer, mask) for layer in hidden_states)
        return Features(tokens, mask, pooled=self._pooled(out, tokens, mask), hidden_states=layers)

    def _pooled(self, out: Any, tokens: Tensor, mask: Tensor) -> Tensor | None:
        """Return the model's own vector `[B, D]` if it has one (CLIP, SigLIP)."""
        pooled: Tensor | None = getattr(out, "pooler_output", None)
        return self.pool(tokens, mask) if pooled is None or pooled.shape[-1] != self.dim else pooled

    def _run(
        self,
        ids: Tensor,
        mask: Tensor,
        embeds: Tensor | None,
        inner: bool,
        more: Mapping[str, Tensor | None],
    ) -> Any:
        """Return the model's output; on the meta device, where a model looks into values, that of
        ids alone or one of the right shape."""
        inputs, failed = self.inputs(ids, mask, embeds), None
        typed = {name: value for name, value in more.items() if value is not None}
        for choice in (inputs, {"input_ids": ids}) if ids.is_meta else (inputs,):
            try:
                return self.encoder(**choice, **typed, output_hidden_states=inner)
            except Exception as error:
                failed = error
                if not ids.is_meta:
                    raise
        if failed is not None and not lacks_values(failed, ids):
            raise failed
        start = torch.zeros(*ids.shape, self.dim, device=ids.device)
        hidden = outline(self.encoder, start if embeds is None else start + embeds.sum() * 0)
        states = (hidden,) * (len(self.blocks()) + 1) if inner else ()
        return HiddenOutput(last_hidden_state=hidden, hidden_states=states)

    def _layer(self, states: Sequence[Tensor], layer: int, mask: Tensor) -> Features:
        if not -(count := len(states)) <= layer < count:
            raise ValueError(f"{self.kind}: layer {layer} was requested, found {count} layers")
        return Features(states[layer].masked_fill(~mask.unsqueeze(-1), 0), mask)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the layers from input to output; empty if the model shares or hides them."""
        count = getattr(self.encoder.config, "num_hidden_layers", None)
        return list_of_layers(self.encoder, count)
