"""What the two families of decoders share: building, embedding, logits, added tokens.

Legend: `B` batch, `T` positions, `D` width, `V` vocabulary, `n` added tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modalities.base import Features, LayerHook, Tokenizer
from ..modalities.messages import quiet_loading
from ..modalities.submodules import (
    ExtendedEmbedding,
    ExtendedLMHead,
    embeddings_of,
    lacks_values,
    path_of,
    precomputed,
    replace_submodules,
    unwrapped,
)
from .base import Backbone, ContextCache
from .configs import Fields, build_model, has_weights, make_config, one_line, read_config
from .stack import LayerAccess, Packed, Trial, first_position, layers_of, stack_of, untie_head
from .visibility import Attention, Visibility, as_visibility


class Pretrained(Backbone):
    """A language model of transformers.

    tokenizer: text <-> ids. name: a folder, a hub id or a built-in configuration. config: a
    transformers configuration in place of a name (`resolve` reads it). attn: the attention
    implementation. dtype: of the weights. options: fields of the configuration to override.
    """

    auto: Any
    builtin: ClassVar[Mapping[str, Fields]]
    always: ClassVar[frozenset[str]] = frozenset({"causal"})
    with_masks: ClassVar[frozenset[str]] = frozenset(
        {"prefix", "block", "bidirectional", "visibility"}
    )

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        attn: Literal["sdpa", "eager"] = "sdpa",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.tokenizer, self.dtype = name, tokenizer, getattr(torch, dtype)
        self.mask_id = getattr(tokenizer, "mask_id", None)
        fields = self._local(name) if config is None else config
        built = make_config(fields, options or {}, tokenizer)
        self._complete_config(built, options or {})
        with torch.device("meta") if self.weights_follow else nullcontext():
            self.model = build_model(self.auto, built, attn, self.dtype)
        self._own_head = (fields | (options or {})).get("tie_word_embeddings") is False
        if self._own_head:
            untie_head(self.model)
        self.new_rows = nn.ParameterDict()
        self._spreads: list[float] = []  # of the added rows
        self.trial: Trial | None = None
        self.transformed(check=not self.transforms_follow)

    def transformed(self, check: bool = True) -> None:
        if check:
            self._check_table()
        self.dim = self.table.embedding_dim
        self.no_masks = self._no_masks()
        supports = {"inputs_embeds", "vocabulary"} | self.always
        supports |= set() if self.no_masks else self.with_masks
        supports |= {"layer_hooks", "hidden_states"} if layers_of(self.decoder) else set()
        self.supports = frozenset(supports)

    @classmethod
    def resolve(cls, options: dict[str, Any]) -> dict[str, Any]:
        name = options.get("name")
        if name is None or options.get("config") is not None:
            return options
        return {**options, "config": read_config(name, cls.builtin)}

    @classmethod
    def has_pretrained_weights(cls, options: Mapping[str, Any]) -> bool:
        return has_weights(options.get("name"), cls.builtin)

    def _local(self, name: str | None) -> Fields:
        """Return the configuration of a name, without network."""
        if name is None:
            raise ValueError(f"name: is required here; for example {next(iter(self.builtin))}")
        if name not in self.builtin and not Path(name).exists():
            raise ValueError(f"name: {name!r} is no folder; resolve it first, or give its config")
        return read_config(name, self.builtin)

    def _check_table(self) -> None:
        rows, size = self.table.num_embeddings, self.tokenizer.size
        if size > rows:
            raise ValueError(
                f"tokenizer: has {size} ids, {self.kind} embeds {rows}; use the model's own "
                "tokenizer, or train the model from nothing"
            )

    def _complete_config(self, config: Any, options: Mapping[str, Any]) -> None:
        """Set fields of a configuration that this use of the model needs, or refuse it."""

    def _no_masks(self) -> str | None:
        """Return why the model takes no mask but its own causal one; None if it takes any."""
        raise NotImplementedError

    def load(self) -> None:
        """Fill with the weights of the folder or hub id; call it before adapters are added."""
        if not self.has_pretrained_weights({"name": self.name}):
            super().load()
        with quiet_loading():
            loaded, info = self.auto.from_pretrained(
                self.name,
                config=self.model.config,
                attn_implementation=self.model.config._attn_implementation,
                dtype=self.dtype,
                use_safetensors=True,
                output_loading_info=True,
            )
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"name: {self.name} lacks {missing[0]} (and {len(missing) - 1} more) of "
                f"{type(loaded).__name__}"
            )
        old, device = dict(self.model.named_parameters()), self.table.weight.device
        if self._own_head:
            untie_head(loaded)
        self.model = loaded.train(self.training).to(None if device.type == "meta" else device)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(old[name].requires_grad)
        if self.num_added_tokens:
            self._init_rows(self._spreads)

    @property
    def kind(self) -> str:
        """The name of the family, for errors."""
        return str(self.model.config.model_type)

    @property
    def table(self) -> nn.Embedding:
        """The table of input embeddings."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    @property
    def _first_position(self) -> int:
        """The position id of the first token: RoBERTa's kind counts from behind the padding id."""
        return first_position(self.decoder)

    @property
    def head(self) -> Any:
        return self.model.get_output_embeddings()

    @property
    def decoder(self) -> Any:
        """The stack of layers that reads embeddings."""
        return stack_of(self.model)

    def unsupported_reason(self, ability: str) -> str | None:
        if ability in self.supports:
            return None
        masks = ability in self.with_masks and self.no_masks is not None
        reason = f" ({self.no_masks})" if masks else ""
        return f"{self.kind} cannot do {ability}{reason}; it can do {self._supported}"

    def _visibility(
        self, attention: Attention, context: Features | ContextCache | None
    ) -> Visibility:
        """Return the visibility of `attention`. Raise ValueError if the model cannot do it."""
        visibility = as_visibility(attention)
        for ability in (visibility.base, None if visibility.is_named else "visibility"):
            if ability is not None and (reason := self.unsupported_reason(ability)):
                raise ValueError(reason)
        if visibility.base == "bidirectional" and context is not None:
            raise ValueError(
                "bidirectional attention takes no context; put it into the embeds, or use block"
            )
        return visibility

    def _access(
        self,
        layers: Sequence[nn.Module],
        packed: Packed,
        mask: Tensor | None,
        layer_hooks: Mapping[int, LayerHook] | None,
        hidden_states: Sequence[int],
    ) -> LayerAccess:
        """Return the hooks of a forward at its layers. Raise ValueError if it cannot."""
        for ability, value in {"layer_hooks": layer_hooks, "hidden_states": hidden_states}.items():
            if value and (reason := self.unsupported_reason(ability)):
                raise ValueError(reason)
        return LayerAccess(self.kind, layers, packed, mask, layer_hooks, hidden_states)

    def _check_filled(self, context: Features) -> None:
        """Raise ValueError for an empty row."""
        problem = "context: a row is empty; it needs at least one token (e.g. a bos)"
        filled, device = context.mask.any(1).all(), context.mask.device.type
        if device == "cuda" and context.tokens.shape[1]:
            torch._assert_async(filled, problem)  # does not synchronize with the device
        elif context.tokens.shape[1] == 0 or (device != "meta" and not bool(filled)):
            raise ValueError(problem)

    def _embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        rows = self.new_rows["input"] if self.new_rows else None
        embeds: Tensor = (table if rows is None else ExtendedEmbedding(table, rows))(ids)
        return embeds

    def embed(self, ids: Tensor) -> Tensor:
        return self._embed(self.table, ids)

    def add_tokens(self, n: int, spread: float = 0.1) -> int:
        """As `Backbone.add_tokens`; the rows are separate parameters (`new_rows`), initialized
        about the mean of the table's rows, and again by `load`."""
        if n < 1:
            raise ValueError(f"add_tokens: found {n}, expected at least 1")
        before = {key: rows.detach() for key, rows in self.new_rows.items()}
        first = self.table.num_embeddings + self.num_added_tokens
        self._init_rows([spread] * n)
        self._spreads += [spread] * n
        for key, rows in before.items():
            self.new_rows[key] = nn.Parameter(torch.cat([rows, self.new_rows[key].detach()]))
        return first

    def added_token_parameters(self) -> frozenset[str]:
        return frozenset(f"new_rows.{key}" for key in self.new_rows)

    def unfreeze_added_tokens(self) -> None:
        for rows in self.new_rows.values():
            rows.requires_grad_(True)

    @property
    def num_added_tokens(self) -> int:
        return len(self.new_rows["input"]) if self.new_rows else 0

    def _init_rows(self, spreads: list[float]) -> None:
        sources = {"input": self.table.weight}
        if not any(self.head.weight is table.weight for table in self._tables().values()):
            sources["output"] = self.head.weight
        with torch.no_grad():
            for key, weight in sources.items():
                noise = torch.randn_like(weight[:1].expand(len(spreads), -1))
                start = weight.mean(0) + weight.new_tensor(spreads)[:, None] * weight.std(0) * noise
                self.new_rows[key] = nn.Parameter(start)

    def _tables(self) -> dict[str, nn.Module]:
        """Return every input table of the model, by its path: with its adapter, if it has one."""
        tables = (self.table, self.decoder.get_input_embeddings())
        return embeddings_of(self.model, [table.weight for table in tables])

    def _extended_head(self, ids: Tensor | None = None) -> dict[str, nn.Module]:
        if not self.new_rows and ids is None:
            return {}
        key = "output" if "output" in self.new_rows else "input"
        rows = self.new_rows[key] if self.new_rows else None
        return {path_of(self.model, self.head): ExtendedLMHead(self.head, rows, ids)}

    def _logits(self, hidden: Tensor, ids: Tensor | None, **inputs: Any) -> Tensor:
        """Call the model with a decoder that has already run."""
        stack = {path_of(self.model, self.decoder): precomputed(self.decoder, hidden)}
        head = self._extended_head(ids)
        try:
            logits: Tensor = self._replaced(stack | head, ids)(**inputs).logits
        except Exception as error:
            if not lacks_values(error, hidden):
                raise ValueError(
                    f"config: the head of {self.kind} reads more than the last hidden states of "
                    f"its stack ({one_line(error)}), so it is no backbone"
                ) from error
            logits = next(iter(head.values()), self.head)(hidden)
        base: Any = unwrapped(self.table)
        count = base.weight.shape[0] + self.num_added_tokens
        if ids is None and self.num_added_tokens and logits.shape[-1] < count:
            raise ValueError(
                f"{self.kind} cuts its logits to {logits.shape[-1]} of {count} ids, so that added "
                "tokens have none; take a model whose vocabulary is not cut"
            )
        return logits

    def _replaced(self, parts: Mapping[str, nn.Module], ids: Tensor | None = None) -> Any:
        """Return a copy of the model with other submodules and the bias of its logits."""
        model = replace_submodules(self.model, parts)
        bias = self.model._buffers.get("final_logits_bias")  # of BART and its relatives
        if bias is not None:
            bias = F.pad(bias, (0, self.num_added_tokens)) if self.num_added_tokens else bias
            bias = bias if ids is None else bias[:, ids]
            model.__dict__["_buffers"] = {**self.model._buffers, "final_logits_bias": bias}
        return model
