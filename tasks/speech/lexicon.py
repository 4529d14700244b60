"""The words of the training transcripts, as a tree of tokens that a search may follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...modalities.base import Fittable, Tokenizer


@dataclass
class TrieNode:
    """after: the nodes that follow, by token. whole: True where a word ends here."""

    after: dict[int, TrieNode] = field(default_factory=dict)
    whole: bool = False


class Lexicon(Fittable):
    """The words of the training transcripts, in sorted order."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def fit(self, rows: Iterable[str]) -> None:
        self.words = sorted({word for text in rows for word in text.split()})

    def state(self) -> dict[str, Any]:
        return {"words": self.words}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.words = list(state["words"])

    def tree(self, tokenizer: Tokenizer) -> TrieNode:
        """Texts of these words with a space between: a word's end leads on by the space to its
        beginning. Raise ValueError for a tokenizer whose pieces hold more than a letter, or that
        has no space; letters may change their case (`İ` becomes two)."""
        root = TrieNode(whole=True)  # an empty text is one too
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
            node.whole = True
            if space:
                node.after[space[0]] = root
        return root
