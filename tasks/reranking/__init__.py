"""Cross-encoders: the score of a query and a passage that are read as one sequence."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .reranking import Reranking as Reranking
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"reranking": ["Reranking"]})
