"""A student and its frozen teacher: zero where they coincide, and what is learned of whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.contrastive.distillation import EmbeddingDistillation
from sensorium.testing.context import StubContext, prepare_batch

ROWS, DIM = 6, 8
LOSSES = ("mse", "cosine")


def vectors(seed: int, rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def features(vectors: torch.Tensor) -> Features:
    """Vectors as a stream gives them."""
    return Features.dense(vectors[:, None]).replace(pooled=vectors)


def batch(rows: int = ROWS) -> Batch:
    batch = Batch("match", [str(i) for i in range(rows)], [{} for _ in range(rows)])
    batch.features = dict.fromkeys(("speech", "text"), features(vectors(0, rows)))
    return batch


def task(**options: Any) -> EmbeddingDistillation:
    return EmbeddingDistillation(student="speech", teacher="text", **options)


def value(distillation: EmbeddingDistillation, streams: Any) -> torch.Tensor:
    return distillation.loss(batch(), streams).total


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_exactly_where_the_vectors_coincide(make_streams: Any, loss: Any) -> None:
    built, goal = task(loss=loss), vectors(0)
    same = value(built, make_streams(speech=features(goal), text=features(goal)))
    torch.testing.assert_close(same, torch.zeros(()), atol=1e-5, rtol=0)
    for row in range(ROWS):
        moved = goal.clone()
        moved[row] = moved[row].roll(1)
        assert value(built, make_streams(speech=features(moved), text=features(goal))) > 1e-3


def test_lengths_matter_to_mse_alone(make_streams: Any) -> None:
    goal = vectors(0)
    streams = make_streams(speech=features(2 * goal), text=features(goal))
    torch.testing.assert_close(value(task(), streams), goal.square().mean(1).sum())
    assert value(task(loss="cosine"), streams) < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teacher_gets_no_gradient(make_streams: Any, loss: Any) -> None:
    predicted, goal = vectors(1).requires_grad_(), vectors(2).requires_grad_()
    streams = {"speech": features(predicted), "text": features(goal)}
    value(task(loss=loss), StubContext(streams, teachers=("text",))).backward()
    assert predicted.grad is not None
    assert (predicted.grad.abs().sum(1) > 0).all()
    assert goal.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_what_stands_in_the_padding_changes_nothing(
    make_streams: Any, make_ragged: Callable[..., Features], loss: Any
) -> None:
    built = task(loss=loss)
    pair = {"speech": make_ragged(ROWS, 5), "text": make_ragged(ROWS, 4, seed=1)}
    longer = {}
    for name, stream_features in pair.items():
        tokens = torch.where(
            stream_features.mask[..., None],
            stream_features.tokens,
            torch.randn_like(stream_features.tokens),
        )
        more = torch.randn(ROWS, 3, stream_features.dim)
        mask = F.pad(stream_features.mask, (0, 3))
        longer[name] = Features(torch.cat([tokens, more], 1), mask)
    torch.testing.assert_close(
        value(built, make_streams(**longer)), value(built, make_streams(**pair))
    )


def scores(
    predicted: torch.Tensor, goal: torch.Tensor, distillation: EmbeddingDistillation, **row: Any
) -> Any:
    rows = [{k: v[i] for k, v in row.items()} for i in range(len(predicted))]
    targets = prepare_batch(distillation, rows).references
    metrics = distillation.metrics()
    for part in (slice(0, 2), slice(2, None)):  # batch by batch
        result = [
            {"speech": a.tolist(), "text": b.tolist()}
            for a, b in zip(predicted[part], goal[part], strict=True)
        ]
        metrics.update(result, targets[part])
    return metrics.compute()


def test_metrics_are_means_over_all_rows() -> None:
    predicted, goal = vectors(3), vectors(4)
    result = scores(predicted, goal, task())
    assert result["mse"] == pytest.approx(float(F.mse_loss(predicted, goal)), rel=1e-5)
    cosines = F.cosine_similarity(predicted, goal)
    assert result["cosine"] == pytest.approx(float(cosines.mean()), rel=1e-4)
    nearest = (F.normalize(predicted) @ F.normalize(goal).T).argmax(1)
    wrong = (nearest != torch.arange(ROWS)).float().mean()
    assert result["xsim"] == pytest.approx(float(wrong))
    assert result["speech_to_text_recall@1"] == pytest.approx(1 - result["xsim"])


def test_a_perfect_student_makes_no_error() -> None:
    goal = vectors(5)
    result = scores(goal, goal, task())
    assert (result["mse"], result["xsim"]) == (0.0, 0.0)
    assert result["cosine"] == pytest.approx(1.0)


def test_rows_of_one_text_are_right_answers_to_each_other() -> None:
    goal = vectors(6)
    goal[1] = goal[0]  # said twice
    texts = ["go", "go", *"abcd"]
    assert scores(goal, goal, task(positive_group="said"), said=texts)["xsim"] == 0
    assert scores(goal, goal, task())["xsim"] > 0  # else they are each other's wrong answer


def test_what_is_written_says_which_row_came_first(make_streams: Any) -> None:
    built, goal = task(), vectors(7)
    streams = make_streams(speech=features(goal.roll(1, 0)), text=features(goal))
    result = built.predict(batch(), streams)
    written = built.format_predictions(result, batch().references, batch().keys)
    firsts = [row["speech_to_text"]["nearest"][0] for row in written]
    assert firsts == ["5", "0", "1", "2", "3", "4"]
    assert written[0]["speech_to_text"]["rank"] > 1


def test_a_prediction_does_without_the_teacher(make_streams: Any) -> None:
    new = batch()
    del new.features["text"]
    (row, *_) = task().predict(new, make_streams(speech=features(vectors(1))))
    assert set(row) == {"speech"}


def test_a_student_is_not_its_own_teacher() -> None:
    with pytest.raises(ValueError, match="teacher: found 'text', which is the student"):
        EmbeddingDistillation(student="text", teacher="text")
