"""Further measures of texts, by name: token F1, chrF, SARI, rhymes.

SARI: Xu et al. 2016, "Optimizing Statistical Machine Translation for Text Simplification", section
4. chrF is torchmetrics'. F1 is SQuAD's, over words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from .words import words

Texts = Sequence[str]
References = Sequence[Sequence[str]]
TextMetric = Callable[[Texts, References, Texts], float]
"""(predictions, references of each, sources) -> the value for the whole set."""

ORDERS = range(1, 5)


def token_f1(texts: Texts, references: References, sources: Texts) -> float:
    """Return the mean of the harmonic means of precision and recall of words, best reference."""
    scores = [
        max(_f1(Counter(words(text)), Counter(words(reference))) for reference in of_text)
        for text, of_text in zip(texts, references, strict=True)
    ]
    return sum(scores) / len(scores)


def _f1(text: Counter[str], reference: Counter[str]) -> float:
    shared = (text & reference).total()
    total = text.total() + reference.total()
    return 2 * shared / total if total else 1.0


def chrf(texts: Texts, references: References, sources: Texts) -> float:
    """Return chrF++ of the whole set, 0 to 1."""
    from torchmetrics.functional.text import chrf_score

    return float(chrf_score(list(texts), [list(r) for r in references]))


def rhyme(texts: Texts, references: References, sources: Texts) -> float:
    """Return the fraction of texts whose last word rhymes with that of a reference, by spelling:
    equal from the last group of vowels that a consonant follows, or from the last one."""
    hits = [
        any(_ending(text) == _ending(reference) != "" for reference in of_text)
        for text, of_text in zip(texts, references, strict=True)
    ]
    return sum(hits) / len(hits)


def _ending(text: str) -> str:
    letters = re.findall(r"[^\W\d_]+", text.lower())
    if not letters:
        return ""
    match = re.search(r"[aeiouyäöüáéíóúàèêâîôûœæ]+[^aeiouy]*e?$", letters[-1])
    return match.group() if match else str(letters[-1])


def sari(texts: Texts, references: References, sources: Texts) -> float:
    """Return the mean of SARI over texts, 0 to 100: of what was added, kept and deleted of the
    source, as the references do it."""
    scores = [
        _sari(words(text), [words(reference) for reference in of_text], words(source))
        for text, of_text, source in zip(texts, references, sources, strict=True)
    ]
    return sum(scores) / len(scores)


def _sari(text: list[str], references: list[list[str]], source: list[str]) -> float:
    parts = [
        _sari_of_order(
            _grams(text, n), [_grams(reference, n) for reference in references], _grams(source, n)
        )
        for n in ORDERS
    ]
    return 100 * sum(sum(part) for part in parts) / (3 * len(parts))


def _grams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


Grams = Counter[tuple[str, ...]]


def _sari_of_order(text: Grams, references: list[Grams], source: Grams) -> tuple[float, ...]:
    """Return keep F1, deletion precision and addition F1 of n-grams of one order."""
    count = len(references)
    wanted: Grams = Counter()
    for reference in references:
        wanted.update(reference)
    had, got = _times(source, count), _times(text, count)
    kept, should_keep = had & got, had & wanted
    right_kept = kept & wanted
    keep_precision = _mean(right_kept[g] / kept[g] for g in kept)
    keep_recall = right_kept.total() / should_keep.total() if should_keep else 1.0
    deleted = had - got
    should_delete = deleted - wanted
    delete = _mean(should_delete[g] / deleted[g] for g in deleted)
    added, should_add = set(text) - set(source), set(wanted) - set(source)
    right_added = added & set(wanted)
    add_precision = len(right_added) / len(added) if added else 1.0
    add_recall = len(right_added) / len(should_add) if should_add else 1.0
    return _harmonic(keep_precision, keep_recall), delete, _harmonic(add_precision, add_recall)


def _times(grams: Grams, count: int) -> Grams:
    return Counter({gram: number * count for gram, number in grams.items()})


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 1.0


def _harmonic(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


TEXT_METRICS: dict[str, TextMetric] = {
    "chrf": chrf,
    "rhyme": rhyme,
    "sari": sari,
    "token_f1": token_f1,
}
"""Measures that `metrics` of a captioning task adds."""
