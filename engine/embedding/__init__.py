"""Embedding of data sets into an index, and retrieval from it."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .contact_sheet import write_sheet as write_sheet
    from .data_spec import given as given
    from .embed import about as about
    from .embed import embed as embed
    from .embedder import load_any as load_any
    from .embedder import only_stream as only_stream
    from .format_hits import format_hits as format_hits
    from .format_hits import hits_to_jsonl as hits_to_jsonl
    from .retrieve import Retriever as Retriever
    from .retrieve import only_query as only_query
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "contact_sheet": ["write_sheet"],
            "data_spec": ["given"],
            "embed": ["about", "embed"],
            "embedder": ["load_any", "only_stream"],
            "format_hits": ["format_hits", "hits_to_jsonl"],
            "retrieve": ["Retriever", "only_query"],
        },
    )
