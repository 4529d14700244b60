"""Protection of texts against special tokens typed in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence as SequencePreTokenizer
from tokenizers.pre_tokenizers import Split


def protect_text(backend: Any, ids: Iterable[int | None] = ()) -> None:
    """Keep a 🤗 tokenizer from parsing special tokens in texts, in place.

    Added tokens are not matched (`encode_special_tokens`). Some models (Unigram, WordPiece) have
    special tokens as pieces: a text is split within such a piece, so that the model never matches
    it whole. ids: special tokens that are not marked as such.
    """
    backend.encode_special_tokens = True
    added = backend.get_added_tokens_decoder()
    special = {i for i, token in added.items() if token.special} | {i for i in ids if i is not None}
    pieces = sorted({backend.id_to_token(i) for i in special} - {None})
    pieces = [p for p in pieces if len(p) > 1 and _is_piece(backend, p)]
    if not pieces:
        return
    within = "|".join(f"{re.escape(piece[0])}(?={re.escape(piece[1:])})" for piece in pieces)
    guard = Split(Regex(within), "isolated")
    before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    backend.pre_tokenizer = SequencePreTokenizer([*before, guard])


def _is_piece(backend: Any, piece: str) -> bool:
    """Return whether the model makes the token of its text."""
    token = backend.token_to_id(piece)
    try:
        return any(part.id == token for part in backend.model.tokenize(piece))
    except Exception:  # no unknown token for one of its letters
        return False
