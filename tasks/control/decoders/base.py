"""The contract of action decoders."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ....backbones.base import Backbone
from ....modalities.action.tokenizers import ActionTokenizer
from ....modalities.base import Features, Loss
from ...batch import Batch
from .chunks import Chunk, ChunkStatistics

INIT_STD = 0.02
"""Deviation of what is learned from nothing, as in most configurations of transformers."""

ActionOutput = Tensor | list[Tensor]
"""What a form generates for a batch: ids `[B, L]`, sequences of ids, or control points `[B, L]`."""


class ActionDecoder(nn.Module):
    """options: of the task's options, those that are this form's own. discrete: says ids.

    tokenizer, chunk: fitted by the time of `build`, which creates what needs a width.
    """

    options: ClassVar[tuple[str, ...]] = ()
    discrete: ClassVar[bool] = True

    def __init__(self, tokenizer: ActionTokenizer, chunk: ChunkStatistics) -> None:
        super().__init__()
        self.tokenizer, self.chunk = tokenizer, chunk

    def build(self, backbone: Backbone) -> None:
        """Create what depends on the decoder, and add tokens to it."""
        raise NotImplementedError

    def validate_loaded(self) -> None:
        """Raise ValueError if loaded tensors belong to another decoder."""

    def loss(self, context: Features, batch: Batch, target: Tensor, backbone: Backbone) -> Loss:
        """target: what `encode` made of the batch's chunks, padded, on the batch's device."""
        raise NotImplementedError

    def generate(self, context: Features, backbone: Backbone) -> ActionOutput:
        """The most likely chunk of each row, as tokens; no randomness."""
        raise NotImplementedError

    def decode(self, said: ActionOutput, steps: int, start: Tensor | None) -> Tensor:
        """Tokens -> actions `[B, steps, dof]`. ValueError for tokens that mean nothing."""
        return self.tokenizer.decode(said, steps=steps, start=start)

    def encode(self, chunk: Chunk) -> ActionOutput:
        """Return the tokens of a batch's chunks; runs in a loader worker."""
        return self.tokenizer.encode(chunk.actions, padding=chunk.padding, start=chunk.start)


def fixed_length(tokenizer: ActionTokenizer, steps: int, action_decoder: str) -> int:
    """Return the number of tokens of a chunk. Raise ValueError if it varies."""
    length = tokenizer.length(steps)
    if length is None:
        raise ValueError(
            f"action_decoder: {action_decoder} needs a fixed number of tokens, and chunks of "
            f"{type(tokenizer).__name__} vary in length; use action_decoder: autoregressive, or "
            "tokenizer: bspline"
        )
    return length
