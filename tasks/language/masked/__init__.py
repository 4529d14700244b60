"""Objectives of encoders with a vocabulary: masked tokens, disposable decoders, replaced tokens."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .answers import MaskedAnswer as MaskedAnswer
    from .masked_lm import MaskedLM as MaskedLM
    from .metrics import MaskedMetrics as MaskedMetrics
    from .replaced import ReplacedToken as ReplacedToken
    from .replaced import sample as sample
    from .text import MaskRule as MaskRule
    from .text import TextIds as TextIds
    from .text import encode_text as encode_text
    from .text import positions_of as positions_of
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "answers": ["MaskedAnswer"],
            "masked_lm": ["MaskedLM"],
            "metrics": ["MaskedMetrics"],
            "replaced": ["ReplacedToken", "sample"],
            "text": ["MaskRule", "TextIds", "encode_text", "positions_of"],
        },
    )
