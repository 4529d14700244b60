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
"""Standard deviation of new parameters, as in most configurations of transformers."""

ActionOutput = Tensor | list[Tensor]
"""Output of an action decoder: ids `[B, L]`, sequences of ids, or control points `[B, L]`."""


class ActionDecoder(nn.Module):
    """How a backbone predicts a chunk of actions.

    options: the task options that belong to this decoder. discrete: whether it generates ids.
    tokenizer, chunk: fitted when `build` is called, which creates what depends on a width.
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
        """Return the loss. target: the encoded chunks, padded, on the batch's device."""
        raise NotImplementedError

    def generate(self, context: Features, backbone: Backbone) -> ActionOutput:
        """Return the most likely chunk of each row as tokens, deterministically."""
        raise NotImplementedError

    def decode(self, tokens: ActionOutput, steps: int, start: Tensor | None) -> Tensor:
        """Return actions `[B, steps, dof]`. Raise ValueError for tokens that cannot be decoded."""
        return self.tokenizer.decode(tokens, steps=steps, start=start)

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
