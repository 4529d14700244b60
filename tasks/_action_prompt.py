"""The prompt of tasks that act: what stands before the actions, and the decoder it needs."""

from __future__ import annotations

from ..backbones.base import Backbone
from ..modalities.base import Features
from .base import Batch, Encode
from .prompts import Prompt, assemble


def parsed(prompt: str) -> Prompt:
    """The prompt's template; ValueError where it names no stream."""
    try:
        found = Prompt(prompt)
    except ValueError as error:
        raise ValueError(f"prompt: {error}") from None
    if not found.streams:
        raise ValueError(
            f"prompt: {prompt!r} names no stream; write <state> where the input called state is "
            "to stand"
        )
    return found


def decoder(backbone: Backbone | None) -> Backbone:
    if backbone is None:
        raise ValueError("control needs a decoder; add a `backbone` section to the recipe")
    return backbone


def context(prompt: Prompt, batch: Batch, encode: Encode, backbone: Backbone | None) -> Features:
    """The batch's prompts: texts and streams, packed."""
    texts = [target["prompt"] for target in batch.targets]
    return assemble(prompt.streams, texts, encode, decoder(backbone))
