"""The task `generation`: what its decoder reads, what a sample depends on, how samples are
judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from sensorium.engine.inference.export_maps import write_signals
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features, ReadError
from sensorium.modalities.image.pixels import draw, to_png
from sensorium.modalities.image.read import read
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


def test_a_generated_picture_is_a_text_a_file_and_a_cell(tmp_path: Path) -> None:
    values = torch.linspace(-1, 1, 4 * 5 * 3).view(4, 5, 3)
    levels = ((values + 1) * 127.5).round().byte().numpy()
    prediction = {"image": to_png(values), "scores": {"mse": 0.0}}
    assert np.array_equal(np.asarray(read(prediction["image"])), levels)
    written = write_signals(prediction, tmp_path / "row")
    assert written == {"image": str(tmp_path / "row_image.png"), "scores": {"mse": 0.0}}
    assert np.array_equal(np.asarray(read(written["image"])), levels)
    assert "data:image/png" in draw(prediction, {}, {})
    assert "<script" not in draw({"image": '"><script>'}, {}, {})
    with pytest.raises(ReadError):
        read("data:image/png;base64,AAAA")


TEXT = {
    "type": "transformers",
    "config": {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    },
    "tokenizer": "bytes",
}


@pytest.mark.parametrize(
    ("task", "generator", "line"),
    [
        ({"second": "b"}, {}, "names 2 conditions, and decoders.generator takes 1"),
        (
            {"second": "b"},
            {"second": "add", "second_dim": 8},
            "inputs.b: transformers returns tokens of width 16, decoders.generator takes 8",
        ),
        ({"condition": ["a", "b"]}, {"size": 18}, "expected a multiple of 4"),
    ],
)
def test_a_generator_that_does_not_fit_is_one_line(
    task: dict[str, Any], generator: dict[str, Any], line: str
) -> None:
    pytest.importorskip("diffusers")
    options = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
    widths = {"caption_channels": 16, "cross_attention_dim": 16, "sample_size": 16}
    recipe = parse_recipe(
        {
            "inputs": {
                **{name: {"modality": "text", "encoder": TEXT} for name in "ab"},
                "target": {"modality": "image", "encoder": {"type": "pixels", "size": 16}},
            },
            "decoders": {
                "generator": {
                    "type": "image/diffusers",
                    "name": "tiny-dit",
                    "options": {**options, **widths},
                    **generator,
                }
            },
            "tasks": {"draw": {"type": "generation", "condition": "a", **task}},
        }
    )
    with pytest.raises(ConfigError, match=line) as error:
        compose(resolve_and_fit(recipe))
    assert "\n" not in str(error.value)
