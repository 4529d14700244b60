"""Masked diffusion: a decoder of one stack that fills places, in any order, several at once.

LLaDA (Nie et al., "Large Language Diffusion Models", 2025): a transformer without the causal
mask predicts every masked place from all the others; `noising.py` has what it is trained on.
Any decoder that `causal` can run under `block` attention will do.

Legend: `B` batch, `T` places of the canvas, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor

from ..modalities.base import Tokenizer
from .causal import Causal


class Diffusion(Causal):
    """As `causal`, read both ways: `block` (after a context) and `bidirectional` alone.

    `mask_id` is the tokenizer's own mask token where it has one, else a row added to the
    vocabulary, which trains whatever else is frozen. Its logit is -inf: a mask is never an answer.
    """

    mask_id: int
    always: ClassVar[frozenset[str]] = frozenset()
    with_masks: ClassVar[frozenset[str]] = frozenset({"block", "bidirectional", "visibility"})

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
        super().__init__(
            tokenizer=tokenizer, name=name, config=config, attn=attn, dtype=dtype, options=options
        )
        if self.no_masks:
            raise ValueError(
                f"name: {self.kind} cannot see both ways ({self.no_masks}), which masked "
                "diffusion needs; use a llama, a qwen or the like"
            )
        own = tokenizer.mask_id
        self.mask_id = self.add_tokens(1) if own is None else own

    def unsupported_reason(self, ability: str) -> str | None:
        if ability in self.supports:
            return None
        return f"diffusion fills masked places and cannot do {ability} attention; use block"

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """hidden `[..., D]` -> logits `[..., V]`; -inf for the mask."""
        found = super().logits(hidden, ids)
        known = torch.arange(found.shape[-1], device=found.device) if ids is None else ids
        return found.masked_fill(known == self.mask_id, float("-inf"))

    def teacher_force(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: no place of a canvas comes after another."""
        self._refuse("teacher forcing")

    def generate(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: text comes by denoising a canvas, which is its task's business."""
        self._refuse("generating token by token")

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"{what}: the backbone `diffusion` fills a canvas; use a task that denoises, such as "
            "asr_diffusion, or the backbone `causal`"
        )
