"""Spans of a text that another encoder reads, in a decoder's row in place of their tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.tasks.language import LanguageModeling
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import GPT2, backbone_of, encoder_of

ROWS = [{"text": "a red circle and a blue square"}, {"text": "two small words here"}]


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return backbone_of("causal", GPT2)


def task_of(backbone: Any, encoder: Any, **options: Any) -> LanguageModeling:
    task = LanguageModeling(dock="span", **options)
    torch.manual_seed(1)
    task.build({"span.encoder": encoder.dim}, {"backbone": backbone})
    return task


def context_of(backbone: Any, encoder: Any) -> StubContext:
    context = StubContext({}).on(backbone)
    context.encoders = {"span": encoder}
    return context


def scored(task: LanguageModeling, backbone: Any, encoder: Any, batch: Any) -> torch.Tensor:
    return task._scores(batch, context_of(backbone, encoder))[0].detach()


def encoders() -> dict[str, Any]:
    from sensorium.modalities.text.encoders.averaging import DeepAveraging
    from sensorium.modalities.text.encoders.hashed import HashedText
    from sensorium.modalities.text.tokenizers import Bytes

    return {
        "bert": encoder_of(),
        "averaging": DeepAveraging(tokenizer=Bytes(), dim=8),
        "hashed": HashedText(dim=8),
    }


@pytest.mark.parametrize("name", ["bert", "averaging", "hashed"])
def test_any_encoder_of_texts_docks(name: str, gpt2: Any) -> None:
    """The loss is finite, of the tokens outside of the spans alone, and reaches the encoder."""
    encoder = encoders()[name]
    task = task_of(gpt2, encoder, noise_density=0.4)
    batch = prepare_batch(task, ROWS, decoder=gpt2)
    loss = task.loss(batch, context_of(gpt2, encoder))
    spans = [span for reference in batch.references for span in reference["docked"]]
    inside = sum(span["stop"] - span["start"] for span in spans)
    assert inside and int(loss.count) == sum(len(r["text"]) + 1 for r in ROWS) - inside
    assert torch.isfinite(loss.total)
    loss.total.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())


def test_a_span_is_read_both_ways_and_seen_by_what_follows_alone(gpt2: Any) -> None:
    encoder = encoder_of()
    task = task_of(gpt2, encoder)
    batch = prepare_batch(task, ROWS[:1], decoder=gpt2)
    text = ROWS[0]["text"]
    batch.references[0]["docked"] = [{"start": 6, "stop": 12, "text": text[6:12]}]
    before = scored(task, gpt2, encoder, batch)
    batch.references[0]["docked"] = [{"start": 6, "stop": 12, "text": text[6:11] + "X"}]
    after = scored(task, gpt2, encoder, batch)
    moved = (before - after).abs() > 1e-6
    assert not moved[:6].any() and moved[6:].all()
    context = context_of(gpt2, encoder)
    assert task.dock is not None
    states = [task.dock.encode(context, [t], torch.device("cpu"))[0] for t in ("abcd", "abcX")]
    assert not torch.allclose(states[0][0], states[1][0], atol=1e-5), "it looks ahead"


def test_without_a_span_the_loss_is_causal(gpt2: Any) -> None:
    encoder = encoder_of()
    task = task_of(gpt2, encoder)
    batch = prepare_batch(task, ROWS, decoder=gpt2)
    for reference in batch.references:
        reference["docked"] = []
    causal = LanguageModeling()
    causal.build({}, {"backbone": gpt2})
    plain = causal._scores(prepare_batch(causal, ROWS, decoder=gpt2), StubContext({}).on(gpt2))[0]
    docked = scored(task, gpt2, encoder, batch)
    torch.testing.assert_close(docked, plain.detach(), atol=1e-5, rtol=1e-5)


def test_an_evaluation_draws_by_the_text_alone(gpt2: Any) -> None:
    encoder = encoder_of()
    task = task_of(gpt2, encoder)
    batches = [prepare_batch(task, ROWS, decoder=gpt2, training=False) for _ in range(2)]
    assert batches[0].references == batches[1].references
    predictions = task.predict(batches[0], context_of(gpt2, encoder))
    for row, prediction, reference in zip(ROWS, predictions, batches[0].references, strict=True):
        inside = sum(span["stop"] - span["start"] for span in reference["docked"])
        assert prediction["scores"]["causal"]["tokens"] == len(row["text"]) + 1 - inside
    with pytest.raises(ValueError, match="dock: takes `objectives"):
        LanguageModeling(dock="span", objectives={"prefix": 1.0})
