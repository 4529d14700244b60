"""Text metrics against their definitions, worked out again here in another way."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from sklearn.metrics import f1_score

from sensorium.tasks.text import Facts
from sensorium.tasks.text.cider import cider_d
from sensorium.tasks.text.metrics import TextMetrics, words

TEXTS = [
    "a red circle above a small blue square",
    "two dogs run over the green grass quickly",
    "the quick brown fox jumps over the lazy dog",
]


def scores(texts: list[str], references: list[list[str]]) -> dict[str, float]:
    metrics = TextMetrics()
    metrics.add(texts[:1], references[:1])
    metrics.add(texts[1:], references[1:])
    return metrics.compute()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red, RED circle.", ["a", "red", ",", "red", "circle", "."]),
        ("don't 3.5", ["don", "'", "t", "3", ".", "5"]),
        ("  Ünïcode\n七 ", ["ünïcode", "七"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A dog's tail, wagging; x_1 3.5%",
        'naïve café -- "ok"',
        "",
        "  a  ",
        "猫が 好き。",
        "a\u00b2",
    ],
)
def test_words_without_marks_are_those_of_the_regular_expression(text: str) -> None:
    assert words(text) == re.findall(r"\w+|[^\w\s]", text.lower())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("किताब मेज, पर है।", ["किताब", "मेज", ",", "पर", "है", "।"]),
        ("นํ้า ไทย", ["นํ้า", "ไทย"]),
        ("நான் பள்ளி", ["நான்", "பள்ளி"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("e\u0301a", ["éa"]),
        ("\u2764\ufe0f x", ["\u2764\ufe0f", "x"]),
    ],
)
def test_marks_belong_to_their_letters(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_equal_texts_have_the_best_scores() -> None:
    result = scores(TEXTS, [[text] for text in TEXTS])
    best = {"exact_match": 1.0, "words": 1.0, "bleu4": 1.0, "rouge_l": 1.0, "cider_d": 10.0}
    assert result == pytest.approx(best)


def test_texts_that_share_nothing_have_none() -> None:
    result = scores(["x y z w v"] * 3, [[text] for text in TEXTS])
    assert result == pytest.approx(dict.fromkeys(result, 0.0))


def test_several_references_let_the_best_count() -> None:
    references = [[TEXTS[(i + 1) % 3], text] for i, text in enumerate(TEXTS)]
    result = scores(TEXTS, references)
    assert result["exact_match"] == result["words"] == result["bleu4"] == result["rouge_l"] == 1.0


@pytest.mark.parametrize(
    ("text", "references", "exact", "right"),
    [
        ("a red circle", ["a red circle"], 1.0, 1.0),
        ("a  red circle ", ["a red circle"], 1.0, 1.0),
        ("A red circle", ["a red circle"], 0.0, 1.0),
        ("a blue circle", ["a red circle"], 0.0, 2 / 3),
        ("red circle", ["a red circle"], 0.0, 0.0),
        ("a red circle and more", ["a red circle"], 0.0, 1.0),
        ("a", ["a red circle", "a b"], 0.0, 1 / 2),
        ("", ["a red circle"], 0.0, 0.0),
    ],
)
def test_exact_match_and_words(
    text: str, references: list[str], exact: float, right: float
) -> None:
    result = scores([text], [references])
    assert result["exact_match"] == exact
    assert result["words"] == pytest.approx(right)


def test_words_are_counted_over_the_whole_set() -> None:
    result = scores(["a b", "x"], [["a b"], ["c d e f"]])
    assert result["words"] == pytest.approx(2 / 6)


def test_bleu_by_its_formula() -> None:
    """Precisions of 1- to 4-grams 7/8, 5/7, 3/6, 2/5 and a brevity penalty of exp(1 - 9/8)."""
    prediction, known = "the cat sat on the mat all day", "the cat sat on the mat for all day"
    grams = [
        [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        for text in (prediction.split(), known.split())
        for n in range(1, 5)
    ]
    precisions = [
        sum(min(ours.count(g), theirs.count(g)) for g in set(ours)) / len(ours)
        for ours, theirs in zip(grams[:4], grams[4:], strict=True)
    ]
    expected = np.exp(np.mean(np.log(precisions)) + 1 - 9 / 8)
    assert scores([prediction], [[known]])["bleu4"] == pytest.approx(expected, abs=1e-6)


def test_rouge_l_by_its_formula() -> None:
    """Longest common subsequence 'the cat the mat': recall 4/6, precision 4/5."""
    result = scores(["The cat, the mat"], [["the cat sat on the mat"]])["rouge_l"]
    assert result == pytest.approx(2 * (4 / 6) * (4 / 5) / (4 / 6 + 4 / 5), abs=1e-6)


def straightforward(texts: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """CIDEr-D with dense vectors over all n-grams of the set."""
    result = np.zeros(len(texts))
    for n in range(1, 5):

        def grams(text: list[str], n: int = n) -> list[tuple[str, ...]]:
            return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]

        every = [text for row in references for text in row] + texts
        vocabulary = sorted({gram for text in every for gram in grams(text)})
        shown = np.array(
            [[any(g in grams(t) for t in row) for row in references] for g in vocabulary]
        )
        rarity = np.log(len(texts) / np.maximum(1, shown.sum(-1)))
        for i, (text, row) in enumerate(zip(texts, references, strict=True)):
            ours = np.array([grams(text).count(g) for g in vocabulary]) * rarity
            for reference in row:
                theirs = np.array([grams(reference).count(g) for g in vocabulary]) * rarity
                norm = np.linalg.norm(ours) * np.linalg.norm(theirs)
                if norm:
                    cosine = np.minimum(ours, theirs) @ theirs / norm
                    damp = np.exp(-((len(text) - len(reference)) ** 2) / 72)
                    result[i] += 10 * cosine * damp / len(row) / 4
    return result.tolist()


def sentences(seed: int, rows: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Random texts over few words, so that n-grams repeat, with one to three references."""
    dice = random.Random(seed)

    def sentence() -> list[str]:
        return [dice.choice("abcdef") for _ in range(dice.randint(0, 12))]

    references = [[sentence() for _ in range(dice.randint(1, 3))] for _ in range(rows)]
    texts = [dice.choice([sentence(), row[0][1:], row[0]]) for row in references]
    return texts, references


