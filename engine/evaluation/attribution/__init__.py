"""What of its inputs a prediction rests on: gradient x input, occlusion, attention rollout and
ReAGent, and the curves that judge a map."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .cells import Cells as Cells
    from .cells import find_cells as find_cells
    from .curves import Curves as Curves
    from .curves import curves as curves
    from .explain import METHODS as METHODS
    from .explain import Explanation as Explanation
    from .explain import explain as explain
    from .page import write_explanation as write_explanation
    from .reagent import TextTokens as TextTokens
    from .reagent import reagent as reagent
    from .scorer import Scorer as Scorer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "cells": ["Cells", "find_cells"],
            "curves": ["Curves", "curves"],
            "explain": ["METHODS", "Explanation", "explain"],
            "page": ["write_explanation"],
            "reagent": ["TextTokens", "reagent"],
            "scorer": ["Scorer"],
        },
    )
