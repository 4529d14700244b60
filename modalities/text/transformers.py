"""Any BERT-like model of transformers as a bidirectional text encoder.

Legend: `B` batch, `L` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM

from ..base import PositiveInt, Sample, Tokenizer
from .hf import HubText


class NoPooler(nn.Module):
    """In place of a pooler, for models that call theirs without asking (LayoutLM, SqueezeBERT), or
    what follows it (ALBERT, BigBird). Its output is not read."""

    def forward(self, states: Tensor, *inputs: Tensor) -> Tensor:
        return states


class TransformersText(HubText):
    """tokens: the last hidden state. pooled: the model's own vector (CLIP, SigLIP), or its first
    position, if the tokenizer begins a text with a class token (`bos_id`); otherwise None (T5).

    padding: `max_length` fills every text up to `max_length` with padding that is read as text, as
    SigLIP was trained. Of an encoder-decoder model the encoder is used. Other options: see
    `HubText`.
    """

    kind: ClassVar[str] = "transformers"
    auto_lm: ClassVar[Any] = AutoModelForMaskedLM

    def __init__(
        self,
        *,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: Tokenizer,
        max_length: PositiveInt = 512,
        lm_head: bool = False,
        padding: Literal["longest", "max_length"] = "longest",
    ) -> None:
        super().__init__(
            name=name, config=config, tokenizer=tokenizer, max_length=max_length, lm_head=lm_head
        )
        self.padding = padding
        begins = tokenizer.encode("a", special=True)[:1]
        self.class_token = tokenizer.bos_id is not None and begins == [tokenizer.bos_id]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        batch = super().collate(samples)
        if self.padding == "longest":
            return batch
        ids = batch["ids"]
        missing = self.processor.max_length - ids.shape[1]
        ids = F.pad(ids, (0, missing), value=self.tokenizer.pad_id)
        return {**batch, "ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}

    def part(self, model: Any) -> nn.Module:
        """Return the encoder, without BERT's pooler, which would get no gradient."""
        stack: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
        if getattr(stack, "pooler", None) is not None:
            stack.pooler = NoPooler()
        return stack

    def _pooled(self, out: Any, tokens: Tensor, mask: Tensor) -> Tensor | None:
        if isinstance(getattr(self.encoder, "pooler", None), NoPooler):
            return self.pool(tokens, mask)
        return super()._pooled(out, tokens, mask)

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        return tokens[:, 0] if self.class_token else None
