"""Words and the tokens that they are made of, in every script and with every kind of token."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.modalities.base import Tokenizer
from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import BPE, Bytes
from sensorium.tasks.common import words_of
from sensorium.tasks.speech.lexicon import Lexicon

TEXTS = [
    "the quick brown fox",
    "grüße straße",
    "नमस्ते दुनिया",
    "你好 世界",
    "مرحبا بالعالم",
    "สวัสดี ชาวโลก",
    "  two  spaces\tand\na line ",
    "👩‍🚀 e\u0301 \u200bzero 🏳️‍🌈",
    "İstanbul ΟΔΟΣ",
    "",
    "   ",
]


def tokenizers() -> dict[str, Tokenizer]:
    few, many, letters = BPE(size=262), BPE(size=400), Characters()
    for tokenizer in (few, many, letters):
        tokenizer.fit([*TEXTS, "the quick brown fox and so on"] * 3)
    return {"bytes": Bytes(), "few pairs": few, "many pairs": many, "letters": letters}


TOKENIZERS = tokenizers()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_are_whole_and_lie_where_their_tokens_do(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    words = words_of(tokenizer, ids)
    assert [word for word, _, _ in words] == tokenizer.decode(ids).split()
    for word, first, behind in words:
        assert word in tokenizer.decode(ids[first:behind])
        assert word not in tokenizer.decode(ids[first + 1 : behind])
        assert word not in tokenizer.decode(ids[first : behind - 1])


@pytest.mark.parametrize("seed", range(20))
def test_any_tokens_have_the_words_of_their_text(seed: int) -> None:
    """Of an untrained recogniser: bytes that are no letters."""
    rng = np.random.default_rng(seed)
    for name, tokenizer in TOKENIZERS.items():
        ids = rng.integers(3, tokenizer.size, 30).tolist() if name != "bytes" else None
        ids = ids or rng.choice([*range(4, 260), *[36] * 80], 30).tolist()
        words = words_of(tokenizer, ids)
        assert [word for word, _, _ in words] == tokenizer.decode(ids).split()
        assert all(0 <= first < behind <= len(ids) for _, first, behind in words)
        apart = words_of(tokenizer, ids, apart=True)
        assert [word for word, _, _ in apart] == [word for word, _, _ in words]
        places = [place for _, first, behind in apart for place in range(first, behind)]
        assert places == (list(range(len(ids))) if words else [])


@pytest.mark.parametrize("text", ["İstanbul", "ΟΔΟΣ ΣΑΣ", "STRASSE ẞ", "नमस्ते", "e\u0301a", "go"])
def test_a_lexicon_holds_every_word_that_its_tokenizer_spells(text: str) -> None:
    tokenizer, lexicon = Characters(), Lexicon()
    tokenizer.fit([text])
    lexicon.fit([text])
    root = lexicon.tree(tokenizer)
    for word in text.split():
        node = root
        for token in tokenizer.encode(word):
            node = node.after[token]
        assert node.is_word
