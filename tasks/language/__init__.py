"""Learning from text alone: language-modelling objectives and their corruptions."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .corruptions import corrupt_spans as corrupt_spans
    from .corruptions import move_middle as move_middle
    from .corruptions import restore_middle as restore_middle
    from .corruptions import restore_spans as restore_spans
    from .corruptions import sample_spans as sample_spans
    from .language_modeling import LanguageModeling as LanguageModeling
    from .metrics import LanguageMetrics as LanguageMetrics
    from .objectives import OBJECTIVES as OBJECTIVES
    from .objectives import Markers as Markers
    from .unigram import Unigram as Unigram
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "corruptions": [
                "corrupt_spans",
                "move_middle",
                "restore_middle",
                "restore_spans",
                "sample_spans",
            ],
            "language_modeling": ["LanguageModeling"],
            "metrics": ["LanguageMetrics"],
            "objectives": ["OBJECTIVES", "Markers"],
            "unigram": ["Unigram"],
        },
    )
