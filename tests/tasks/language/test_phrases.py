"""Phrases chosen by statistics of the training texts, and the texts that a decoder writes."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.modalities.text.tokenizers import BPE, Bytes
from sensorium.tasks.batch import Tools
from sensorium.tasks.language import OBJECTIVES, LanguageModeling
from sensorium.tasks.language.objectives import Noise, markers_of
from sensorium.tasks.language.spans import Phrases, occurrences
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import T5, backbone_of, built

FILLERS = ["the", "of", "and", "a", "in", "is"]


def legal_texts(count: int = 60) -> list[str]:
    """Common words at random, and two terms whose words stand only together."""
    draws = random.Random(0)
    terms = ["habeas corpus", "prima facie"]
    return [
        " ".join([*draws.choices(FILLERS, k=4), draws.choice(terms), *draws.choices(FILLERS, k=3)])
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def fitted() -> Phrases:
    phrases = Phrases(min_pmi=0.5)
    phrases.fit(legal_texts())
    return phrases


def test_the_information_of_a_pair_is_its_definition() -> None:
    phrases = Phrases(min_count=1)
    phrases.fit(["a b", "a b", "a c", "d"])
    assert phrases.pmi("a", "b") == pytest.approx(math.log((2 / 4) / ((3 / 4) * (2 / 4))))
    assert phrases.pmi("b", "a") == -math.inf
    again = Phrases(min_count=1)
    again.load_state(json.loads(json.dumps(phrases.state())))
    assert again.state() == phrases.state()


def test_collocations_are_masked_whole_and_chance_neighbours_are_not(fitted: Phrases) -> None:
    text = "the of habeas corpus and is, prima facie a"
    spans = fitted.collocations(text)
    assert [text[a:b] for a, b in spans] == ["habeas corpus", "prima facie"]
    shuffled = Phrases(min_pmi=0.5)
    draws = random.Random(1)
    shuffled.fit([" ".join(draws.sample(t.split(), len(t.split()))) for t in legal_texts()])
    assert not shuffled.collocations(text), "words that stand together by chance"


@pytest.mark.parametrize("tokenizer", [Bytes(), BPE(size=300)], ids=["bytes", "bpe"])
def test_masked_spans_are_the_terms_of_a_text(fitted: Phrases, tokenizer: Any) -> None:
    tokenizer.fit(legal_texts())
    markers, rng = markers_of(["collocations"], 5), np.random.default_rng(0)
    noise = Noise(0.2, 3.0, markers, tokenizer, fitted)
    masked = 0
    for text in legal_texts(20):
        ids = tokenizer.encode(text)
        source, target = OBJECTIVES["collocations"].corrupt(ids, noise, rng)
        inside = tokenizer.decode([i for i in target if i >= 0]).strip()
        assert inside in ("habeas corpus", "prima facie", "")
        masked += bool(inside)
        assert OBJECTIVES["collocations"].restore(source, target, noise) == ids
    assert masked >= 18


def test_keyphrases_are_rare_words_of_the_text(fitted: Phrases) -> None:
    text = "the of kangaroo court and the kangaroo is in"
    spans = fitted.keyphrases(text)
    assert text[slice(*spans[0])] in ("kangaroo court", "kangaroo")
    assert not {text[a:b] for a, b in spans} & set(FILLERS)
    assert [text[a:b] for a, b in occurrences(text, ["COURT and", "kan", "absent", "the of"])] == [
        "court and",
        "the of",
    ]


def test_the_target_is_the_list_of_keyphrases(fitted: Phrases) -> None:
    """Those of the row, present ones in the order of the text, masked in the source."""
    task = LanguageModeling(objectives={"keyphrases": 1.0}, keyphrases="keys", sentinels=5)
    row = {"text": "a red circle and a square", "keys": "square; green tree; red circle"}
    assert set(task.columns()) == {"text", "keys"}
    task.encodes_context = True
    labels = task.prepare(row, Tools({"backbone": Bytes()}), np.random.default_rng(0)).labels
    decode = Bytes().decode
    assert decode(labels["target"].tolist()) == "red circle;square;green tree"
    source = labels["source"].tolist()
    assert decode([i for i in source if i >= 0]) == "a  and a "
    assert [i for i in source if i < 0] == [-1, -2]
    with pytest.raises(ValueError, match="keys: found 3, expected a list of texts"):
        task.prepare({**row, "keys": 3}, Tools({"backbone": Bytes()}), None)


SAMPLING = {"do_sample": True, "temperature": 0.7}


@pytest.mark.slow
def test_a_trained_model_writes_new_examples() -> None:
    """Samples fill the masked terms: the frame of a text stays, what is written is a term."""
    backbone = backbone_of("seq2seq", {**T5, "d_model": 32, "d_ff": 64, "dropout_rate": 0.0})
    torch.manual_seed(0)
    texts = [f"the {t} is" for t in ("ab cd", "uv xy")]
    phrases = Phrases(min_count=2, min_pmi=1.0)
    phrases.fit(texts * 3 + ["the is", "is the"] * 6)
    task = built(backbone, "collocations", sentinels=3, phrases=phrases)
    rows = [{"text": text} for text in texts] * 2
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2)
    untrained = written(task, backbone, rows)
    for _ in range(200):
        batch = prepare_batch(task, rows, decoder=backbone)
        loss = task.loss(batch, StubContext({}).on(backbone))
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    torch.manual_seed(0)
    drawn = [w for _ in range(4) for w in written(task, backbone, rows, **SAMPLING)]
    assert all(w.startswith("the ") and w.endswith(" is") for w in (*drawn, *untrained))
    assert sum(w in texts for w in drawn) >= 10, drawn
    assert not set(untrained) & set(texts), "the control: an untrained model"
    augmented = [a != b for a, b in zip(drawn, [row["text"] for row in rows] * 4, strict=True)]
    assert any(augmented), "a sample that is another example"


def written(task: LanguageModeling, backbone: Any, rows: Any, **options: Any) -> list[str]:
    batch = prepare_batch(task, rows, decoder=backbone, training=False)
    predictions = task.predict(batch, StubContext({}).on(backbone), write=True, **options)
    return [prediction["text"] for prediction in predictions]
