"""The task `generation`: what its decoder reads, what a sample depends on, how samples are
judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from sensorium.modalities.base import Features
from sensorium.tasks.base import Batch, Example
from sensorium.tasks.generation.generation import Generation
from sensorium.tasks.generation.metrics import attribute_accuracy, frechet_distance
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.generation.toy_decoder import WIDTH, Toy


def features(rows: int, tokens: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features.dense(torch.randn(rows, tokens, WIDTH, generator=generator))


def batch(*keys: str) -> Batch:
    return Batch.of("draw", list(keys), [Example() for _ in keys])


def predict(task: Generation, keys: str, decoder: Toy, **options: Any) -> list[Any]:
    streams = {"words": features(3, 2, 0), "extra": features(3, 4, 1)}
    rows = ["abc".index(key) for key in keys]
    chosen = {n: Features.dense(f.tokens[rows]) for n, f in streams.items()}
    context = StubContext(chosen).on(decoder, "generator")
    return task.predict(batch(*keys), context, **options)


def test_a_sample_depends_on_its_row_and_the_seed_alone() -> None:
    task, decoder = Generation(condition="words"), Toy()
    together = predict(task, "abc", decoder)
    alone = [predict(task, key, decoder)[0] for key in "abc"]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one["values"], other["values"], atol=1e-6)
    assert predict(task, "abc", decoder, seed=1) != together


def test_tokens_of_several_conditions_are_read_in_order() -> None:
    task, decoder = Generation(condition=["words", "extra"]), Toy()
    words, extra = features(3, 2, 0), features(3, 4, 1)
    joined = torch.cat([words.tokens, extra.tokens], 1)
    context = StubContext({"words": words, "extra": extra}).on(decoder, "generator")
    assert torch.equal(task._condition(context).tokens, joined)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"condition": []}, "expected different streams"),
        ({"condition": ["a", "a"]}, "expected different streams"),
        ({"condition": "target"}, "would give it away"),
        ({"condition": "a", "second": "a"}, "would give it away"),
        ({"condition": "a", "attributes": ["colour"]}, "set judge"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Generation(**options)


def test_the_frechet_distance_is_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    first, second = (torch.from_numpy(rng.normal(i, 1 + i, (50, 6))) for i in range(2))
    expected = _compute_fid(first.mean(0), first.T.cov(), second.mean(0), second.T.cov())
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-8)


def test_attributes_are_those_of_the_samples() -> None:
    """A classifier knows samples like their references, and not those of other rows."""
    rng = np.random.default_rng(0)
    labels = ["red", "blue"] * 20
    real = rng.normal(size=(40, 4)) + np.array([[4.0], [-4.0]] * 20)
    scores = attribute_accuracy("colour", real + 0.1, real, labels)
    assert scores == {"colour_accuracy": 1.0, "colour_accuracy_real": 1.0}
    assert attribute_accuracy("colour", real[::-1], real, labels)["colour_accuracy"] == 0.0
