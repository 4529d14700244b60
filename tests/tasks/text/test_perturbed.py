"""Decoder pre-training from texts: the noise, and what it is worth when the tower is swapped."""

from __future__ import annotations

import copy

import pytest
import torch

from sensorium.backbones.base import Backbone
from sensorium.modalities.base import Features
from sensorium.tasks.text.captioning import Captioning
from sensorium.tasks.text.perturbed import PerturbedCaptioning, perturb
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import GPT2, backbone_of

WIDTH, LENGTH = 16, 3


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def words(count: int, seed: int) -> list[str]:
    drawn = torch.randint(6, (count, LENGTH), generator=seeded(seed))
    return ["".join("abcdef"[i] for i in row) for row in drawn.tolist()]


LETTERS = torch.randn(6, WIDTH, generator=seeded(0))
PLACES = torch.randn(LENGTH, WIDTH, generator=seeded(1))
GAP = 0.3 * torch.randn(WIDTH, generator=seeded(2))


def text_tower(texts: list[str]) -> Features:
    """A vector for each letter at its place."""
    ids = torch.tensor([["abcdef".index(c) for c in text] for text in texts])
    return Features.dense(LETTERS[ids] + PLACES)


def image_tower(texts: list[str], seed: int) -> Features:
    """The same, as a tower that was aligned with it has it: moved by a gap, and noisy."""
    tokens = text_tower(texts).tokens
    return Features.dense(tokens + GAP + 0.3 * torch.randn(tokens.shape, generator=seeded(seed)))


def test_the_noise_is_that_of_real_tokens_and_small() -> None:
    features = Features.dense(torch.zeros(3, 5, 2))
    mask = torch.tensor([[True, False], [True, True]])
    noise = Features(torch.tensor([[[1.0, 1], [9, 9]], [[2, 2], [3, 3]]]), mask)
    values = set()
    for seed in range(20):
        values |= set(perturb(features, noise, 0.1, seeded(seed)).tokens.flatten().tolist())
    assert {round(v, 4) for v in values} == {0.1, 0.2, 0.3}  # never the padding's 0.9
    assert torch.equal(perturb(features, noise, 0.0, seeded(0)).tokens, features.tokens)


def test_the_mean_effect_is_within_a_tenth_of_the_norm() -> None:
    texts = words(50, 3)
    features, noise = text_tower(texts), image_tower(words(50, 4), 5)
    changed = perturb(features, noise, 0.1, seeded(0))
    effect = (changed.tokens - features.tokens).norm(dim=-1).mean()
    assert 0.05 < float(effect / features.tokens.norm(dim=-1).mean()) < 0.15


def trained(
    backbone: Backbone, task: Captioning, texts: list[str], streams: dict[str, Features], steps: int
) -> None:
    batch = prepare_batch(task, [{"caption": text} for text in texts], decoder=backbone)
    context = StubContext(streams).on(backbone)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()


@pytest.mark.slow
def test_a_decoder_that_learned_from_texts_reads_pictures_sooner() -> None:
    """The same few steps on a few pictures, with and without the pre-training; and without any
    step on pictures, the decoder of texts reads more of them than chance."""
    texts = words(128, 6)
    start = backbone_of("causal", GPT2)
    first = PerturbedCaptioning(prompt="<text>", noise="image")
    pretrained = copy.deepcopy(start)
    streams = {"text": text_tower(texts), "image": image_tower(words(128, 7), 8)}
    trained(pretrained, first, texts, streams, 250)
    second = Captioning(prompt="<image>", max_new_tokens=LENGTH + 1)
    few, unseen = words(16, 9), words(64, 10)
    scores = {}
    for name, backbone in (("with", pretrained), ("without", start)):
        for steps in (0, 20):
            tuned = copy.deepcopy(backbone)
            trained(tuned, second, few, {"image": image_tower(few, 11)}, steps)
            batch = prepare_batch(second, [{} for _ in unseen], decoder=tuned, training=False)
            context = StubContext({"image": image_tower(unseen, 12)}).on(tuned)
            written = [row["text"] for row in second.predict(batch, context)]
            letters = [
                a == b
                for text, other in zip(unseen, written, strict=True)
                for a, b in zip(text, other.ljust(LENGTH), strict=False)
            ]
            scores[name, steps] = sum(letters) / len(letters)
    assert scores["with", 0] > 0.5 and scores["without", 0] < 0.3
    assert scores["with", 20] > scores["without", 20] + 0.2


def test_the_noise_is_another_stream() -> None:
    for prompt in ("<image>", "read:"):
        with pytest.raises(ValueError, match="noise: found 'image' with the prompt"):
            PerturbedCaptioning(prompt=prompt, noise="image")
