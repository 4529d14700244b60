"""Metrics of texts against their references: exact match, words, BLEU-4, ROUGE-L, CIDEr-D.

Words are the runs of letters and digits with their marks, each punctuation mark a word of its
own, in lower case (`words`); every measure but `exact_match` counts these. BLEU (Papineni et al.
2002, no smoothing) and ROUGE-L (Lin 2004, F-measure, best reference) are torchmetrics'; CIDEr-D
is in `cider.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from .cider import cider_d
from .fact_metrics import Facts
from .text_metrics import TEXT_METRICS
from .words import visible, words


class TextMetrics:
    """Accumulates predicted texts and their references, one or several a text.

    exact_match: share of predictions that look like a reference, except for runs of white space.
    words: of all words of the references, the share that the prediction has at the same place
    (with several references, the one that fares best). bleu4, rouge_l: of the whole set, and
    mean of the texts. cider_d: 0 to 10; rarity of words is that among the texts accumulated.
    fact_<name>, fact_f1: see `Facts`; of the first reference. measures: further ones, by their
    name in `text_metrics.py`; sources: the texts that they compare with.
    """

    def __init__(self, facts: Facts | None = None, measures: Sequence[str] = ()) -> None:
        self.facts, self.measures = facts or Facts({}), tuple(measures)
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.references: list[list[str]] = []

    def add(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add `B` texts and their `B` lists of references. Raise ValueError if a list is empty."""
        if len(texts) != len(references):
            raise ValueError(f"text metrics: {len(texts)} texts, {len(references)} references")
        for text, texts_of_row in zip(texts, references, strict=True):
            if not texts_of_row:
                raise ValueError(
                    f"text metrics: no reference for {text!r}; evaluate on data that has the "
                    "columns of `target`"
                )
        self.texts += texts
        self.references += [list(texts_of_row) for texts_of_row in references]

    def compute(self) -> dict[str, float]:
        if not self.texts:
            raise ValueError("text metrics: no text was accumulated; is the split empty?")
        # Imported when a score is computed: the import takes a second.
        from torchmetrics.functional.text import bleu_score, rouge_score

        candidates = [words(text) for text in self.texts]
        reference_words = [[words(text) for text in texts] for texts in self.references]
        lines = [" ".join(text) for text in candidates]
        reference_lines = [[" ".join(text) for text in texts] for texts in reference_words]
        rouge = rouge_score(
            lines, reference_lines, rouge_keys="rougeL", normalizer=str, tokenizer=str.split
        )
        return {
            "exact_match": self._exact() / len(self.texts),
            "words": _words_right(candidates, reference_words),
            "bleu4": float(bleu_score(lines, reference_lines)),
            "rouge_l": float(rouge["rougeL_fmeasure"]),
            "cider_d": sum(cider_d(candidates, reference_words)) / len(candidates),
            **self._measured(),
            **self.facts.scores(self.texts, [texts[0] for texts in self.references]),
        }

    def _measured(self) -> dict[str, float]:
        scores = {n: TEXT_METRICS[n] for n in self.measures}
        return {n: score(self.texts, self.references, self.sources) for n, score in scores.items()}

    def _exact(self) -> int:
        pairs = zip(self.texts, self.references, strict=True)
        return sum(
            visible(text) in {visible(reference) for reference in references}
            for text, references in pairs
        )


def _words_right(
    candidates: Sequence[list[str]], references_of: Sequence[Sequence[list[str]]]
) -> float:
    """Return the fraction of reference words that match, position by position, over the whole
    set."""
    right = total = 0
    for text, references in zip(candidates, references_of, strict=True):
        best = max(
            ((_count_equal(text, reference), len(reference)) for reference in references),
            key=lambda found: found[0] / max(found[1], 1),
        )
        right, total = right + best[0], total + best[1]
    return right / max(total, 1)


def _count_equal(text: Sequence[str], reference: Sequence[str]) -> int:
    pairs = zip_longest(text[: len(reference)], reference)
    return sum(a == b for a, b in pairs)
