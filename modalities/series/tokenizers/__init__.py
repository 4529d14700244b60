"""Time series as tokens."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .byte_pairs import BytePairs as BytePairs
    from .byte_pairs import SeriesTokenizer as SeriesTokenizer
    from .byte_pairs import SeriesTokens as SeriesTokens
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {"byte_pairs": ["BytePairs", "SeriesTokenizer", "SeriesTokens"]},
    )
