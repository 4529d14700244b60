"""Small valid files of every format that is read, their mutations, and what reads them."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .formats import FORMATS as FORMATS
    from .formats import Files as Files
    from .formats import Format as Format
    from .mutations import Mutation as Mutation
    from .mutations import blind as blind
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"formats": ["FORMATS", "Files", "Format"], "mutations": ["Mutation", "blind"]}
    )
