"""Systems around a frozen generator: an encoder that learns through it (VLV), and a language model
with image tokens (GILL)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.causal import Causal
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tasks.base import Batch, Example
from sensorium.tasks.generation.generation import Generation
from sensorium.tasks.generation.image_tokens import CHOICES, ImageTokens
from sensorium.testing.context import StubContext, prepare_batch

WIDTH, SIDE, KINDS = 16, 8, 4
NAMES = ("red", "blue", "grey", "lilac")


def pictures(kinds: Tensor) -> Tensor:
    """`[B, 8, 8, 3]`: one quarter is bright, which one tells the kind."""
    values = torch.full((len(kinds), 2, 2, 3), -0.7)
    values[torch.arange(len(kinds)), kinds // 2, kinds % 2] = 0.7
    return values.repeat_interleave(SIDE // 2, 1).repeat_interleave(SIDE // 2, 2)


def words(kinds: Tensor) -> Features:
    """What the generator's own text encoder says of a kind."""
    return Features.dense(2 * F.one_hot(kinds, WIDTH).float()[:, None])


def pixels(kinds: Tensor) -> Features:
    return Features.dense(pictures(kinds).flatten(1, 2), grid=(SIDE, SIDE))


def train(parameters: Iterable[nn.Parameter], steps: int, loss: Any, lr: float = 3e-3) -> float:
    """Return the mean loss of the last steps."""
    optimizer, losses = torch.optim.AdamW(parameters, lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(float(value))
    return sum(losses[-30:]) / len(losses[-30:])


@pytest.fixture(scope="module")
def generator() -> Any:
    """A small generator that draws what `words` says, frozen."""
    diffusers = pytest.importorskip("sensorium.modalities.image.decoders.diffusers")
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "block_out_channels": [16, 32], "attention_head_dim": 2, "norm_num_groups": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": WIDTH,
    }  # fmt: skip
    decoder = diffusers.Diffusers(
        name="tiny-unet", options=options, size=SIDE, steps=6, condition_dropout=0.0,
        scheduler_options={"prediction_type": "sample"},
    )  # fmt: skip

    def loss() -> Tensor:
        kinds = torch.randint(KINDS, (32,))
        total: Tensor = decoder.loss(words(kinds), {"values": pictures(kinds)}).total / 32
        return total

    train(decoder.parameters(), 120, loss)
    return decoder.eval().requires_grad_(False)


def rows(count: int) -> Batch:
    return Batch.of("draw", [str(i) for i in range(count)], [Example() for _ in range(count)])


