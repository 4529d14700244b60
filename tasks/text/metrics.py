"""How near texts come to their references: exact match, words, BLEU-4, ROUGE-L, CIDEr-D.

Words are the runs of letters and digits, each punctuation mark a word of its own, in lower
case (`words`); every measure but `exact_match` counts these. BLEU (Papineni et al. 2002, no
smoothing) and ROUGE-L (Lin 2004, F-measure, best reference) are torchmetrics'; CIDEr-D is in
`cider.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from .cider import cider_d
from .fact_metrics import Facts

_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """The words of a text, in lower case; punctuation marks stand alone."""
    return _WORD.findall(text.lower())


class TextMetrics:
    """Accumulates predicted texts and their references, one or several a text.

    exact_match: share of predictions equal to a reference, but for runs of white space.
    words: of all words of the references, the share that the prediction has at the same place
    (with several references, the one that fares best). bleu4, rouge_l: of the whole set, and
    mean of the texts. cider_d: 0 to 10; rarity of words is that among the texts accumulated.
    fact_<name>, fact_f1: see `Facts`; of the first reference.
    """

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = facts or Facts({})
        self.texts: list[str] = []
        self.references: list[list[str]] = []

    def add(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """`B` texts and their `B` lists of references; ValueError where a list is empty."""
        if len(texts) != len(references):
            raise ValueError(f"text metrics: {len(texts)} texts, {len(references)} references")
        for text, known in zip(texts, references, strict=True):
            if not known:
                raise ValueError(
                    f"text metrics: no reference for {text!r}; evaluate on data that has the "
                    "columns of `target`"
                )
        self.texts += texts
        self.references += [list(known) for known in references]

    def compute(self) -> dict[str, float]:
        if not self.texts:
            raise ValueError("text metrics: no text was accumulated; is the split empty?")
        # Imported when a score is asked for: it takes a second, and `check` asks for none.
        from torchmetrics.functional.text import bleu_score, rouge_score

        said = [words(text) for text in self.texts]
        known = [[words(text) for text in texts] for texts in self.references]
        lines = [" ".join(text) for text in said]
        right = [[" ".join(text) for text in texts] for texts in known]
        rouge = rouge_score(lines, right, rouge_keys="rougeL", normalizer=str, tokenizer=str.split)
        return {
            "exact_match": self._exact() / len(self.texts),
            "words": _words_right(said, known),
            "bleu4": float(bleu_score(lines, right)),
            "rouge_l": float(rouge["rougeL_fmeasure"]),
            "cider_d": sum(cider_d(said, known)) / len(said),
            **self.facts.scores(self.texts, [texts[0] for texts in self.references]),
        }

    def _exact(self) -> int:
        def plain(text: str) -> str:
            return " ".join(text.split())

        pairs = zip(self.texts, self.references, strict=True)
        return sum(plain(text) in {plain(r) for r in references} for text, references in pairs)


def _words_right(said: Sequence[list[str]], known: Sequence[Sequence[list[str]]]) -> float:
    """Share of reference words, position by position, over the whole set."""
    right = total = 0
    for text, references in zip(said, known, strict=True):
        best = max(
            ((_agree(text, reference), len(reference)) for reference in references),
            key=lambda found: found[0] / max(found[1], 1),
        )
        right, total = right + best[0], total + best[1]
    return right / max(total, 1)


def _agree(text: Sequence[str], reference: Sequence[str]) -> int:
    pairs = zip_longest(text[: len(reference)], reference)
    return sum(a == b for a, b in pairs)
