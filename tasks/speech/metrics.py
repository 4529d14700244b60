"""Word and character error rates of a corpus.

Errors are jiwer's (substitutions, deletions, insertions of a least-cost alignment), counted after a
normalizer of transformers on hypothesis and reference; a rate is all errors divided by all words of
the references. `EnglishTextNormalizer` writes spelled-out numbers as numerals ('one two' becomes
'12', one wrong digit makes the whole number wrong): it suits references with numerals;
`BasicTextNormalizer` (lower case, no punctuation) suits the rest.

Legend: `N` utterances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jiwer
import numpy as np

from .normalizers import Normalizer, normalizer_of

RESAMPLED = 1000
"""Bootstrap samples of the interval."""
CELLS = 2**18
"""Utterances resampled at once, over all samples of a batch."""


class SpeechMetrics:
    """Accumulates transcripts and their references.

    wer, cer: errors divided by words and by characters of the references. wer_low, wer_high: 95 %
    percentile-bootstrap interval over utterances (seeded). exact: fraction of transcripts without
    an error. A reference may be empty: any word of its hypothesis is an error.
    """

    def __init__(self, normalizer: Normalizer = "unicode", seed: int = 0) -> None:
        self.normalizer: Normalizer = normalizer
        self.seed = seed
        self.texts: list[str] = []
        self.references: list[str] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add the `text` of predictions and targets of the same rows. Raise ValueError if one has
        none."""
        for prediction, target in zip(predictions, targets, strict=True):
            if "text" not in target:
                raise ValueError(
                    f"speech metrics: no reference for {prediction['text']!r}; evaluate on data "
                    "that has the columns of `target`"
                )
            self.texts.append(prediction["text"])
            self.references.append(target["text"])

    def compute(self) -> dict[str, float]:
        if not self.texts:
            raise ValueError("speech metrics: no transcript was accumulated; is the split empty?")
        normalize = normalizer_of(self.normalizer)
        hypotheses = [normalize(text) for text in self.texts]
        references = [normalize(text) for text in self.references]
        errors, words = error_counts(references, hypotheses)
        letters = jiwer.process_characters(references, hypotheses)
        low, high = interval(errors, words, self.seed)
        return {
            "wer": _rate(errors.sum(), words.sum()),
            "cer": _rate(_errors(letters.alignments).sum(), sum(map(len, letters.references))),
            "wer_low": low,
            "wer_high": high,
            "exact": float((errors == 0).mean()),
        }


def error_counts(
    references: Sequence[str], hypotheses: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return word errors and reference words `[N]` of each utterance; texts are compared as they
    are."""
    output = jiwer.process_words(list(references), list(hypotheses))
    return _errors(output.alignments), np.array([len(words) for words in output.references])


def interval(errors: np.ndarray, words: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the corpus word error rate.

    errors, words: `[N]`. NaN where a resampled corpus has no word.
    """
    rates = resampled(errors, words, seed)
    if not np.isfinite(rates).all():
        return float("nan"), float("nan")
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def resampled(errors: np.ndarray, words: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the word error rates of `RESAMPLED` bootstrap corpora, `[RESAMPLED]`.

    Two systems with the same number of utterances and the same seed are resampled alike, so the
    differences of their rates are paired.
    """
    from scipy.stats import bootstrap  # imported when a score is computed: it takes half a second

    if len(words) == 1:  # scipy requires two observations
        return np.full(RESAMPLED, _rate(errors[0], words[0]))
    with np.errstate(divide="ignore", invalid="ignore"):  # a corpus without a word
        result = bootstrap(
            (errors, words),
            _corpus_rate,
            n_resamples=RESAMPLED,
            batch=max(1, CELLS // len(words)),
            vectorized=True,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    rates: np.ndarray = result.bootstrap_distribution
    return rates


def _corpus_rate(errors: np.ndarray, words: np.ndarray, axis: int) -> np.ndarray:
    rate: np.ndarray = errors.sum(axis) / words.sum(axis)
    return rate


def _errors(alignments: Sequence[Sequence[Any]]) -> np.ndarray:
    return np.array([sum(_cost(chunk) for chunk in chunks) for chunks in alignments])


def _cost(chunk: Any) -> int:
    if chunk.type == "equal":
        return 0
    reference = chunk.ref_end_idx - chunk.ref_start_idx
    return int(max(reference, chunk.hyp_end_idx - chunk.hyp_start_idx))


def _rate(errors: float, words: float) -> float:
    return float(errors / words) if words else float("nan")
