"""Hypotheses as canvases: lengths, what stays, and what the places should hold."""

from __future__ import annotations

import math
import random

import pytest

from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import BPE
from sensorium.tasks.diffusion.draft import (
    Draft,
    DraftConfig,
    align_targets,
    layout_draft,
    make_draft,
)
from sensorium.tasks.speech import CTCHypothesis

TEXTS = ["the old cat sat on the mat", "a dog ran over the hill", "the cat ran"]
EOS, GAP = 2, 99


@pytest.fixture
def spelling() -> Characters:
    built = Characters()
    built.fit(TEXTS)
    return built


@pytest.fixture
def tokenizer() -> BPE:
    built = BPE(size=280)
    built.fit(TEXTS)
    return built


def heard(spelling: Characters, text: str, unsure: str = "") -> CTCHypothesis:
    ids = spelling.encode(text)
    at = text.index(unsure) if unsure else -1
    scores = [0.4 if at <= i < at + len(unsure) else 0.99 for i in range(len(ids))]
    return CTCHypothesis(ids, [(i, i + 1) for i in range(len(ids))], scores)


def layout(**changes: float) -> DraftConfig:
    options = {
        "min_confidence": 0.9,
        "length_factor": 1.2,
        "length_margin": 4,
        "min_length_ratio": 0.5,
        **changes,
    }
    return DraftConfig(**options)  # type: ignore[arg-type]


def prior(ids: list[int], doubtful: set[int]) -> Draft:
    """A word a token."""
    sure = [0.1 if i in doubtful else 1.0 for i in range(len(ids))]
    return Draft("", ids, sure, list(range(len(ids))))


def test_a_word_is_as_sure_as_its_least_sure_letter(spelling: Characters, tokenizer: BPE) -> None:
    result = make_draft(heard(spelling, "the old cat sat", "l"), spelling, tokenizer)
    assert result.text == "the old cat sat" and result.ids == tokenizer.encode(result.text)
    pieces = [tokenizer.decode([i]).strip() for i in result.ids]
    unsure = "".join(p for p, s in zip(pieces, result.sure, strict=True) if s < 0.9)
    assert unsure == "old"
    assert [len(set(result.words)), max(result.words)] == [4, 3]


def test_silence_is_a_canvas_of_slack(spelling: Characters, tokenizer: BPE) -> None:
    slots = layout_draft(make_draft(CTCHypothesis([], [], []), spelling, tokenizer), layout())
    assert slots.tokens == [None] * 4 and slots.least == 0


@pytest.mark.parametrize("tokens", [0, 1, 9, 10, 40])
@pytest.mark.parametrize("doubtful", [0, 1, 5, 40])
def test_the_length_is_that_of_the_formula(tokens: int, doubtful: int) -> None:
    result = layout_draft(prior(list(range(10, 10 + tokens)), set(range(doubtful))), layout())
    assert len(result.tokens) == math.ceil(round(1.2 * tokens, 6)) + 4
    stay = [t for t in result.tokens if t is not None]
    assert stay == list(range(10 + min(doubtful, tokens), 10 + tokens))


def test_room_stands_beside_doubtful_words() -> None:
    result = layout_draft(prior([10, 11, 12, 13, 14, 15, 16, 17, 18, 19], {3}), layout())
    assert result.tokens == [10, 11, 12, None, None, 14, 15, 16, 17, 18, 19, *[None] * 5]
    assert result.head == 11 and result.least == 5


def test_a_word_that_is_shorter_leaves_gaps_and_longer_ones_fit() -> None:
    slots = layout_draft(prior([10, 11, 12, 13, 14], {2}), layout())  # 10 11 . . 13 14 | . . . .
    same, learned = align_targets(slots, [10, 11, 7, 13, 14], EOS, GAP)
    assert same == [10, 11, 7, GAP, 13, 14, EOS, EOS, EOS, EOS] and all(learned)
    longer, learned = align_targets(slots, [10, 11, 7, 8, 13, 14], EOS, GAP)
    assert longer[:6] == [10, 11, 7, 8, 13, 14] and all(learned)
    shorter, _ = align_targets(slots, [10, 11, 13, 14, 20], EOS, GAP)
    assert shorter == [10, 11, GAP, GAP, 13, 14, 20, EOS, EOS, EOS]


def test_places_that_are_too_few_are_not_learned() -> None:
    slots = layout_draft(prior([10, 11, 12], set()), layout(length_margin=2))  # 10 11 12 | . . .
    expected, learned = align_targets(slots, [10, 7, 8, 12], EOS, GAP)
    assert learned == [True, False, True, True, True, True]
    assert expected[0] == 10 and expected[2] == 12 and expected[3:] == [EOS] * 3


def test_a_wrong_word_that_stays_should_be_another() -> None:
    slots = layout_draft(prior([10, 11, 12], set()), layout())
    expected, learned = align_targets(slots, [10, 7, 12], EOS, GAP)
    assert expected[:3] == [10, 7, 12] and all(learned)


def test_the_truth_comes_back_wherever_it_fits() -> None:
    """Whatever was misheard: without gaps, up to the end, the wanted places are the truth, but
    for words that were missed where the canvas has no room."""
    rng, whole = random.Random(0), 0
    for _ in range(300):
        truth = [rng.randrange(10, 30) for _ in range(rng.randrange(1, 15))]
        hypothesis = [t if rng.random() < 0.8 else rng.randrange(10, 30) for t in truth]
        hypothesis = [t for t in hypothesis if rng.random() < 0.9]
        doubtful = {i for i in range(len(hypothesis)) if rng.random() < 0.3}
        slots = layout_draft(prior(hypothesis, doubtful), layout(length_margin=8))
        expected, learned = align_targets(slots, truth, EOS, GAP)
        assert len(expected) == len(learned) == len(slots.tokens)
        if all(learned) and EOS in expected:
            text = [t for t in expected[: expected.index(EOS)] if t != GAP]
            rest = iter(truth)
            assert all(token in rest for token in text)
            whole += text == truth
            assert set(expected[expected.index(EOS) :]) == {EOS}
    assert whole > 100
