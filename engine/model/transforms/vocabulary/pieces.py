"""The tokens of two vocabularies as texts that can be compared, and their features.

A piece is written as in a text, with a space in front where it begins a word: `Ġthe` of
byte-level tokenizers, `▁the` of SentencePiece and `the` of WordPiece are all ` the`.
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from .....modalities.base import Tokenizer
from .....modalities.text.tokenizers import BPE, Bytes, PretrainedTokenizer
from ..context import TransformContext

ROLES = ("pad_id", "bos_id", "eos_id", "mask_id")
BEGINS = {"Ġ": " ", "▁": " "}
NGRAMS = (2, 3, 4)
BUCKETS = 1024
SEED = 20


def read_tokenizer(name: str, context: TransformContext) -> Tokenizer:
    """Return the tokenizer of a run's folder, a checkpoint's folder or a hub id, or `bytes`. Raise
    ValueError if there is none."""
    if name == "bytes":
        return Bytes()
    state = Path(name) / "fitted" / f"{context.where / 'tokenizer'}.json"
    if state.is_file():
        saved = json.loads(state.read_text(encoding="utf-8"))
        if "tokenizer" not in saved:
            return Bytes()
        fitted = BPE()
        fitted.load_state(saved)
        return fitted
    tokenizer = PretrainedTokenizer(name=name)
    tokenizer.fit(())
    return tokenizer


def pieces(tokenizer: Tokenizer) -> list[str]:
    """Return the text of each id; special tokens are named by their role (`<eos_id>`)."""
    backend = getattr(tokenizer, "backend", None)
    texts = [f"<unused {i}>" for i in range(tokenizer.size)]
    if backend is None:
        texts = [tokenizer.decode([i]) or text for i, text in enumerate(texts)]
    else:
        vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        continued = any(token.startswith("##") for token in vocabulary)
        by_bytes = sum(token.startswith("Ġ") for token in vocabulary) > 0 or _is_byte_level(backend)
        for token, index in vocabulary.items():
            texts[index] = _text(token, continued, by_bytes)
    for role in reversed(ROLES):
        special = getattr(tokenizer, role, None)
        if special is not None:
            texts[special] = f"<{role}>"
    return texts


def _is_byte_level(backend: Any) -> bool:
    return "ByteLevel" in repr(backend.decoder)


def _text(token: str, continued: bool, by_bytes: bool) -> str:
    if token.startswith("##") and continued:
        return token[2:]
    if token[:1] in BEGINS:
        return BEGINS[token[0]] + (_decoded(token[1:]) if by_bytes else token[1:])
    if by_bytes:
        return _decoded(token)
    return f" {token}" if continued else token


def _byte_of() -> dict[str, int]:
    """Return the byte of each character of a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_of()


def _decoded(token: str) -> str:
    if not all(char in BYTE_OF for char in token):
        return token
    try:
        return bytes(BYTE_OF[char] for char in token).decode("utf-8")
    except UnicodeDecodeError:  # a part of a character
        return token


def script(piece: str) -> tuple[str, bool]:
    """Return the script of a piece (`LATIN`, `HANGUL`, ...; `OTHER` without a letter), and whether
    it begins a word."""
    for char in piece:
        if char.isalpha():
            return unicodedata.name(char, "OTHER").split(" ")[0], piece.startswith(" ")
    return "OTHER", piece.startswith(" ")


def ngram_features(texts: Sequence[str]) -> sparse.csr_array:
    """Return the character n-grams of pieces, hashed and of length one, `[len(texts), BUCKETS]`."""
    rows, columns = [], []
    for row, text in enumerate(texts):
        marked = f"^{text.strip().lower()}$"
        grams = {marked[i : i + n] for n in NGRAMS for i in range(max(len(marked) - n + 1, 0))}
        for gram in sorted(grams):
            rows.append(row)
            columns.append(zlib.crc32(gram.encode(), SEED) % BUCKETS)
    values = np.ones(len(rows), np.float32)
    matrix = sparse.csr_array((values, (rows, columns)), shape=(len(texts), BUCKETS))
    norms = np.sqrt(matrix.multiply(matrix).sum(1))
    scale = sparse.diags_array(1 / np.maximum(norms, 1e-12))
    scaled: sparse.csr_array = (scale @ matrix).tocsr()
    return scaled
