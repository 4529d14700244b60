"""Verbs that let others use a run."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .export import export as export
    from .serve import serve as serve
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"export": ["export"], "serve": ["serve"]}
    )
