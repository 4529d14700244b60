"""Documents as vectors of sentences, keyphrases, and facts of entities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.language.masked import MaskedLM
from sensorium.tasks.language.masked.pretext.document import triplets
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.language.masked.test_docked import learn, task_of
from sensorium.tests.tasks.language.tiny import encoder_of, text_batch

PATHS = ["news/sport", "news/politics", "science"]
DOCUMENTS = [path for path in PATHS for _ in range(4)]
CENTRES = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
TERMS = (
    {"type": "triplet", "column": "path"},
    {"type": "hierarchy", "column": "path", "paths": PATHS},
)


def sentences(seed: int, paths: list[str] = DOCUMENTS) -> tuple[Features, torch.Tensor]:
    """Vectors of one to three sentences a document, near the centre of its path."""
    draws = torch.Generator().manual_seed(seed)
    counts = torch.tensor([1 + i % 3 for i in range(len(paths))])
    centres = CENTRES[[PATHS.index(path) for path in paths]].repeat_interleave(counts, 0)
    tokens = centres + 0.5 * torch.randn(centres.shape, generator=draws)
    return Features.dense(tokens[:, None]), counts


def document_batch(
    task: MaskedLM, encoder: Any, seed: int, paths: list[str] = DOCUMENTS
) -> tuple[Batch, StubContext]:
    features, counts = sentences(seed, paths)
    batch = text_batch(task, [{"path": path} for path in paths], encoder)
    batch.items["sentences"] = counts
    context = StubContext({"sentences": features}).reading("text", encoder, [""] * len(paths))
    return batch, context


def test_a_sentence_is_a_token() -> None:
    encoder = encoder_of()
    task = task_of(*TERMS, items=["sentences"], weight=0.0)
    batch, context = document_batch(task, encoder, 0)
    assert task.streams["sentences"].many
    docked = task.docking.dock(batch, context)
    assert docked is not None
    assert docked.mask.sum(1).tolist() == batch.items["sentences"].tolist()
    features = context.features["sentences"].tokens[:, 0]
    assert torch.equal(docked.embeds[docked.mask], features)


def test_the_triplet_is_of_the_hardest_partners() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    values, usable = triplets(vectors, torch.tensor([1, 1, 2, 3]), 0.1)
    assert usable.tolist() == [True, True, False, False]
    near = float(1 - F.cosine_similarity(vectors[0], vectors[2], dim=0))
    assert float(values[0]) == pytest.approx(1.0 - near + 0.1, rel=1e-4)


@pytest.mark.slow
def test_an_encoder_learns_from_sentences_what_it_keeps_for_tokens() -> None:
    """FPDM: it learns from vectors of sentences, its tensors are those of a reader of tokens, and
    the categories of documents never seen are told; not those of vectors of another category."""
    encoder = encoder_of()
    names = set(encoder.state_dict())
    task = task_of(*TERMS, items=["sentences"], weight=0.0)
    learn(task, encoder, lambda step: document_batch(task, encoder, step), 60)
    assert set(encoder.state_dict()) == names
    part: Any = task.pretext["hierarchy"]
    accuracy = {}
    for name, shown in (("right", DOCUMENTS), ("control", DOCUMENTS[4:] + DOCUMENTS[:4])):
        batch, _ = document_batch(task, encoder, 999)
        _, context = document_batch(task, encoder, 999, shown)
        batch.items["sentences"] = sentences(999, shown)[1]
        encoded = task.encode(batch, context, None)
        hits = part.heads[0](encoded.vector).argmax(-1)
        labels = encoded.labels["hierarchy.nodes"][0][:, 0]
        accuracy[name] = float((hits == labels).float().mean())
    assert accuracy["right"] > 0.9 > accuracy["control"] + 0.3, accuracy
    tokens = task_of()
    context = StubContext({}).reading("text", encoder, ["a text", "another"])
    loss = tokens.loss(text_batch(tokens, [{}, {}], encoder), context)
    assert torch.isfinite(loss.total), "the same encoder reads tokens"


TEXTS = ["the red circle is here", "we saw a blue square", "one green star and", "a pink cube or"]
KEYS = ["red circle", "blue square", "green star", "pink cube"]
KEYED = [{"text": text, "keys": key} for text, key in zip(TEXTS, KEYS, strict=True)]
PHRASES = ({"type": "infilling", "column": "keys"}, {"type": "replaced_phrases", "column": "keys"})


def keyed(task: MaskedLM, encoder: Any) -> tuple[Batch, StubContext]:
    return text_batch(task, KEYED, encoder), StubContext({}).reading("text", encoder, TEXTS)


def test_one_mask_is_left_of_a_phrase() -> None:
    encoder = encoder_of()
    task = task_of(*PHRASES)
    encoded = task.encode(*keyed(task, encoder), torch.Generator().manual_seed(0))
    part: Any = task.pretext["infilling"]
    seen: list[torch.Tensor] = []
    original = encoder.forward

    def forward(ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
        seen.append(ids[mask])
        return original(ids, mask, **options)

    encoder.forward = forward
    _, lengths, _, _ = part.read(encoded)
    tokenizer = encoder.processor.tokenizer
    assert lengths.tolist() == [len(key) for key in KEYS]
    expected = [
        i
        for text, key in zip(TEXTS, KEYS, strict=True)
        for i in (
            tokenizer.bos_id,
            *tokenizer.encode(text.split(key)[0]),
            tokenizer.mask_id,
            *tokenizer.encode(text.split(key)[1]),
            tokenizer.eos_id,
        )
    ]
    assert seen[0].tolist() == expected


@pytest.mark.slow
def test_lengths_and_replaced_phrases_are_learned() -> None:
    """KBIR; the control is the same texts with what is told shuffled among them."""
    encoder = encoder_of()
    task = task_of(*PHRASES, weight=0.0)
    untrained = _measures(task, encoder)
    learn(task, encoder, lambda _: keyed(task, encoder), 120)
    trained = _measures(task, encoder)
    for name in ("infilling_length_accuracy", "replaced_phrases_accuracy"):
        assert trained[name] > 0.9 and trained[name] >= untrained[name], (trained, untrained)
    part: Any = task.pretext["replaced_phrases"]
    encoded = task.encode(*keyed(task, encoder), torch.Generator().manual_seed(0))
    scores, labels, _ = part.scores(encoded)
    assert float(((scores > 0) == (labels.roll(1) > 0)).float().mean()) < 0.5


def _measures(task: MaskedLM, encoder: Any) -> dict[str, float]:
    metrics = task.metrics()
    with torch.no_grad():
        metrics.update(task.predict(*keyed(task, encoder)), KEYED)
    return metrics.compute()


FACTS = [
    {
        "text": f"we met {head} in it",
        "triples": [{"head": head, "relation": "is a", "tail": tail}],
    }
    for head, tail in (("abba", "band"), ("otto", "man"), ("lima", "city"), ("mars", "god"))
]


def facts(task: MaskedLM, encoder: Any) -> tuple[Batch, StubContext]:
    texts = [row["text"] for row in FACTS]
    return text_batch(task, FACTS, encoder), StubContext({}).reading("text", encoder, texts)


def test_the_vector_of_an_entity_is_that_of_its_fact() -> None:
    """What was the entity's own is not read, what is of the fact is."""
    encoder = encoder_of()
    task = task_of({"type": "triples"}, mask_prob=0.0, weight=0.0)
    part: Any = task.pretext["triples"]
    batch, context = facts(task, encoder)
    encoded = task.encode(batch, context, None)
    base = part.losses(encoded).values
    places = encoded.labels["triples.place"][0]
    for key, index in (("text", int(places[0, 0])), ("text", int(places[0, 0]) - 2)):
        ids = encoded.text.ids.clone()
        ids[0, index] += 1
        changed = replace(encoded, text=encoded.text.with_ids(ids))
        same = torch.equal(part.losses(changed).values, base)
        assert same == (index >= int(places[0, 0])), (key, index)


