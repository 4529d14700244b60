"""Checks of `vocabulary` and `inputs_embeds`, for whatever supports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .common import close, expect, gap


def check_inputs_embeds(encoder: Any, batch: Mapping[str, Tensor]) -> None:
    """The embeddings of the ids themselves change nothing; others do."""
    embeds, plain = encoder.embed(batch["ids"]), encoder(**batch).tokens
    tokens = encoder(**batch, inputs_embeds=embeds).tokens
    expect(close(tokens, plain), f"embeddings of the ids themselves: {gap(tokens, plain)}")
    other = encoder(**batch, inputs_embeds=embeds * 0).tokens
    expect(not close(other, plain), "inputs_embeds are not read")


def check_vocabulary(part: Any, ids: Tensor, hidden: Tensor) -> None:
    """`embed` and `logits` have the shapes of ids `[B, T]` and hidden `[B, T, D]`."""
    embeds, logits = part.embed(ids), part.logits(hidden)
    expect(embeds.shape[:-1] == ids.shape, f"embed(ids) is {tuple(embeds.shape)}")
    expect(logits.shape[:-1] == hidden.shape[:-1], f"logits(hidden) is {tuple(logits.shape)}")
    expect(logits.shape[-1] > int(ids.max()), "logits have fewer columns than there are ids")
    chosen = part.logits(hidden, ids[0])
    expect(close(chosen, logits[..., ids[0]]), "logits(hidden, ids) are not those of the ids")
