"""Learning from text alone: language-modelling objectives and their corruptions."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .language_modeling import LanguageModeling as LanguageModeling
    from .metrics import LanguageMetrics as LanguageMetrics
    from .objectives import OBJECTIVES as OBJECTIVES
    from .objectives import Markers as Markers
    from .unigram import Unigram as Unigram
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "language_modeling": ["LanguageModeling"],
            "metrics": ["LanguageMetrics"],
            "objectives": ["OBJECTIVES", "Markers"],
            "unigram": ["Unigram"],
        },
    )