@pytest.mark.slow
def test_facts_are_decoded_and_the_encoder_is_left_as_it_is() -> None:
    """DKPLM: the tail is written from the entity's state; with another row's fact in its place it
    is not; the encoder's tensors are those that it had, and it reads texts without any fact."""
    encoder = encoder_of()
    names = set(encoder.state_dict())
    task = task_of({"type": "triples"}, mask_prob=0.15)
    learn(task, encoder, lambda _: facts(task, encoder), 100)
    assert set(encoder.state_dict()) == names
    part: Any = task.pretext["triples"]
    encoded = task.encode(*facts(task, encoder), torch.Generator().manual_seed(0))
    right = float(part.losses(encoded).mean().detach())
    mean = part.mean
    part.mean = lambda e, key, rows: mean(e, key, rows.roll(1) if key == "tail" else rows)
    try:
        wrong = float(part.losses(encoded).mean().detach())
    finally:
        del part.mean
    assert right < 0.5 < wrong, (right, wrong)
    alone = task_of(mask_prob=0.15)
    context = StubContext({}).reading("text", encoder, [row["text"] for row in FACTS])
    predictions = alone.predict(text_batch(alone, [{}] * len(FACTS), encoder, False), context)
    assert all(np.isfinite(p["scores"]["masked"]["nll"]) for p in predictions)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"triples": [{"head": "x"}]},
            "triples: found .*, expected the texts head, rel",
        ),
        ({"path": "sport"}, "path: found 'sport', which paths does not list"),
    ],
)
def test_cells_are_checked(row: dict[str, Any], message: str) -> None:
    (section,) = [{"type": "triples"}] if "triples" in row else [TERMS[1]]
    with pytest.raises(ValueError, match=message) as error:
        text_batch(task_of(section), [{"text": "x y", **row}], encoder_of())
    assert "\n" not in str(error.value)
