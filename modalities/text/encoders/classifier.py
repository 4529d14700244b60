"""The scores of a sequence classifier of transformers as a vector: the encoder of a cross-encoder.

Legend: `B` batch, `L` tokens, `K` labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from ...base import Features, LayerHook, PositiveInt, Tokenizer
from ..hf import HubText


class SequenceClassifier(HubText):
    """pooled, and the one token: the scores `[K]` of a model with its classification head (any of
    transformers' `ForSequenceClassification`), as it was trained. `num_labels` of the configuration
    is K. token_types: false leaves them all 0, as tokenizers do that return none. Other options:
    see `HubText`.
    """

    kind: ClassVar[str] = "sequence_classifier"
    auto_lm: ClassVar[Any] = AutoModelForSequenceClassification

    def __init__(
        self,
        *,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: Tokenizer,
        max_length: PositiveInt = 512,
        token_types: bool = True,
    ) -> None:
        self.token_types = token_types
        super().__init__(name=name, config=config, tokenizer=tokenizer, max_length=max_length)

    def transformed(self, check: bool = True) -> None:
        super().transformed(check)
        self.dim = int(self.model.config.num_labels)
        self.supports = self.supports & ({"ids", "types"} if self.token_types else {"ids"})

    @property
    def _auto(self) -> Any:
        if type(self.whole) not in self.auto_lm._model_mapping:
            raise ValueError(
                f"{self.kind}: {self.whole.model_type} has no {self.auto_lm.__name__} head"
            )
        return self.auto_lm

    def _built(self, model: Any) -> Any:
        return model

    @property
    def encoder(self) -> Any:
        return self.model.base_model

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
        """Return tokens `[B, 1, K]` and pooled `[B, K]` of ids `[B, L]` and mask `[B, L]`."""
        if ids.is_meta:
            scores = torch.zeros(len(ids), self.dim, device=ids.device)
            scores = scores + sum(p.sum() * 0 for p in self.model.parameters())
        else:
            more = {"token_type_ids": types, "lang_ids": languages}
            more = {name: value for name, value in more.items() if value is not None}
            scores = self.model(input_ids=ids, attention_mask=mask.long(), **more).logits
        one = torch.ones(len(ids), 1, dtype=torch.bool, device=ids.device)
        return Features(scores[:, None], one, pooled=scores)

    def part(self, model: nn.Module) -> Any:
        return model

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        return None
