"""Any causal language model of transformers as a text encoder.

Only the last token has attended to the whole text, so it is the pooled vector (as in E5-Mistral,
Wang et al. 2024). Legend: `B` batch, `L` tokens, `D` width.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ..base import Features, LayerHook, PositiveInt, Tokenizer
from .hf import HubText
from .towers import positions

WITH_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers, as configurations call them, that obey a mask."""


class CausalLM(HubText):
    """tokens: the last hidden state, after the model's final norm. pooled: the last real token.

    attention: `bidirectional` lets every token attend to all of the text (LLM2Vec: BehnamGhader et
    al. 2024; Gemma Encoder: Suganthan et al. 2025); its usual pooling is `mean`.

    echo: the text is repeated and the second copy is returned, whose every token has attended to
    the whole text (Springer et al., "Repetition Improves Language Model Embeddings", 2024); `mean`
    is its usual pooling. Other options: see `HubText`; `config: {model_type: llama, hidden_size:
    64, ...}` builds a small model.
    """

    kind: ClassVar[str] = "causal_lm"
    auto_lm: ClassVar[Any] = AutoModelForCausalLM
    attention: str = "causal"
    echo: bool = False

    def __init__(
        self,
        *,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: Tokenizer,
        max_length: PositiveInt = 512,
        lm_head: bool = False,
        echo: bool = False,
        attention: Literal["causal", "bidirectional"] = "causal",
    ) -> None:
        super().__init__(
            name=name, config=config, tokenizer=tokenizer, max_length=max_length, lm_head=lm_head
        )
        self.attention, self.tried = attention, False
        self.echo = echo
        if echo or attention != "causal":
            self.supports -= {"causal"}
        if attention == "bidirectional" and (reason := self._one_way()):
            raise ValueError(
                f"attention: {self.whole.model_type} cannot attend both ways ({reason}); use causal"
            )
        if attention == "bidirectional" and echo:
            raise ValueError(
                "echo: attends to the whole text as attention: bidirectional does; take one out"
            )
        max_positions = positions(self.encoder)
        if echo and max_positions is not None and max_positions < 2 * max_length:
            raise ValueError(
                f"causal_lm: echo reads max_length {max_length} twice, the model has "
                f"{max_positions} "
                f"positions; set max_length to {max_positions // 2} or less"
            )

    def transformed(self, check: bool = True) -> None:
        super().transformed(check)
        self.supports -= {"types"}
        if self._trial.causal and self.attention == "causal" and not self.echo:
            self.supports |= {"causal"}

    def part(self, model: Any) -> nn.Module:
        """Return the whole model. Raise ValueError for an encoder-decoder model."""
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"causal_lm: {model.config.model_type} has an encoder of its own; "
                "use type: transformers"
            )
        stack: nn.Module = model
        return stack

    def inputs(self, ids: Tensor, mask: Tensor, embeds: Tensor | None) -> dict[str, Any]:
        if self.attention == "bidirectional":
            mask_option = {"attention_mask": self._both_ways(mask), "use_cache": False}
            return super().inputs(ids, mask, embeds) | mask_option
        # Without a mask and a cache the model looks for packed texts in the positions' values,
        # which are not there on meta; a cache, free there, keeps it from looking.
        return {**super().inputs(ids, mask, embeds), "use_cache": ids.is_meta}

    def _one_way(self) -> str | None:
        """Return why the model takes no mask but its causal one; None if it takes any."""
        types = set(getattr(self.encoder.config, "layer_types", None) or ())
        if getattr(self.encoder, "_is_stateful", False) or types - WITH_ATTENTION:
            return "its layers hold a state"
        code = sys.modules[type(self.encoder).__module__]
        return None if hasattr(code, "create_causal_mask") else "it makes its own mask"

    def _both_ways(self, mask: Tensor) -> Tensor:
        """Return the additive mask `[B, 1, L, L]` by which every position sees all real tokens."""
        dtype = next(self.encoder.parameters()).dtype
        length = mask.shape[1]
        hidden = ~mask[:, None, None, :].expand(-1, 1, length, -1)
        zeros = torch.zeros(hidden.shape, dtype=dtype, device=mask.device)
        return zeros.masked_fill(hidden, torch.finfo(dtype).min)

    @torch.no_grad()
    def _try(self, device: torch.device) -> None:
        """Raise ValueError if the first of four tokens does not see the last, in spite of the
        mask."""
        self.tried, training = True, self.training
        ids = torch.arange(8, device=device).view(2, 4) % 4
        ids[1, 3] = 4
        tokens = self.eval()(ids, torch.ones_like(ids, dtype=torch.bool)).tokens[:, 0]
        self.train(training)
        if torch.equal(tokens[0], tokens[1]):
            raise ValueError(
                f"attention: {self.whole.model_type} takes no mask that lets it attend both ways; "
                "use causal"
            )

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
        """As `HubText`, without types; with `echo` of the second copy, hooks then receive both,
        `[B, 2 L, D]`."""
        if self.attention == "bidirectional" and not (self.tried or ids.is_meta):
            self._try(ids.device)
        if not self.echo:
            return super().forward(
                ids, mask, hidden_states, layer_hooks, inputs_embeds, languages=languages
            )
        lengths = mask.sum(1, keepdim=True)
        positions = torch.arange(2 * ids.shape[1], device=ids.device)  # [2 L]
        again = torch.where(positions < lengths, positions, positions - lengths)
        again = again.clamp(max=ids.shape[1] - 1)
        if inputs_embeds is not None:
            rows = again.unsqueeze(-1).expand(-1, -1, inputs_embeds.shape[-1])
            inputs_embeds = inputs_embeds.gather(1, rows)
        copies, real = ids.gather(1, again), positions < 2 * lengths
        read = super().forward(
            copies, real, hidden_states, layer_hooks, inputs_embeds, languages=languages
        )
        second = lengths + positions[: ids.shape[1]]  # [B, L]

        def second_copy(features: Features) -> Features:
            rows = second.unsqueeze(-1).expand(-1, -1, features.dim)
            tokens = features.tokens.gather(1, rows).masked_fill(~mask.unsqueeze(-1), 0)
            return features.replace(tokens=tokens, mask=mask)

        return second_copy(read).replace(
            hidden_states=tuple(second_copy(layer) for layer in read.hidden_states)
        )

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        rows = torch.arange(len(tokens), device=tokens.device)
        return tokens[rows, mask.sum(1) - 1]
