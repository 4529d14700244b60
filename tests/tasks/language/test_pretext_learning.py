"""Disposable decoders learn from the encoder's vector: without it, or with another's, they fail."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from sensorium.modalities.base import Features
from sensorium.tasks.language.masked import MaskedLM
from sensorium.tasks.language.masked.pretext import effective_rank
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.language.test_pretext import (
    ROWS,
    SECTIONS,
    encoded_of,
    loss_of,
    task_of,
)
from sensorium.tests.tasks.language.tiny import TEXTS, encoder_of, text_batch


@pytest.fixture(scope="module")
def trained() -> tuple[MaskedLM, Any]:
    """An encoder that learned five texts by all decoders of its vector."""
    encoder = encoder_of()
    windows = [{"type": "weak", "window": w, "layers": 1} for w in (0, 8)]
    task = task_of(*windows, {"type": "enhanced"}, SECTIONS, mask_prob=0.15)
    parameters = [*encoder.parameters(), *task.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    batch = text_batch(task, ROWS, encoder)
    context = StubContext({}).reading("text", encoder, TEXTS)
    for _ in range(140):
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    return task, encoder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weak", "weak2", "enhanced", "sections"])
def test_the_vector_is_needed(trained: Any, name: str) -> None:
    """Zeroed, or another text's, it raises the loss of what was learned from it."""
    task, encoder = trained
    encoded = encoded_of(task, encoder)
    part: Any = task.pretext[name]
    best = float(loss_of(part, encoded).detach())
    for vector in (torch.zeros_like(encoded.vector), encoded.vector.roll(1, 0)):
        features = encoded.features.replace(pooled=vector)
        other = loss_of(part, replace(encoded, features=features))
        assert float(other.detach()) > best + 0.02, name


@pytest.mark.slow
def test_the_shorter_the_window_the_more_the_vector_is_needed(trained: Any) -> None:
    task, encoder = trained
    encoded = encoded_of(task, encoder)
    swapped = encoded.features.replace(pooled=encoded.vector.roll(1, 0))
    rises = []
    for name in ("weak", "weak2"):  # windows 0 and 8
        part: Any = task.pretext[name]
        best, other = (loss_of(part, e) for e in (encoded, replace(encoded, features=swapped)))
        rises.append(float((other - best).detach()))
    assert rises[0] > rises[1]


def test_a_condenser_learns_from_the_vector_what_early_states_lack() -> None:
    """Texts whose tokens are all masked have equal early states; their vectors alone differ."""
    options = {"mask_prob": 0.99, "random_prob": 0.0, "keep_prob": 0.0}
    task = task_of({"type": "condenser", "early": 0, "layers": 1}, **options)
    texts = ["abcdef", "ghijkl", "mnopqr", "stuvwx"]
    losses = {}
    for known in (1.0, 0.0):
        encoder, head = encoder_of(), copy.deepcopy(task.pretext["condenser"])
        context = StubContext({}).reading("text", encoder, texts)
        batch = text_batch(task, [{}] * len(texts), encoder)
        encoded = task.encode(batch, context, torch.Generator().manual_seed(0))
        encoded = replace(encoded, features=_detached(encoded.features))
        vectors = known * torch.randn(len(texts), 16)
        optimizer = torch.optim.AdamW([*head.parameters(), *encoder.parameters()], lr=2e-2)
        coded = replace(encoded, features=encoded.features.replace(pooled=vectors))
        for _ in range(40):
            loss = loss_of(head, coded)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[known] = float(loss.detach())
        if known:
            zeroed = encoded.features.replace(pooled=torch.zeros_like(vectors))
            assert float(loss_of(head, replace(encoded, features=zeroed)).detach()) > losses[known]
    assert losses[1.0] < losses[0.0] - 0.1


def _detached(features: Features) -> Features:
    layers = tuple(_detached(layer) for layer in features.hidden_states)
    return features.replace(
        tokens=features.tokens.detach(), pooled=features.tokens[:, 0].detach(), hidden_states=layers
    )


WORDS = ["red", "blue", "circle", "square", "small", "big", "one", "two", "cat", "dog"]


def rank_after(*sections: dict[str, Any], **options: Any) -> float:
    """Return the effective rank of the states of real tokens after a short training."""
    encoder = encoder_of("bert", hidden_size=32, intermediate_size=64)
    task = MaskedLM(pretext=list(sections), mask_prob=0.4, **options)
    torch.manual_seed(0)
    task.build({"text": 32, "text.encoder": 32}, {})
    optimizer = torch.optim.AdamW([*encoder.parameters(), *task.parameters()], lr=5e-3)
    draws = random.Random(0)
    for step in range(61):
        texts = [" ".join(draws.choices(WORDS, k=5)) for _ in range(8)]
        context = StubContext({}).reading("text", encoder, texts)
        context.generator.manual_seed(step)
        batch = text_batch(task, [{}] * len(texts), encoder)
        if step == 60:
            text = task.encode(batch, context, None).text
            states = encoder(ids=text.ids, mask=text.mask).tokens.detach()
            return effective_rank(states[~text.special])
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    raise AssertionError


@pytest.mark.slow
def test_the_effective_rank_rises_without_mask_tokens_in_the_encoder() -> None:
    """MAE-LM: real tokens use more of the width than those of the same encoder that learned with
    mask tokens among them, by the same texts, seed and steps."""
    assert rank_after({"type": "visible"}, weight=0.0) > 1.3 * rank_after()
