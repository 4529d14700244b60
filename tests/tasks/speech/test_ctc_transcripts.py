"""From frames to words and times, and how long a piece of a recording is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sensorium.modalities.base import Features, Tokenizer
from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import BPE
from sensorium.tasks.common import words_of
from sensorium.tasks.speech.alignment import split_at_pauses
from sensorium.tasks.speech.length_stats import LengthHistogram
from sensorium.tasks.speech.transcribe import DecodeOptions, transcribe

TEXTS = ["go left now", "a see saw", "go go"]


def characters() -> Characters:
    built = Characters()
    built.fit(TEXTS)
    return built


def bpe() -> BPE:
    built = BPE(size=280)
    built.fit(TEXTS * 3)
    return built


def frames(tokenizer: Tokenizer, spoken: Sequence[str | None]) -> Tensor:
    """Log probabilities whose best path is one letter, or the blank (None), a frame."""
    blank = tokenizer.size
    path = [blank if letter is None else tokenizer.encode(letter)[0] for letter in spoken]
    values = torch.full((len(path), blank + 1), 0.01)
    values[torch.arange(len(path)), path] = 1.0
    return values.log().log_softmax(-1)


def said(log_probs: Tensor, limit: int = 0, **requested: object) -> dict[str, object]:
    tokenizer = characters()
    reading = DecodeOptions(tokenizer, tokenizer.size, **requested)  # type: ignore[arg-type]
    where = Features.dense(log_probs[None], grid=(len(log_probs),), spacing=(0.1,), origin=(0.05,))
    return transcribe(log_probs, where, reading, limit)


SPOKEN = ["g", "o", None, " ", None, None, "s", "e", None, "e", "e", None]


def test_words_stand_where_their_letters_are() -> None:
    result = said(frames(characters(), SPOKEN), times=True)
    assert result == {"text": "go see", "words": [["go", 0.0, 0.2], ["see", 0.6, 1.1]]}


def test_silence_has_no_words() -> None:
    quiet = frames(characters(), [None] * 6)
    assert said(quiet, times=True, confidence=True) == {"text": "", "words": [], "confidence": 1.0}
    assert said(quiet[:0], times=True, beam=4) == {"text": "", "words": []}


def test_confidence_falls_with_the_posteriors() -> None:
    sure = frames(characters(), SPOKEN)
    unsure = (sure / 3).log_softmax(-1)
    high, low = (said(each, confidence=True)["confidence"] for each in (sure, unsure))
    assert isinstance(high, float) and isinstance(low, float) and 0 < low < high <= 1


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("limit", [0, 5, 13, 40])
def test_reading_span_by_span_changes_nothing(beam: int, limit: int) -> None:
    spoken = [*SPOKEN, " ", "n", "o", "w", None, None, " ", *SPOKEN]
    log_probs = frames(characters(), spoken)
    result, whole = (said(log_probs, at, times=True, beam=beam) for at in (limit, 0))
    assert result == whole
    assert result["text"] == "go see now go see"


@pytest.mark.parametrize("tokenizer", [characters(), bpe()], ids=["characters", "bpe"])
@pytest.mark.parametrize("text", [*TEXTS, " go  left ", "", " "])
def test_words_of_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    result = words_of(tokenizer, ids)
    assert [word for word, _, _ in result] == text.split()
    for word, first, behind in result:
        assert tokenizer.decode(ids[first:behind]).strip() == word


def test_cuts_lie_between_words() -> None:
    words = [(0, 4), (6, 10), (14, 30), (31, 33)]
    assert split_at_pauses(words, 40, 100) == [(0, 40)]
    result = split_at_pauses(words, 40, 12)
    assert result == [(0, 12), (12, 30), (30, 40)]
    assert split_at_pauses([], 40, 12) == [(0, 40)]


def test_pieces_are_as_long_as_most_rows_were() -> None:
    lengths = LengthHistogram(None, 0.25)
    assert lengths.window() is None
    lengths.add(torch.arange(1, 101))
    window = lengths.window()
    assert window is not None
    assert (window.length, window.overlap, window.limit) == (90, 22, 100)
    again = LengthHistogram(None, 0.25)
    again.load_state_dict(lengths.state_dict())
    assert again.window() == window
    expected = LengthHistogram(40, 0.5)
    expected.load_state_dict(lengths.state_dict())
    assert expected.window() is not None and expected.window().length == 40  # type: ignore[union-attr]
