"""Streams of pictures and of boxes as tokens."""

from __future__ import annotations

from ...base import PositiveInt
from ...signal_tokens import SignalTokenizer, TokenEncoder


class ImageTokenizer(SignalTokenizer):
    """A tokenizer of pictures."""

    kind = "image_tokenizer"


class BoxesTokenizer(SignalTokenizer):
    """A tokenizer of lists of boxes."""

    kind = "boxes_tokenizer"


class ImageTokens(TokenEncoder):
    """Pictures as tokens, `encoder: {type: tokens, tokenizer: {type: vq, codes: 512}}`. dim: width
    of the learned vectors, where the stream is an input."""

    def __init__(self, *, tokenizer: ImageTokenizer, dim: PositiveInt = 64) -> None:
        super().__init__(tokenizer, dim)


class BoxTokens(TokenEncoder):
    """Boxes as tokens, `encoder: {type: tokens, tokenizer: coordinates}`. dim: width of the learned
    vectors, where the stream is an input."""

    def __init__(self, *, tokenizer: BoxesTokenizer, dim: PositiveInt = 64) -> None:
        super().__init__(tokenizer, dim)