@pytest.mark.parametrize("seed", range(8))
def test_cider_by_its_formula(seed: int) -> None:
    texts, references = sentences(seed, 2 if seed < 4 else 7)
    assert cider_d(texts, references) == pytest.approx(straightforward(texts, references))


def test_cider_by_hand() -> None:
    """Two rows, one shared word `a` that weighs nothing. The first text has the unigrams b, c of
    its reference (a b c) and one bigram of two (b c: log 2; a b: log 2): cosines 1, 1/sqrt(2)
    and none, one word short."""
    result = cider_d([["b", "c"], ["a"]], [[["a", "b", "c"]], [["a", "d"]]])
    damp = np.exp(-1 / 72)
    assert result == pytest.approx([10 / 4 * (1 + 1 / np.sqrt(2)) * damp, 0.0])


def test_cider_does_not_ask_for_an_order() -> None:
    texts, references = sentences(3, 9)
    order = random.Random(0).sample(range(9), 9)
    result = cider_d(texts, references)
    shuffled = cider_d([texts[i] for i in order], [references[i][::-1] for i in order])
    assert shuffled == pytest.approx([result[i] for i in order])


def test_cider_of_a_repeated_word_is_clipped() -> None:
    """Saying a rare word again and again does not help: the reference's count is the bound."""
    references = [[["a", "rare", "word", "here"]], [["no", "such", "thing", "there"]]]
    once = cider_d([["a", "rare", "word", "here"], ["x"]], references)[0]
    often = cider_d([["a", "rare", "rare", "rare"], ["x"]], references)[0]
    assert once == pytest.approx(10.0)
    assert often < once / 2


def test_a_missing_reference_or_an_empty_set_is_named() -> None:
    metrics = TextMetrics()
    with pytest.raises(ValueError, match="no text was accumulated"):
        metrics.compute()
    with pytest.raises(ValueError, match="no reference for 'a'"):
        metrics.add(["a"], [[]])
    with pytest.raises(ValueError, match="2 texts, 1 references"):
        metrics.add(["a", "b"], [["a"]])


def test_facts_are_parsed_back_and_compared_with_the_reference() -> None:
    facts = Facts({"size": r"(small|large)", "side": r"on the (left|right)"})
    metrics = TextMetrics(facts)
    metrics.add(["a small one on the right", "large"], [["a small one"], ["small, on the left"]])
    result = metrics.compute()
    assert result["fact_size"] == 0.5
    assert result["fact_side"] == 0.0  # the first reference names no side: it does not count
    # Said: small, right, large. Known: small, small, left. One of three and three is right.
    assert result["fact_f1"] == pytest.approx(2 * 1 / (3 + 3))


def test_f1_equals_scikit_learns_where_a_fact_is_a_class() -> None:
    rng = np.random.default_rng(0)
    prediction, known = (rng.choice(["left", "right", "none"], 60) for _ in range(2))
    texts = [f"side {s}" for s in prediction]
    result = Facts({"side": r"side (left|right)"}).scores(texts, [f"side {k}" for k in known])
    expected = f1_score(known, prediction, labels=["left", "right"], average="micro")
    assert result["fact_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "right"), [("20", 1.0), ("23", 1.0), ("24.1", 0.0), ("", 0.0)]
)
def test_numbers_may_be_off_by_a_share(prediction: str, right: float) -> None:
    facts = Facts({"size": r"([\d.]+) mm"}, {"size": 0.2})
    assert facts.scores([f"of {prediction} mm"], ["of 20 mm"])["fact_size"] == right


def test_facts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"fact_tolerance\.size: there is no fact 'size'"):
        Facts({"side": "(left)"}, {"size": 0.2})
    with pytest.raises(ValueError, match=r"fact_tolerance\.size: found -0\.2"):
        Facts({"size": "(1)"}, {"size": -0.2})
    assert Facts({}).scores(["a"], ["b"]) == {}


LOOK_ALIKE = [
    ("cafe\u0301", "caf\u00e9"),
    ("\u200fשלום\u200f", "שלום"),
    ("co\u00adop", "coop"),
    ("\ufeffa b", "a b"),
    ("a\u200bb", "a b"),
    ("a\u00a0b\r\n", "a b"),
    ("\u1112\u1161\u11ab", "한"),
]


@pytest.mark.parametrize(("prediction", "reference"), LOOK_ALIKE)
def test_texts_that_look_alike_are_equal(prediction: str, reference: str) -> None:
    metrics = TextMetrics()
    metrics.add([prediction], [[reference]])
    scores = metrics.compute()
    assert (scores["exact_match"], scores["words"]) == (1, 1)


def test_joiners_are_letters_of_a_word() -> None:
    metrics = TextMetrics()
    metrics.add(["می\u200cخواهم"], [["میخواهم"]])
    assert metrics.compute()["exact_match"] == 0