@pytest.mark.slow
def test_an_encoder_learns_through_a_frozen_generator_and_captions_from_it(generator: Any) -> None:
    """VLV, 2025. Stage one sees pictures alone; the generator stays as it was, bit by bit. Stage
    two learns captions from the frozen bottleneck; those of other rows' bottlenecks are wrong."""
    torch.manual_seed(0)
    before = copy.deepcopy(generator.state_dict())
    task = Generation(condition="image", target="pixels")

    def stage_one(encoder: nn.Module, shuffle: bool) -> float:
        def loss() -> Tensor:
            kinds = torch.randint(KINDS, (32,))
            seen = kinds[torch.randperm(32)] if shuffle else kinds
            condition = Features.dense(encoder(pictures(seen)))
            streams = {"image": condition, "pixels": pixels(kinds)}
            context = StubContext(streams).on(generator, "generator")
            return task.loss(rows(32), context).total / 32

        return train(encoder.parameters(), 100, loss)

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE * SIDE * 3, 32), nn.GELU(), nn.Linear(32, WIDTH),
            nn.Unflatten(1, (1, WIDTH)),
        )  # fmt: skip

    encoder = make()
    learned, control = stage_one(encoder, False), stage_one(make(), True)
    assert learned < 0.6 * control, (learned, control)
    after = generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())

    options = {
        "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    captioner = Causal(tokenizer=Bytes(), name="tiny-llama", options=options)
    bottleneck = Features.dense(encoder(pictures(torch.arange(KINDS))).detach())
    ids, mask = captioner.tokenizer.encode_batch(list(NAMES))
    ids = F.pad(ids, (0, 1), value=captioner.tokenizer.eos_id)
    mask = F.pad(mask, (1, 0), value=True)
    ids = ids.masked_fill(~F.pad(mask[:, 1:], (0, 1), value=False), captioner.tokenizer.eos_id)
    target = {"ids": ids, "mask": mask}
    train(captioner.parameters(), 150, lambda: captioner.loss(bottleneck, target).total, 1e-2)
    captioner.eval()

    def captions(features: Features) -> list[str]:
        eos = captioner.tokenizer.eos_id
        written = captioner.generate(features, max_new_tokens=7).tolist()
        return [captioner.tokenizer.decode([*r, eos][: [*r, eos].index(eos)]) for r in written]

    assert captions(bottleneck) == list(NAMES)
    other = bottleneck.replace(tokens=bottleneck.tokens.roll(1, 0))
    assert not set(zip(captions(other), NAMES, strict=True)) & {(n, n) for n in NAMES}


def language_model() -> Causal:
    torch.manual_seed(0)
    options = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    return Causal(tokenizer=Bytes(), name="tiny-llama", options=options)


@pytest.mark.slow
def test_image_tokens_retrieve_or_generate(generator: Any) -> None:
    """GILL, 2023: the language model is frozen but for the new rows, text keeps its logits; its
    image tokens find the picture and condition the generator, and a classifier decides."""
    model = language_model()
    task = ImageTokens(
        prompt="{name}", generator="generator", decide="way", tokens=2, queries=1, dim=16
    )
    model.requires_grad_(False)
    ids = torch.randint(97, 123, (2, 6))
    with torch.no_grad():
        text = model.logits(model(model.embed(ids)), torch.arange(256))
    task.build({"image": 192, "condition": WIDTH}, {"backbone": model, "generator": generator})
    model.unfreeze_added_tokens()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    kinds = torch.arange(KINDS)
    ways = [CHOICES[i % 2] for i in range(KINDS)]
    table = [{"name": n, "way": w} for n, w in zip(NAMES, ways, strict=True)]
    batch = prepare_batch(task, table, decoder=model)
    image = Features.dense(pictures(kinds).flatten(1)[:, None])
    context = StubContext({"image": image, "condition": words(kinds)}, model)
    context.decoders["generator"] = generator
    learning = [*task.parameters(), *(p for p in model.parameters() if p.requires_grad)]
    train(learning, 200, lambda: task.loss(batch, context).total / KINDS)
    task.eval()
    batch.features = {"image": image}
    metrics = task.metrics()
    predictions = task.predict(batch, context)
    metrics.update(predictions, batch.references)
    assert metrics.compute() == {"recall@1": 1.0, "decision_accuracy": 1.0}
    with torch.no_grad():
        samples = generator.generate(task.mapped(task.states(batch, context)[1]))
        after = model.logits(model(model.embed(ids)), torch.arange(256))
    errors = torch.cdist(samples.flatten(1), pictures(kinds).flatten(1))
    assert torch.equal(errors.argmin(1), kinds), "each text draws its own picture"
    assert torch.equal(after, text), "logits of text"
    same = dict(model.named_parameters())
    assert all(torch.equal(same[name], value) for name, value in frozen.items())
    assert all(row["image"].startswith("data:image/png") for row in predictions)


def test_a_decision_of_another_word_is_refused() -> None:
    task, model = ImageTokens(prompt="{name}", decide="way"), language_model()
    with pytest.raises(ValueError, match="way: found 'paint', expected retrieve or generate"):
        prepare_batch(task, [{"name": "a", "way": "paint"}], decoder=model)


def test_more_tokens_of_a_condition_than_queries_are_refused() -> None:
    task, model = ImageTokens(prompt="{name}", queries=1, tokens=2), language_model()
    task.build({"image": 4, "condition": 4}, {"backbone": model})
    features = {name: Features.dense(torch.zeros(1, 3, 4)) for name in ("image", "condition")}
    batch = prepare_batch(task, [{"name": "a"}], decoder=model)
    with pytest.raises(ValueError, match="queries: found 1, the condition has 3 tokens"):
        task.loss(batch, StubContext(features, model))
