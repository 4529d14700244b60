"""Embedding of data sets into an index, and retrieval from it."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .data_spec import open_data as open_data
    from .embed import embed as embed
    from .embedder import load_run_or_recipe as load_run_or_recipe
    from .embedder import resolve_stream as resolve_stream
    from .format_hits import format_hits as format_hits
    from .format_hits import hits_to_jsonl as hits_to_jsonl
    from .format_hits import write_sheet as write_sheet
    from .fusion import Reranker as Reranker
    from .fusion import best_of_groups as best_of_groups
    from .fusion import fuse as fuse
    from .fusion import rerank as rerank
    from .fusion import search_all as search_all
    from .maker import index_metadata as index_metadata
    from .mine import as_lines as as_lines
    from .mine import bitext as bitext
    from .mine import consistent as consistent
    from .mine import hard_negatives as hard_negatives
    from .mine import paraphrases as paraphrases
    from .mine import read_rows as read_rows
    from .mine import shared as shared
    from .retrieve import Query as Query
    from .retrieve import Retriever as Retriever
    from .retrieve import parse_query as parse_query
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "data_spec": ["open_data"],
            "embed": ["embed"],
            "embedder": ["load_run_or_recipe", "resolve_stream"],
            "format_hits": ["format_hits", "hits_to_jsonl", "write_sheet"],
            "fusion": ["Reranker", "best_of_groups", "fuse", "rerank", "search_all"],
            "maker": ["index_metadata"],
            "mine": [
                "as_lines",
                "bitext",
                "consistent",
                "hard_negatives",
                "paraphrases",
                "read_rows",
                "shared",
            ],
            "retrieve": ["Query", "Retriever", "parse_query"],
        },
    )
