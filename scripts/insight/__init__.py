"""Verbs that look into models and their vectors: explain, analyze, sweep, mine."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .analyze import analyze as analyze
    from .explain import explain as explain
    from .mine import mine as mine
    from .sweep import sweep as sweep
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "analyze": ["analyze"],
            "explain": ["explain"],
            "mine": ["mine"],
            "sweep": ["sweep"],
        },
    )
