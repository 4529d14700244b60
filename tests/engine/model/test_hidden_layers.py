"""A connector that asks for hidden layers gets them, cached and not, beside those of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from sensorium.engine.model.stream import Stream
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Encoder, Features

SPEECH = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 8],
    "conv_stride": [10, 8],
}

CLAP = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "spec_size": 128,
    "num_mel_bins": 32,
    "window_size": 4,
}


def sounds(folder: Path, count: int = 12) -> Path:
    """Files of two kinds and three lengths, and the table that names them."""
    rng = np.random.default_rng(0)
    lines = ["audio,word"]
    for i in range(count):
        time = np.arange(3200 + 800 * (i % 3)) / 16000
        wave = 0.2 * np.sin(2 * np.pi * (300, 900)[i % 2] * time) + rng.normal(0, 0.01, time.shape)
        soundfile.write(folder / f"{i}.wav", wave.astype(np.float32), 16000)
        lines.append(f"{folder / f'{i}.wav'},{('low', 'high')[i % 2]}")
    table = folder / "sounds.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def recipe(runner: Any, *changes: Any) -> dict[str, Any]:
    """A linear probe on the learned sum of the layers of a frozen speech encoder."""
    probe = {
        "inputs": {
            "audio": {
                "modality": "audio",
                "encoder": {"type": "wav2vec2", "config": SPEECH, "freeze": True},
                "connector": {"type": "weighted_layers", "last": 3},
            }
        },
        "tasks": {
            "word": {
                "type": "classification",
                "input": "audio",
                "target": "word",
                "data": {"train": {"source": "csv", "path": str(sounds(runner.folder))}},
            }
        },
    }
    gone: dict[str, Any] = {"inputs": {"image": None}, "tasks": {"digit": None}}
    result: dict[str, Any] = runner.recipe(gone, probe, {"train": {"steps": 8}}, *changes)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_probe_on_weighted_layers_learns_alike_cached_and_not(runner: Any, norm: str) -> None:
    settings = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    changes = {"inputs": {"audio": {"encoder": {"config": settings}}}}
    batch = {"train": {"batch_size": 1 if norm == "group" else 4}}  # equal lengths where it matters
    whole = recipe(runner, changes, batch)
    cached = runner.values(whole, "cached")
    assert len(list((runner.folder / "cache").glob("features/*"))) == 1
    without = runner.values(runner.changed(whole, {"cache": {"features": False}}), "without")
    assert cached == pytest.approx(without, abs=1e-5)
    weights = runner.train(whole, "again").stream("audio").connector.weights
    assert weights.detach().abs().sum() > 0  # which layers count is learned


def test_how_many_layers_is_another_store(runner: Any) -> None:
    for last in (2, 3):
        runner.values(
            recipe(runner, {"inputs": {"audio": {"connector": {"last": last}}}}), f"{last}"
        )
    assert len(list((runner.folder / "cache").glob("features/*"))) == 2


def test_an_encoder_without_layers_is_refused(runner: Any) -> None:
    stream = {
        "modality": "audio",
        "encoder": {"type": "clap", "config": {"model_type": "clap_audio_model", **CLAP}},
        "connector": "weighted_layers",
    }
    whole = recipe(runner, {"inputs": {"audio": None}}, {"inputs": {"audio": stream}})
    with pytest.raises(
        ConfigError, match=r"audio.connector: needs hidden layers, and clap supports"
    ):
        runner.train(whole, "refused")


class Deep(Encoder):
    """Layer n is the input times n."""

    dim = 2

    def forward(self, x: torch.Tensor, hidden_states: tuple[int, ...] = ()) -> Features:
        remaining = tuple(Features.dense(x * n) for n in hidden_states)
        return Features.dense(x, hidden_states=remaining)


class Pick(torch.nn.Module):
    """A connector that gives the sum of the layers it asked for."""

    hidden_layers, out_dim, reads_items = (3, 1), 2, False

    def forward(self, features: Features) -> Features:
        total = sum((layer.tokens for layer in features.hidden_states), torch.zeros(()))
        return features.replace(tokens=total, hidden_states=())


@pytest.mark.parametrize("requested", [(), (2,), (5, 1)])
def test_connector_and_task_each_get_what_they_asked_for(requested: tuple[int, ...]) -> None:
    x = torch.ones(1, 2, 2)
    stream = Stream(Deep(), Pick())  # type: ignore[arg-type]
    stream.layers = (3, 1, 1, 2, 5)  # what a store of this stream holds
    options = {"hidden_states": requested} if requested else {}
    stored = stream.encoder(x, hidden_states=stream.layers)
    for inputs in ({"x": x}, stored):
        result = stream.run(inputs, options)
        assert torch.equal(result.tokens, 4 * x)
        assert [float(f.tokens[0, 0, 0]) for f in result.hidden_states] == list(requested)
        before = stream.for_tasks(stream.encode_or_load(inputs, options))
        assert [float(f.tokens[0, 0, 0]) for f in before.hidden_states] == list(requested)
