"""Action tokenizers: bins, FAST and B-splines."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .base import ActionTokenizer as ActionTokenizer
    from .base import Outline as Outline
    from .bins import BinTokenizer as BinTokenizer
    from .fast import FastTokenizer as FastTokenizer
    from .quantiles import bounds as bounds
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "base": ["ActionTokenizer", "Outline"],
            "bins": ["BinTokenizer"],
            "fast": ["FastTokenizer"],
            "quantiles": ["bounds"],
        },
    )
