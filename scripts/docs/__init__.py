"""The pages of the documentation that are generated from the package."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .papers import Paper as Paper
    from .papers import load_papers as load_papers
    from .papers import papers_page as papers_page
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"papers": ["Paper", "load_papers", "papers_page"]}
    )
