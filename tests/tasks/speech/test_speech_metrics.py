"""Word and character errors: jiwer's own rates, and an interval that holds them."""

from __future__ import annotations

import math
from typing import Any

import jiwer
import numpy as np
import pytest

from sensorium.tasks.speech import error_counts, interval, normaliser, resampled
from sensorium.tasks.speech.metrics import SpeechMetrics

SAID = ["turn left now", "one too three four", "", "go go go"]
KNOWN = ["turn the left now", "one two three", "stop", "go go"]


def scored(said: list[str], known: list[str], **options: Any) -> dict[str, float]:
    metrics = SpeechMetrics(**options)
    for text, reference in zip(said, known, strict=True):  # any batches give the same
        metrics.update([{"text": text}], [{"text": reference}])
    return metrics.compute()


def test_rates_are_those_of_jiwer() -> None:
    found = scored(SAID, KNOWN)
    assert found["wer"] == pytest.approx(jiwer.wer(KNOWN, SAID))
    assert found["cer"] == pytest.approx(jiwer.cer(KNOWN, SAID))
    assert found["wer_low"] <= found["wer"] <= found["wer_high"]
    assert found["exact"] == 0


def test_a_rate_is_of_the_corpus_and_not_a_mean_of_utterances() -> None:
    found = scored(["a", "one two three four"], ["b", "one two three four"])
    assert found["wer"] == pytest.approx(1 / 5)
    assert found["exact"] == 0.5


def test_the_normaliser_reads_both_sides() -> None:
    assert scored(["Turn LEFT, now!"], ["turn left now"])["wer"] == 0
    assert scored(["Turn LEFT, now!"], ["turn left now"], normalizer="none")["wer"] > 0


def test_the_english_normaliser_makes_numerals() -> None:
    """One wrong digit spoils a number: why spelled-out words are read by the basic one."""
    said, known = ["one two four"], ["one two three"]
    assert normaliser("english")(known[0]) == "123"
    assert scored(said, known, normalizer="english")["wer"] == 1
    assert scored(said, known)["wer"] == pytest.approx(1 / 3)
    assert scored(["I have 12 cats"], ["i have twelve cats"], normalizer="english")["wer"] == 0


def test_what_is_said_in_silence_is_an_error() -> None:
    assert scored(["go", ""], ["", "a b"])["wer"] == pytest.approx(3 / 2)
    assert scored([""], [""])["exact"] == 1
    assert math.isnan(scored(["go"], [""])["wer"])


def test_the_interval_is_seeded_and_narrows_with_more_utterances() -> None:
    errors, words = error_counts(KNOWN * 5, SAID * 5)
    assert interval(errors, words, seed=1) == interval(errors, words, seed=1)
    many = interval(np.tile(errors, 20), np.tile(words, 20))
    few = interval(errors, words)
    assert many[1] - many[0] < few[1] - few[0]
    assert np.ptp(resampled(np.ones(9, int), np.full(9, 4))) == 0


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_a_corpus_is_drawn_with_replacement(count: int) -> None:
    """The rates of corpora drawn one after the other from one generator."""
    rng = np.random.default_rng(count)
    words = rng.integers(1, 9, count)
    errors = rng.binomial(words, 0.3)
    draws, wanted = np.random.default_rng(5), []
    for _ in range(1000):
        i = draws.integers(count, size=count)
        wanted.append(errors[i].sum() / words[i].sum())
    np.testing.assert_array_equal(resampled(errors, words, 5), wanted)
    low, high = interval(errors, words, 5)
    assert (low, high) == tuple(np.quantile(wanted, [0.025, 0.975]))


def test_corpora_without_a_word_have_no_interval() -> None:
    assert np.isnan(interval(np.array([1, 0]), np.array([0, 3]))).all()


def test_systems_are_drawn_alike() -> None:
    errors, words = error_counts(KNOWN * 5, SAID * 5)
    assert (resampled(errors + 1, words) > resampled(errors, words)).all()


def test_refuses() -> None:
    with pytest.raises(ValueError, match="no transcript was accumulated"):
        SpeechMetrics().compute()
    with pytest.raises(ValueError, match="no reference for 'go'"):
        SpeechMetrics().update([{"text": "go"}], [{}])
