"""Masked language models: any `AutoModelForMaskedLM` (BERT, RoBERTa, DeBERTa, ModernBERT...).

Legend: `B` batch, `T` positions, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn

from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from ..modalities.base import Features, LayerHook, Tokenizer
from ..modalities.submodules import lacks_values, outline
from .base import ContextCache, HiddenStates
from .configs import Fields, one_line
from .pretrained import Pretrained
from .stack import (
    LayerAccess,
    Packed,
    arrange,
    check_length,
    layers_of,
    pack,
    position_ids,
    problem_of_rows,
    run_masked,
    sliding_windows,
)
from .visibility import CAUSAL, Attention, Visibility


class Masked(Pretrained):
    """An encoder that predicts the tokens at its mask ids; it attends both ways.

    `mask_id` is the tokenizer's mask token. A text is read at once: no context, no generation.
    """

    auto = AutoModelForMaskedLM
    builtin: ClassVar[Mapping[str, Fields]] = {}
    always: ClassVar[frozenset[str]] = frozenset({"bidirectional"})
    with_masks: ClassVar[frozenset[str]] = frozenset({"visibility"})

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
        if tokenizer.mask_id is None:
            raise ValueError(
                "tokenizer: has no mask token, which a masked language model needs; take the "
                "model's own, or bpe or bytes"
            )
        if config is not None and "vocab_size" not in config:  # positions are counted from it
            config = {"pad_token_id": tokenizer.pad_id, **config}
        super().__init__(
            tokenizer=tokenizer, name=name, config=config, attn=attn, dtype=dtype, options=options
        )
        width = self.model.config.hidden_size
        if width != self.dim:
            raise ValueError(
                f"config: {self.kind} embeds {self.dim} wide, its hidden states are {width} wide; "
                "take a model whose two widths are one"
            )

    def _no_masks(self) -> str | None:
        if getattr(self.model.config, "token_dropout", False):
            raise ValueError(
                f"config: {self.kind} scales embeddings by the masks among its ids, which it does "
                "not see here; set options: {token_dropout: false}"
            )
        if "attention_mask" not in self._inputs:
            raise ValueError(f"config: {self.kind} takes no attention mask, so no padding")
        if problem := problem_of_rows(self.decoder, self.model.config._attn_implementation):
            raise ValueError(
                f"config: {self.kind} {problem}; name it as the encoder of a text stream (type: "
                "transformers), which runs rows of one length together, or take another model"
            )
        code = sys.modules[type(self.decoder).__module__]
        takes = hasattr(code, "create_bidirectional_mask")
        return None if takes else "it makes its own mask and takes no other"

    @property
    def decoder(self) -> Any:
        return self.model.base_model

    @property
    def _inputs(self) -> Mapping[str, Any]:
        return inspect.signature(self.decoder.forward).parameters

    def forward(
        self,
        embeds: Tensor,
        mask: Tensor | None = None,
        context: Features | ContextCache | None = None,
        attention: Attention = "causal",
        layer_hooks: Mapping[int, LayerHook] | None = None,
        hidden_states: Sequence[int] = (),
    ) -> Tensor | HiddenStates:
        """See `Backbone.forward`; rows may be padded anywhere. attention: `bidirectional`."""
        visibility = self._visibility(attention, context)
        packed = pack(embeds.to(self.dtype), mask)
        access = self._access(self.blocks(), packed, mask, layer_hooks, hidden_states)
        try:
            return access.output(self._row(packed, mask, visibility, access))
        except Exception as error:
            if not lacks_values(error, embeds):
                raise
            self.not_walked = one_line(error)
        return outline(self, embeds)

    def _row(
        self, packed: Packed, mask: Tensor | None, visibility: Visibility, access: LayerAccess
    ) -> Tensor:
        """Return hidden `[B, T, D]` of a packed row."""
        check_length(
            self.model.config, self.kind, packed.positions.real, CAUSAL, self._first_position
        )
        meta = packed.tokens.device.type == "meta"
        if visibility.is_named and (not meta or self.no_masks):
            real = None if mask is None or meta else packed.positions.real.long()
            with access.attached():
                hidden: Tensor = self.decoder(
                    inputs_embeds=packed.tokens, attention_mask=real
                ).last_hidden_state
            return hidden
        return self._masked(packed, visibility, access)

    def _masked(self, packed: Packed, visibility: Visibility, access: LayerAccess) -> Tensor:
        row, order = packed.positions, packed.indices
        length = order.shape[1]
        visibility = visibility.map_masks(lambda m: arrange(m, 0, length, order, order))
        inputs = {}
        if visibility.restart_positions:
            if "position_ids" not in self._inputs:
                raise ValueError(f"{self.kind} takes no position ids, so they cannot restart")
            inputs["position_ids"] = position_ids(visibility, row, row) + self._first_position
        windows = sliding_windows(self.model.config, both_ways=True)
        out = run_masked(
            self.decoder, windows, packed.tokens, row, row, visibility, access, **inputs
        )
        states: Tensor = out.last_hidden_state
        return states

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]` as the model itself computes them."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return self._logits(flat, ids, inputs_embeds=flat).view(*hidden.shape[:-1], -1)

    def prefill(self, *args: Any, **options: Any) -> NoReturn:
        self._refuse("prefill")

    def teacher_force(self, *args: Any, **options: Any) -> NoReturn:
        self._refuse("teacher_force")

    def generate(self, *args: Any, **options: Any) -> NoReturn:
        self._refuse("generate")

    def _refuse(self, operation: str) -> NoReturn:
        raise ValueError(
            f"{operation}: the backbone `masked` sees a whole text at once and writes none token "
            "by "
            "token; use `causal`, `seq2seq` or `diffusion`"
        )

    def blocks(self) -> Sequence[nn.Module]:
        return layers_of(self.decoder)
