"""Word and character errors: jiwer's own rates, and an interval that holds them."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import jiwer
import numpy as np
import pytest

from sensorium.tasks.speech import error_counts, interval, normalizer_of, resampled
from sensorium.tasks.speech.metrics import SpeechMetrics

SAID = ["turn left now", "one too three four", "", "go go go"]
KNOWN = ["turn the left now", "one two three", "stop", "go go"]


def scored(prediction: list[str], known: list[str], **options: Any) -> dict[str, float]:
    metrics = SpeechMetrics(**options)
    for text, reference in zip(prediction, known, strict=True):  # any batches give the same
        metrics.update([{"text": text}], [{"text": reference}])
    return metrics.compute()


def test_rates_are_those_of_jiwer() -> None:
    result = scored(SAID, KNOWN)
    assert result["wer"] == pytest.approx(jiwer.wer(KNOWN, SAID))
    assert result["cer"] == pytest.approx(jiwer.cer(KNOWN, SAID))
    assert result["wer_low"] <= result["wer"] <= result["wer_high"]
    assert result["exact"] == 0


def test_a_rate_is_of_the_corpus_and_not_a_mean_of_utterances() -> None:
    result = scored(["a", "one two three four"], ["b", "one two three four"])
    assert result["wer"] == pytest.approx(1 / 5)
    assert result["exact"] == 0.5


def test_the_normalizer_reads_both_sides() -> None:
    assert scored(["Turn LEFT, now!"], ["turn left now"])["wer"] == 0
    assert scored(["Turn LEFT, now!"], ["turn left now"], normalizer="none")["wer"] > 0


def test_the_english_normalizer_makes_numerals() -> None:
    """One wrong digit spoils a number: why spelled-out words are read by the basic one."""
    prediction, known = ["one two four"], ["one two three"]
    assert normalizer_of("english")(known[0]) == "123"
    assert scored(prediction, known, normalizer="english")["wer"] == 1
    assert scored(prediction, known)["wer"] == pytest.approx(1 / 3)
    assert scored(["I have 12 cats"], ["i have twelve cats"], normalizer="english")["wer"] == 0


SCRIPTS = {
    # What was said, the reference: neither has punctuation, so jiwer alone counts the same.
    "hindi": ("कुताब मेज पर हे", "किताब मेज पर है"),
    "thai": ("นํ้า แมว กิน", "น้ำ แมว กิน"),
    "tamil": ("நான் பள்ளிகு போகறேன்", "நான் பள்ளிக்கு போகிறேன்"),
    "malayalam": ("മലയാള ഭാഷ", "മലയാളം ഭാഷ"),
    "arabic": ("السَّلام عليكم", "السَّلَامُ عليكم"),
    "hebrew": ("שָׁלוֹם עולמ", "שָׁלוֹם עולם"),
    "burmese": ("မြန်မာ စကာ", "မြန်မာ စကား"),
    "korean": ("안녕 하세여", "안녕 하세요"),
    "chinese": ("你好 世街", "你好 世界"),
    "vietnamese": ("tieng viet", "tiếng việt"),
    "turkish": ("istanbul ışık", "i̇stanbul ışık"),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_marks_are_part_of_their_letters_in_every_script(script: str, form: Any) -> None:
    prediction, known = (unicodedata.normalize(form, text) for text in SCRIPTS[script])
    plain = [unicodedata.normalize("NFC", text) for text in (prediction, known)]
    metrics = scored([prediction], [known])
    assert metrics["wer"] == pytest.approx(jiwer.wer(plain[1], plain[0])) != 0
    assert metrics["cer"] == pytest.approx(jiwer.cer(plain[1], plain[0]))
    assert scored([known], [unicodedata.normalize("NFD", known)])["wer"] == 0


@pytest.mark.parametrize(
    "text",
    ["Turn LEFT, now!", "don't stop", "it\u2019s 3.5 %", "caf\u00e9 [noise] (laughs) na\u00efve",
     "\uff21\uff22\uff23 \ufb01ne \u00bd", "x-y_z / a+b", "ÅNGSTRÖM straße", "a\u00a0b\tc\nd"],
)  # fmt: skip
def test_latin_text_is_compared_as_whisper_does(text: str) -> None:
    assert normalizer_of("unicode")(text) == normalizer_of("basic")(text)


def test_what_is_no_word_leaves_none() -> None:
    assert (
        normalizer_of("unicode")("I \u2764\ufe0f you \U0001f469\u200d\U0001f680 1\ufe0f\u20e3")
        == "i you 1"
    )
    assert normalizer_of("unicode")("می\u200cخواهم a\u200bb \ufeffc") == "میخواهم a b c"
    assert normalizer_of("unicode")("محـــمد") == "محمد"  # stretched
    with pytest.raises(ValueError, match="normalizer: found 'all', expected one of unicode"):
        normalizer_of("all")  # type: ignore[arg-type]


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
    draws, expected = np.random.default_rng(5), []
    for _ in range(1000):
        i = draws.integers(count, size=count)
        expected.append(errors[i].sum() / words[i].sum())
    np.testing.assert_array_equal(resampled(errors, words, 5), expected)
    low, high = interval(errors, words, 5)
    assert (low, high) == tuple(np.quantile(expected, [0.025, 0.975]))


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
