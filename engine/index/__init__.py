"""Indexes of embeddings: exact, LanceDB and faiss."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .arrow import columns_of as columns_of
    from .arrow import same_key_message as same_key_message
    from .arrow import text as text
    from .base import DATA as DATA
    from .base import FILES as FILES
    from .base import IDENTITY as IDENTITY
    from .base import KEY as KEY
    from .base import ROW as ROW
    from .base import VECTOR as VECTOR
    from .base import Added as Added
    from .base import Entry as Entry
    from .base import Hit as Hit
    from .base import Index as Index
    from .base import IndexMetadata as IndexMetadata
    from .base import Queries as Queries
    from .base import SearchOptions as SearchOptions
    from .base import as_kind as as_kind
    from .base import create_index as create_index
    from .base import exists as exists
    from .base import open_index as open_index
    from .exact import DenseRows as DenseRows
    from .exact import exact_search as exact_search
    from .forms import Form as Form
    from .forms import Storage as Storage
    from .forms import check_storage as check_storage
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "arrow": ["columns_of", "same_key_message", "text"],
            "base": [
                "IndexMetadata",
                "Added",
                "DATA",
                "Entry",
                "FILES",
                "Hit",
                "IDENTITY",
                "KEY",
                "Index",
                "ROW",
                "VECTOR",
                "Queries",
                "SearchOptions",
                "as_kind",
                "create_index",
                "exists",
                "open_index",
            ],
            "exact": ["DenseRows", "exact_search"],
            "forms": ["Form", "Storage", "check_storage"],
        },
    )
