"""Tagging: entities against their definition and seqeval, the places of words, mistakes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.modalities.base import Features, RowErrors
from sensorium.modalities.text.tokenizers import BPE, Bytes
from sensorium.tasks.batch import Batch, Tools
from sensorium.tasks.common import word_places
from sensorium.tasks.supervised.entities import Entity, TagMetrics, entities
from sensorium.tasks.supervised.label_encoder import LabelEncoder
from sensorium.tasks.supervised.tagging import Tagging
from sensorium.testing.context import StubContext

TYPES = ("PER", "LOC", "X-Y")


def random_tags(rng: np.random.Generator, prefixes: str = "BIES") -> list[list[str]]:
    classes = ["O", "O", *(f"{p}-{t}" for p in prefixes for t in TYPES)]
    return [[str(t) for t in rng.choice(classes, rng.integers(1, 12))] for _ in range(8)]


def test_entities_of_bio_are_a_pattern() -> None:
    """Written as one letter a word, an entity is `B` and the `I`s of its type behind it."""
    rng = np.random.default_rng(0)
    for row in (row for _ in range(50) for row in random_tags(rng, "BI")):
        expected = set()
        for kind in TYPES:
            letters = "".join(tag[0] if tag[2:] == kind else "." for tag in row)
            matches = re.finditer("BI*|I+", letters)
            expected |= {Entity(kind, match.start(), match.end()) for match in matches}
        assert set(entities(row)) == expected


def test_scores_are_those_of_seqeval() -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(1)
    for _ in range(50):
        true = random_tags(rng)
        predicted = [[t if rng.random() < 0.6 else "O" for t in row] for row in true]
        found = TagMetrics(["O", "B-PER"])
        found.update([{"tags": p} for p in predicted], [{"tags": t} for t in true])
        values = found.compute()
        for name in ("f1", "precision", "recall", "accuracy"):
            score = getattr(metrics, f"{name}_score")(true, predicted)
            assert values[name] == pytest.approx(score)


def test_scores_by_hand() -> None:
    """A wrong end is a wrong entity; a word that was cut is outside, and wrong."""
    metrics = TagMetrics(["O", "B-PER", "I-PER", "B-LOC"])
    true = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]
    metrics.update([{"tags": ["B-PER", "O", "O", "B-LOC", None]}], [{"tags": true}])
    values = metrics.compute()
    assert values["precision"] == 1 / 2 and values["recall"] == 1 / 3
    assert values["f1"] == pytest.approx(0.4) and values["accuracy"] == 3 / 5
    assert values["LOC_f1"] == pytest.approx(2 / 3) and values["PER_f1"] == 0
    assert values["macro_f1"] == pytest.approx(1 / 3)
    words = TagMetrics(["noun", "verb"])
    words.update([{"tags": ["noun", "verb"]}], [{"tags": ["noun", "noun"]}])
    assert words.compute() == {"accuracy": 0.5, "f1": pytest.approx(1 / 3)}


def bpe(*texts: str) -> BPE:
    tokenizer = BPE(size=300)
    tokenizer.fit(texts * 4)
    return tokenizer


@pytest.mark.parametrize("text", ["Anna saw  Bern", " a naïve 猫\n!", "one"])
@pytest.mark.parametrize("prompt", ["", "query: ", "ask:"])
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_ids_of_a_word_spell_it(kind: str, text: str, prompt: str) -> None:
    tokenizer = Bytes() if kind == "bytes" else bpe("Anna saw Bern", "a naïve cat")
    places, tail = word_places(tokenizer, text, prompt)
    ids = tokenizer.encode(prompt + text, special=True)
    assert [word for word, *_ in places] == text.split()
    for word, first, behind in places:
        assert tokenizer.decode(ids[first:behind]).strip() == word
    assert tail == 1 and places[-1][2] <= len(ids) - tail


def tagging(**options: Any) -> Tagging:
    labels = LabelEncoder()
    labels.set_columns("tags")
    labels.fit([{"tags": ["O", "B-x", "I-x"]}])
    task = Tagging(input="text", labels=labels, **options)
    task.heads["head"] = torch.nn.Identity()  # type: ignore[assignment]
    return task


def batch_of(task: Tagging, *rows: dict[str, Any]) -> Batch:
    tools = Tools({}, {"text": Bytes()})
    examples = [task.prepare(row, tools, None) for row in rows]
    return Batch.of("tags", [str(i) for i in range(len(rows))], examples)


def scores_of(texts: list[str], limit: int = 99) -> Features:
    """Return scores that say the index of a token's letter: its class is that of `OBI`."""
    rows = []
    for text in texts:
        ids = Bytes().encode(text, special=True)
        ids = ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
        letters = [Bytes().decode([i]) for i in ids]
        rows.append(torch.tensor([[10.0 * (c == k) for k in "BIO"] for c in letters]))
    return Features.pad(rows)


