"""The words of the training transcripts, as a trie of tokens for beam search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...modalities.base import Fittable, Tokenizer


@dataclass
class TrieNode:
    """after: the next nodes, by token. is_word: whether a word ends here."""

    after: dict[int, TrieNode] = field(default_factory=dict)
    is_word: bool = False


class Lexicon(Fittable):
    """The words of the training transcripts, in sorted order."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def check_example(self, example: str) -> None:
        if not isinstance(example, str):
            raise ValueError(f"lexicon: fits on texts, found {type(example).__name__}")

    def fit(self, rows: Iterable[str]) -> None:
        self.words = sorted({word for text in rows for word in text.split()})

    def state(self) -> dict[str, Any]:
        return {"words": self.words}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.words = list(state["words"])

    def tree(self, tokenizer: Tokenizer) -> TrieNode:
        """Return the trie of texts of these words, separated by spaces: the end of a word leads by
        the space back to the root. Raise ValueError if a tokenizer's pieces hold more than a space
        or a part of a word."""
        root = TrieNode(is_word=True)  # the empty text is allowed
        try:
            space = tokenizer.encode(" ")
        except ValueError:  # there is no text of two words
            space = []
        for word in self.words:
            node, ids = root, tokenizer.encode(word)
            text = tokenizer.decode(ids)
            spelt = len(ids) == len(text) and text.lower() == word.lower()
            if len(space) > 1 or not spelt or set(space) & set(ids):
                raise ValueError(
                    f"lexicon: needs a tokenizer that spells words letter by letter, {word!r} "
                    f"becomes {len(ids)} tokens; set tokenizer: characters, or leave lexicon out"
                )
            for token in ids:
                node = node.after.setdefault(token, TrieNode())
            node.is_word = True
            if space:
                node.after[space[0]] = root
        return root
