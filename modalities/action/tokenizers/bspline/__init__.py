"""The B-spline action tokenizer: fitting, knots, boundaries and codes."""

from typing import TYPE_CHECKING

from .....lazy import lazy_exports

if TYPE_CHECKING:
    from .basis import knots as knots
    from .basis import phases as phases
    from .tokenizer import BSplineTokenizer as BSplineTokenizer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"basis": ["knots", "phases"], "tokenizer": ["BSplineTokenizer"]}
    )
