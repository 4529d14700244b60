"""Decoding against all paths: every text's probability is the sum over the paths that spell it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import BPE
from sensorium.tasks.speech import ctc_losses, greedy
from sensorium.tasks.speech.decoding import frames_needed, prefix_beam_search
from sensorium.tasks.speech.lexicon import Lexicon

CASES = [(frames, classes, seed) for frames in (1, 3, 5) for classes in (2, 4) for seed in (0, 1)]


def some(frames: int, classes: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    """Log probabilities `[T, V]`; the last class is the blank."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(frames, classes, generator=generator) * scale).log_softmax(-1)


def spelled(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def by_hand(log_probs: Tensor, blank: int) -> dict[tuple[int, ...], float]:
    """The probability of every text, over all paths."""
    probabilities = log_probs.double().exp().tolist()
    result: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        share = math.prod(row[token] for row, token in zip(probabilities, path, strict=True))
        text = spelled(path, blank)
        result[text] = result.get(text, 0.0) + share
    return result


@pytest.mark.parametrize(("frames", "classes", "seed"), CASES)
def test_a_wide_beam_is_exact(frames: int, classes: int, seed: int) -> None:
    blank = classes - 1
    log_probs = some(frames, classes, seed)
    known = by_hand(log_probs, blank)
    result = prefix_beam_search(log_probs, blank, beam=10_000, pruned=0)
    assert {tuple(ids) for ids, _ in result} >= {t for t, p in known.items() if p > 0}
    for ids, value in result:
        assert math.exp(value) == pytest.approx(known.get(tuple(ids), 0.0), abs=1e-12)
    assert known[tuple(result[0][0])] == pytest.approx(max(known.values()))
    assert sum(math.exp(value) for _, value in result) == pytest.approx(1)


@pytest.mark.parametrize(("frames", "classes", "seed"), CASES)
def test_the_loss_is_the_sum_over_paths(frames: int, classes: int, seed: int) -> None:
    blank = classes - 1
    logits = some(frames, classes, seed)
    for text, share in by_hand(logits, blank).items():
        value = ctc_losses(logits[None], [frames], [list(text)])
        assert math.exp(-float(value)) == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("beam", [1, 2, 8])
def test_a_beam_finds_a_text_that_is_as_likely_as_it_says_at_most(beam: int) -> None:
    log_probs = some(5, 4, 3)
    known = by_hand(log_probs, 3)
    result = prefix_beam_search(log_probs, 3, beam)
    assert len(result) <= beam
    assert all(math.exp(value) <= known[tuple(ids)] + 1e-9 for ids, value in result)
    assert [value for _, value in result] == sorted((value for _, value in result), reverse=True)


def test_many_weak_paths_beat_the_best_one() -> None:
    """Why prefixes are summed: the best path is empty, the likeliest text is not."""
    log_probs = torch.tensor([[0.4, 0.6], [0.4, 0.6]]).log()
    assert greedy(log_probs, blank=1).ids == []
    assert prefix_beam_search(log_probs, 1, beam=4)[0][0] == [0]


def path(*tokens: int, classes: int = 4) -> Tensor:
    return F.one_hot(torch.tensor(tokens), classes).double().add(1e-3).log().log_softmax(-1)


def test_greedy_merges_runs_and_drops_blanks() -> None:
    result = greedy(path(0, 0, 3, 0, 1, 1), blank=3)  # a a - a b b
    assert result.ids == [0, 0, 1]
    assert result.spans == [(0, 2), (3, 4), (4, 6)]
    assert all(0.9 < score <= 1 for score in result.scores)
    assert greedy(path(3, 3), blank=3).ids == []


@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_the_best_path(seed: int) -> None:
    log_probs = some(6, 4, seed)
    best = tuple(log_probs.argmax(-1).tolist())
    assert tuple(greedy(log_probs, 3).ids) == spelled(best, 3)


@pytest.mark.parametrize("ids", [[], [1], [1, 1], [1, 2, 1], [1, 1, 1, 2]])
def test_as_many_frames_as_tokens_and_repeats(ids: list[int]) -> None:
    needed = frames_needed(ids)
    enough = ctc_losses(some(max(needed, 1), 4)[None], [max(needed, 1)], [ids])
    assert enough.isfinite().all()
    if needed > 1:
        assert ctc_losses(some(needed, 4)[None], [needed - 1], [ids]).isinf().all()


def lexicon(*words: str) -> tuple[Characters, Lexicon]:
    tokenizer, result = Characters(), Lexicon()
    tokenizer.fit([" ".join(words) + " "])
    result.fit([" ".join(words)])
    return tokenizer, result


@pytest.mark.parametrize("seed", range(4))
def test_a_search_along_words_is_exact_too(seed: int) -> None:
    """Every text of the words that fits has the probability of all of its paths."""
    tokenizer, words = lexicon("a", "ab", "b")
    blank = tokenizer.size
    log_probs = some(5, blank + 1, seed)
    result = prefix_beam_search(log_probs, blank, 10_000, pruned=0, tree=words.tree(tokenizer))
    texts = [tokenizer.decode(ids) for ids, _ in result]
    assert all(set(text.split(" ")) <= {"", "a", "ab", "b"} for text in texts)
    assert {"", "a", "ab", "b", "a b", "ab b", "b a"} <= set(texts)
    for ids, value in result:
        known = ctc_losses(log_probs[None], [5], [ids])
        assert -value == pytest.approx(float(known), rel=1e-4)


def test_where_no_word_is_whole_the_search_gives_what_it_has() -> None:
    tokenizer, words = lexicon("ab")
    blank = tokenizer.size
    log_probs = torch.full((1, blank + 1), -20.0)
    log_probs[0, tokenizer.encode("a")[0]] = 0.0
    result = prefix_beam_search(log_probs, blank, 1, tree=words.tree(tokenizer))
    assert tokenizer.decode(result[0][0]) == "a"


def test_pieces_that_are_no_letters_have_no_lexicon() -> None:
    tokenizer, words = BPE(size=300), Lexicon()
    tokenizer.fit(["go on and on"] * 4)
    words.fit(["go on"])
    with pytest.raises(ValueError, match="lexicon: needs a tokenizer that spells"):
        words.tree(tokenizer)
