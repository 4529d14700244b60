"""A channel of characters beside pieces, and misspelt words that it helps to restore (CharBERT)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.modalities.text.encoders.characters import CharacterChannel, spellings
from sensorium.modalities.text.tokenizers import BPE
from sensorium.modalities.text.transformers import TransformersText
from sensorium.tasks.language.masked import MaskedLM
from sensorium.tasks.language.masked.pretext.misspelt import misspell
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.language.tiny import SMALL, text_batch

WORDS = ["garden", "window", "bridge", "planet", "silver", "market", "forest", "castle"]


@pytest.fixture(scope="module")
def tokenizer() -> BPE:
    fitted = BPE(size=340)
    fitted.fit([f"{first} {second}" for first in WORDS for second in WORDS])
    return fitted


def bert(tokenizer: BPE) -> TransformersText:
    torch.manual_seed(0)
    config = {"model_type": "bert", **SMALL, "hidden_size": 32, "intermediate_size": 32}
    return TransformersText(config=config, tokenizer=tokenizer, max_length=60, lm_head=True).eval()


def test_a_new_channel_leaves_the_encoder_as_it_is(tokenizer: BPE) -> None:
    plain = bert(tokenizer)
    channel = CharacterChannel(encoder=plain, char_dim=8).eval()
    batch = channel.collate([channel.processor.prepare(text) for text in ("garden bridge", "x")])
    torch.testing.assert_close(channel(**batch).tokens, plain(**batch).tokens)
    for fusion in channel.fusions:
        torch.nn.init.normal_(fusion.token_out.weight, std=0.5)
    changed = channel(**batch).tokens
    assert not torch.allclose(changed[:, 1], plain(**batch).tokens[:, 1], atol=1e-3)
    alone = channel(**{name: value[1:, :3] for name, value in batch.items()}).tokens
    torch.testing.assert_close(alone, changed[1:, :3], atol=1e-5, rtol=1e-5)


def test_pieces_are_spelt_and_a_masked_one_is_not(tokenizer: BPE) -> None:
    table, text = spellings(tokenizer), "garden markt"
    ids = tokenizer.encode(text)
    spelt = b"".join(bytes(row[row > 0] - 1) for row in table[ids])
    assert spelt.decode().strip() == text
    special = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id]
    assert not table[special].any()
    channel = CharacterChannel(encoder=bert(tokenizer), char_dim=8)
    masked = torch.tensor([[*ids, tokenizer.mask_id]])
    states = channel.characters(masked, torch.ones_like(masked, dtype=torch.bool))
    assert not states[0, -1].any() and bool(states[0, :-1].any(-1).all())


def test_a_misspelt_word_is_another_one_by_a_letter() -> None:
    rng = np.random.default_rng(0)
    for word in WORDS * 10:
        wrong = misspell(word, rng)
        assert wrong != word and abs(len(wrong) - len(word)) <= 1
        assert len(set(word) - set(wrong)) <= 1


def restored(tokenizer: BPE, steps: int) -> float:
    """Return the share of misspelt words that are restored behind a training."""
    encoder: Any = CharacterChannel(encoder=bert(tokenizer), char_dim=8)
    task = MaskedLM(mask_prob=0.0, weight=0.0, pretext=[{"type": "misspelt"}])
    torch.manual_seed(2)
    task.build({"text": 32, "text.encoder": 32}, {})
    optimizer = torch.optim.AdamW([*encoder.parameters(), *task.parameters()], lr=5e-3)
    rows = [{"text": f"{word} {other}"} for word, other in pairwise(WORDS)]
    context = StubContext({}).reading("text", encoder, [row["text"] for row in rows])
    for _ in range(steps):
        loss = task.loss(text_batch(task, rows, encoder), context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    with torch.no_grad():
        metrics = task.metrics()
        metrics.update(task.predict(text_batch(task, rows, encoder), context), rows)
    return metrics.compute()["misspelt_accuracy"]


@pytest.mark.slow
def test_misspelt_words_are_restored_once_it_has_learned() -> None:
    fitted = BPE(size=340)
    fitted.fit([f"{first} {second}" for first in WORDS for second in WORDS])
    assert restored(fitted, 40) > 0.9 > 0.2 >= restored(fitted, 0)


def accuracies(tokenizer: BPE, channel: bool) -> tuple[float, float]:
    """Return the accuracy of telling words apart, right ones and misspelt ones, behind a training
    by right ones alone."""
    encoder: Any = bert(tokenizer)
    if channel:
        torch.manual_seed(1)
        encoder = CharacterChannel(encoder=encoder, char_dim=16)
    head = torch.nn.Linear(32, len(WORDS))

    def scores(texts: list[str]) -> torch.Tensor:
        features = encoder(**encoder.collate([encoder.processor.prepare(t) for t in texts]))
        return head(features.tokens.sum(1) / features.mask.sum(1, keepdim=True))

    labels = torch.arange(len(WORDS))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(scores(WORDS), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rng = np.random.default_rng(0)
    wrong = [misspell(word, rng) for _ in range(12) for word in WORDS]
    with torch.no_grad():
        right = (scores(WORDS).argmax(1) == labels).float().mean()
        noisy = (scores(wrong).argmax(1) == labels.repeat(12)).float().mean()
    return float(right), float(noisy)


@pytest.mark.slow
def test_a_misspelt_word_is_known_by_its_characters(tokenizer: BPE) -> None:
    """Learned from right words alone; the control is the same encoder without the channel, to which
    the pieces of a misspelt word are new."""
    (right, noisy), (right_alone, noisy_alone) = (accuracies(tokenizer, c) for c in (True, False))
    assert right == right_alone == 1
    assert noisy > noisy_alone + 0.2, (noisy, noisy_alone)
