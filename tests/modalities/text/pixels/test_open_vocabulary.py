"""Words without a vocabulary: hashed features, and pixels in place of many pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.recipe import ComponentPath, Section, find, plan_part
from sensorium.modalities.base import Encoder, ReadError
from sensorium.modalities.text.encoders.hashed import HashedText, hashed_features

BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
INNER = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 64}

FIRST = [1, 0, 0, 1, 0, 1, 1, -1]
"""Of `robot`."""


def encoder(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    section = Section.model_validate({"type": kind, **options})
    part = find("text_encoder", kind, "x")
    return plan_part(part, section, "text_encoder", ComponentPath("encoder")).build().eval()


def encode(part: Encoder, texts: list[str]) -> Any:
    with torch.no_grad():
        return part(**part.collate([part.processor.prepare(text) for text in texts]))


def test_a_word_has_the_same_features_everywhere() -> None:
    """Written down once: the hash is that of the letters, not of a process or a machine."""
    features = hashed_features("robot", 1000)
    assert features[:16].tolist() == hashed_features("robot", 16).tolist()
    assert hashed_features("robot", 8).tolist() == FIRST
    assert set(np.unique(features)) == {-1, 0, 1} and 0.4 < (features == 0).mean() < 0.6
    other = hashed_features("robots", 1000)
    assert abs(np.corrcoef(features, other)[0, 1]) < 0.1


def test_hashed_text_has_no_table_of_words() -> None:
    """The same number of bytes for any texts; a word never seen is a vector of its own."""
    part = HashedText(features=64, dim=8, depth=1).eval()
    size = sum(p.numel() * p.element_size() for p in part.parameters())
    assert size == 4 * (64 * 8 + 8 + 16 + 2 * (3 * 4 * 8 + 3 * 4 * 4 + 24))
    tokens = encode(part, ["a zyxw b", "a wxyz b"]).tokens
    assert not torch.allclose(tokens[0], tokens[1])
    with pytest.raises(ReadError, match="it has no word"):
        part.processor.prepare(" ")
    with pytest.raises(ValueError, match="dim: found 7, expected an even number"):
        HashedText(dim=7)


@pytest.fixture(scope="module")
def fallback() -> Any:
    return encoder("fallback", encoder=INNER, max_pieces=5)


def test_words_of_the_vocabulary_are_encoded_bit_for_bit(fallback: Any) -> None:
    texts = ["a red cat", "two cats"]
    assert torch.equal(encode(fallback, texts).tokens, encode(fallback.encoder, texts).tokens)


def test_a_drawn_word_is_one_token_and_others_keep_theirs(fallback: Any) -> None:
    text = "a красный кот"
    sample = fallback.processor.prepare(text)
    whole = fallback.encoder.processor.prepare(text)["ids"]
    assert len(sample["ids"]) == 2 + 1 + 2 < len(whole)  # ends, `a`, two words
    assert sample["places"].tolist() == [2, 3]
    first, second, third = (encode(fallback, [t]).tokens[0] for t in (text, text, "a красные кот"))
    assert torch.equal(first, second) and not torch.allclose(first, third)


def test_a_text_is_the_same_beside_others(fallback: Any) -> None:
    texts = ["a красный кот", "a cat", "дом"]
    together = encode(fallback, texts)
    for row, text in enumerate(texts):
        alone = encode(fallback, [text]).tokens[0]
        tokens = together.tokens[row, : len(alone)]
        torch.testing.assert_close(tokens, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_script_never_seen_is_told_apart_by_its_pixels(fallback: Any) -> None:
    """With the language model frozen, the loss of a classifier of words of another script falls
    through the pixels' encoder alone."""
    texts, labels = ["красный", "зеленый", "голубой", "оранжевый"], torch.arange(4)
    fallback.encoder.requires_grad_(False)
    head = torch.nn.Linear(16, 4)
    trained = [*fallback.pixels.parameters(), *fallback.project.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    batch = fallback.collate([fallback.processor.prepare(text) for text in texts])
    before = {name: p.clone() for name, p in fallback.encoder.named_parameters()}
    losses = []
    for _ in range(200):
        loss = torch.nn.functional.cross_entropy(head(fallback(**batch).mean()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 < 1.2 < losses[0]
    assert all(torch.equal(p, before[name]) for name, p in fallback.encoder.named_parameters())
    blank = {**batch, "strips": torch.full_like(batch["strips"], 255)}
    control = torch.nn.functional.cross_entropy(head(fallback(**blank).mean()), labels)
    assert float(control) > 1  # without the pixels it is chance


def test_an_encoder_without_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder: reads no embeddings"):
        encoder("fallback", encoder={"type": "rendered"})
