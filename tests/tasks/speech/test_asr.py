"""Transcription by the shared decoder: references, metrics, two streams at their own rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.connectors.shorteners import FrameStack
from sensorium.modalities.base import Features
from sensorium.tasks.common import assemble
from sensorium.tasks.speech import ASR
from sensorium.tasks.speech.asr import TranscriptMetrics
from sensorium.testing.context import StubContext, prepare_batch


def test_the_reference_is_the_transcript_if_the_row_has_one(backbone: Any) -> None:
    task = ASR(prompt="<audio> Transcribe the {language} speech:")
    row = {"text": "good day", "language": "english"}
    batch = prepare_batch(task, [row], decoder=backbone)
    assert batch.references == [{"text": "good day", "references": ["good day"]}]
    ids = batch.labels["prompt.1"][0].tolist()
    assert backbone.tokenizer.decode(ids) == " Transcribe the english speech:"
    requested = prepare_batch(task, [{"language": "english"}], decoder=backbone)
    assert "text" not in requested.references[0] and "target" not in requested.labels
    assert task.columns() == ("language", "text")
    with pytest.raises(ValueError, match="holds 2 texts, expected one transcript"):
        prepare_batch(task, [{**row, "text": ["good day", "good night"]}], decoder=backbone)


def test_metrics_are_word_errors_after_the_normaliser_that_is_named() -> None:
    expected = [{"text": "One, two three."}, {"text": "four"}]
    prediction = [{"text": "one two four"}, {"text": "four"}]
    metrics = ASR(prompt="<audio>").metrics()
    metrics.update(prediction, expected)
    assert metrics.compute()["wer"] == pytest.approx(1 / 4)
    plain = ASR(prompt="<audio>", normalizer="none").metrics()
    plain.update(prediction, expected)
    assert plain.compute()["wer"] == pytest.approx(2 / 4)
    assert "passes" not in metrics.compute()


def test_passes_are_averaged_where_predictions_count_them() -> None:
    metrics = TranscriptMetrics()
    prediction = [{"text": "a", "passes": 2}, {"text": "b", "passes": 5}]
    metrics.update(prediction, [{"text": "a"}, {"text": "b"}])
    assert metrics.compute()["passes"] == 3.5


def test_two_streams_each_have_a_compression_of_their_own(backbone: Any) -> None:
    torch.manual_seed(0)
    audio, lips = FrameStack(12, 16, factor=4), FrameStack(8, 16, factor=2, depth=2)
    streams = {
        "audio": audio(Features.dense(torch.randn(2, 10, 12), grid=(10,))),
        "lips": lips(Features.dense(torch.randn(2, 5, 8), grid=(5,))),
    }

    task = ASR(prompt="<audio><lips>", max_new_tokens=3)
    assert tuple(task.streams) == ("audio", "lips")
    batch = prepare_batch(task, [{"text": t} for t in ("ab", "c")], decoder=backbone)
    ctx = StubContext(streams, backbone)
    context = assemble(task.prompt.streams, batch, ctx)
    assert context.lengths.tolist() == [1 + 3 + 3] * 2  # bos, ceil(10 / 4), ceil(5 / 2)
    task.loss(batch, ctx).total.backward()
    for part in (audio, lips):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters())