@pytest.mark.parametrize(
    ("pool", "tags"), [("first", ["B-x", "I-x", "O"]), ("last", ["I-x", "O", "O"])]
)
def test_a_word_is_read_at_its_tokens(pool: str, tags: list[str]) -> None:
    """And the padding of the batch changes nothing."""
    task, text = tagging(pool=pool), "BBI IIO O"
    features = scores_of([text, text + " " + "O" * 20])
    batch = batch_of(task, {"text": text}, {"text": text + " " + "O" * 20})
    predictions = task.predict(batch, StubContext({"text": features}))
    assert predictions[0]["tags"] == tags and predictions[1]["tags"] == [*tags, "O"]


def test_a_mean_is_the_mean_of_a_word_alone() -> None:
    task = tagging(pool="mean")
    text, context = "BBI OI", StubContext({"text": scores_of(["BBI OI"])})
    logits, real = task._units(batch_of(task, {"text": text}), context)
    assert real.all()
    expected = torch.tensor([[20 / 3, 10 / 3, 0], [0, 5, 5]])
    torch.testing.assert_close(logits[0], expected)


def test_words_of_a_text_that_was_cut_have_no_tag() -> None:
    task, text = tagging(), "B I O O"
    context = StubContext({"text": scores_of([text], limit=5)})
    (prediction,) = task.predict(batch_of(task, {"text": text}), context)
    assert prediction["tags"] == ["B-x", "I-x", None, None]
    assert prediction["entities"] == [{"type": "x", "start": 0, "end": 2, "text": "B I"}]
    loss = task.loss(batch_of(task, {"text": text, "tags": ["B-x", "I-x", "O", "O"]}), context)
    assert int(loss.count) == 2 and int(loss.parts["correct"]) == 2


def test_mistakes_are_one_line() -> None:
    task = tagging()
    context = StubContext({"text": scores_of(["B I"])})
    with pytest.raises(RowErrors, match="has 1 tags, its text 2 words"):
        task.loss(batch_of(task, {"text": "B I", "tags": ["O"]}), context)
    with pytest.raises(ValueError, match="holds 'O', expected a list of tags"):
        batch_of(task, {"text": "B I", "tags": "O"})
    with pytest.raises(ValueError, match="'B-y' in the column 'tags' was not in the training"):
        batch_of(task, {"text": "B", "tags": ["B-y"]})
    with pytest.raises(ValueError, match="no tags; add the column 'tags'"):
        task.loss(batch_of(task, {"text": "B I"}), context)
    pooled = Features.dense(torch.zeros(1, 1, 3))

    def encode(stream: str, view: str = "main", **_: Any) -> Features:
        return scores_of(["B I"]) if stream == "text.encoder" else pooled

    with pytest.raises(ValueError, match="the connector of 'text' changes the number of tokens"):
        task.predict(batch_of(task, {"text": "B I"}), StubContext(encode))
