"""Corruptions take the share of tokens that they say, and lose nothing."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.modalities.text.datasets.arithmetic import Arithmetic
from sensorium.modalities.text.tokenizers import BPE, Bytes
from sensorium.tasks.language import OBJECTIVES
from sensorium.tasks.language.objectives import MODES, Noise, markers_of
from sensorium.tasks.language.spans import (
    Phrases,
    corrupt_groups,
    corrupt_spans,
    encode_digits,
    identifier_groups,
    move_middle,
    restore_spans,
    sample_spans,
)

TEXTS = st.text(min_size=1, max_size=80) | st.sampled_from(
    [
        "a",
        "plain English words",
        "Привет, мир",
        "こんにちは世界",
        "नमस्ते दुनिया",
        "سلام دنیا",
        "한국어 문장",
    ]
)
SENTINELS = [-1, -2, -3, -4, -5]
SEEDS = st.integers(0, 2**32 - 1)


def noise(name: str, sentinels: int = 5, rate: float = 0.15) -> Noise:
    return Noise(rate, 3.0, markers_of([name], sentinels), Bytes(), PHRASES)


PHRASES = Phrases(min_count=1)
PHRASES.fit(["plain English words", "other words", "plain text", "Привет, мир и дом"])


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, seed=SEEDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_source_and_target_restore_the_text(name: str, text: str, seed: int) -> None:
    ids, options = Bytes().encode(text), noise(name)
    source, target = OBJECTIVES[name].corrupt(ids, options, np.random.default_rng(seed))
    assert OBJECTIVES[name].restore(source, target, options) == ids
    again = OBJECTIVES[name].corrupt(ids, options, np.random.default_rng(seed))
    assert again == (source, target)


@settings(max_examples=100, deadline=None)
@given(
    length=st.integers(1, 200),
    rate=st.floats(0.01, 0.99),
    mean=st.floats(1, 40),
    most=st.integers(1, 50),
    seed=SEEDS,
)
def test_spans_are_apart_and_inside(
    length: int, rate: float, mean: float, most: int, seed: int
) -> None:
    spans = sample_spans(length, rate, mean, np.random.default_rng(seed), most)
    assert 1 <= len(spans) <= most
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(set(edges)) and edges[0] >= 0 and edges[-1] <= length
    masked = sum(stop - start for start, stop in spans)
    assert abs(masked - max(1, rate * length)) <= 1


@pytest.mark.parametrize("rate", [0.15, 0.5])
@pytest.mark.parametrize("length", [20, 33, 128])
def test_the_share_of_masked_tokens_is_the_rate(rate: float, length: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_spans(length, rate, 3.0, rng, 100) for _ in range(2000)]
    masked = np.zeros(length)
    for spans in drawn:
        for start, stop in spans:
            masked[start:stop] += 1
    assert masked.sum() / (2000 * length) == pytest.approx(rate, abs=0.01)
    assert masked.min() > 0, "a token that is never masked"


def test_the_mean_length_of_a_span() -> None:
    rng = np.random.default_rng(0)
    spans = [s for _ in range(200) for s in sample_spans(200, 0.15, 3.0, rng, 100)]
    assert np.mean([stop - start for start, stop in spans]) == pytest.approx(3.0, abs=0.05)


def test_the_example_of_the_paper_of_t5() -> None:
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    ids = list(range(len(words)))
    source, target = corrupt_spans(ids, [(2, 4), (8, 9)], [-1, -2, -3])
    assert source == [0, 1, -1, 4, 5, 6, 7, -2, 9]
    assert target == [-1, 2, 3, -2, 8, -3]


def test_the_middle_comes_last() -> None:
    assert move_middle([1, 2, 3, 4], (1, 3), [-1, -2, -3]) == [-1, 1, -2, 4, -3, 2, 3]


def test_spans_without_sentinels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 sentinels, expected 3 or more for 2 spans"):
        corrupt_spans([1, 2, 3], [(0, 1), (2, 3)], SENTINELS[:2])
    with pytest.raises(ValueError, match="found an empty text"):
        sample_spans(0, 0.15, 3.0, np.random.default_rng(0), 5)


def test_ul2_draws_each_mode_as_often() -> None:
    options, rng = noise("ul2"), np.random.default_rng(0)
    first = [OBJECTIVES["ul2"].corrupt([7] * 40, options, rng)[0][0] for _ in range(3000)]
    shares = [first.count(mode) / 3000 for mode in options.markers.ids(MODES)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)


SCRIPTS = [
    "abcdefghij   ",
    "абвгдежзик ",
    "あいうえおかき",
    "नमसतदय ",
    "سلامدنی ",
    "한국어문장하나 ",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["span_corruption", "ul2", "fill_in_the_middle"])
def test_ten_thousand_texts_are_restored(name: str) -> None:
    rng, options = np.random.default_rng(0), noise(name, sentinels=40)
    tokens = masked = 0
    for number in range(10_000):
        script = SCRIPTS[number % len(SCRIPTS)]
        ids = Bytes().encode("".join(rng.choice(list(script), size=int(rng.integers(1, 60)))))
        source, target = OBJECTIVES[name].corrupt(ids, options, rng)
        assert OBJECTIVES[name].restore(source, target, options) == ids
        tokens += len(ids)
        masked += len([i for i in target if i >= 0])
    if name == "span_corruption":
        assert masked / tokens == pytest.approx(0.15, abs=0.01)


PROGRAM = "def area(width, height):\n    return width * height  # width of it"


def test_a_name_is_one_sentinel_wherever_it_stands() -> None:
    """Words of the language are no names; what is masked is all of a name and nothing else."""
    tokenizer = Bytes()
    ids = tokenizer.encode(PROGRAM)
    groups = identifier_groups(ids, tokenizer)
    names = [tokenizer.decode(ids[slice(*group[0])]) for group in groups]
    assert names == ["area", "width", "height", "of", "it"]
    assert [len(group) for group in groups] == [1, 3, 2, 1, 1]
    source, target = corrupt_groups(ids, groups[:2], SENTINELS)
    assert [source.count(sentinel) for sentinel in SENTINELS[:2]] == [1, 3]
    assert target == [-1, *tokenizer.encode("area"), -2, *tokenizer.encode("width"), -3]
    assert restore_spans(source, target, SENTINELS) == ids
    options, rng = noise("identifiers", rate=0.9), np.random.default_rng(0)
    source, target = OBJECTIVES["identifiers"].corrupt(ids, options, rng)
    assert set(names) >= {
        tokenizer.decode(list(g)).strip() for k, g in groupby(target, key=lambda i: i >= 0) if k
    }
    plain = OBJECTIVES["identifiers"].corrupt(tokenizer.encode("1 + 2"), options, rng)
    assert plain == (tokenizer.encode("1 + 2"), [-1])


def test_every_digit_is_a_token() -> None:
    tokenizer = BPE(size=300)
    tokenizer.fit(["1999 and 2000 and 1999"] * 5)
    assert len(tokenizer.encode("1999")) < 4
    ids = encode_digits(tokenizer, "in 1999")
    assert [tokenizer.decode([i]) for i in ids[-4:]] == list("1999")
    assert tokenizer.decode(ids) == "in 1999"


def test_the_answers_of_generated_sums_are_right() -> None:
    train, test = (Arithmetic(split=split, rows=200, terms=4) for split in ("train", "test"))
    for row in (train[i] for i in range(200)):
        question = row["question"]
        if question.startswith("the largest of "):
            expected = max(map(int, question.removeprefix("the largest of ").split(", ")))
        else:
            expected = sum(
                int(term) for term in question.replace("- ", "-").replace("+ ", "").split()
            )
        assert row["answer"] == str(expected)
        assert row["text"] == f"{question} = {expected}"
    assert train[7] == train[7] and train[7] != test[7]
    with pytest.raises(ValueError, match="terms: found 1"):
        Arithmetic(split="train", terms=1)
