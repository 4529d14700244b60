"""Recipes of several towers before a frozen decoder: what trains, and how little it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.connectors.resampler import Resampler
from sensorium.engine.model import Model, compose
from sensorium.engine.recipe import parse_recipe, plan_recipe
from sensorium.modalities.base import Features

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
BACKBONE = {"type": "causal", "config": LLAMA, "tokenizer": "bytes", "weights": "none"}
PATCHES = {"type": "patches", "size": 16, "patch_size": 8, "dim": 16}
FRAMES = {"type": "frames", "encoder": PATCHES, "fps": 5.0, "freeze": True}
SOUND = {
    "type": "logmel_conformer", "dim": 16, "depth": 1, "heads": 2, "mels": 20, "expand": 2,
    "freeze": True,
}  # fmt: skip


def built(recipe: dict[str, Any]) -> Model:
    plan = plan_recipe(parse_recipe({**recipe, "train": {"steps": 1}}))
    plan.resolve()
    return compose(plan)


def trained(model: Model) -> dict[str, int]:
    return {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}


def test_lips_and_sound_train_their_projectors_and_lora_alone() -> None:
    """Llama-AVSR: two streams, each with its own rate of compression, before a frozen decoder."""
    streams = {
        "audio": {"modality": "audio", "encoder": SOUND},
        "lips": {"modality": "image", "encoder": FRAMES},
    }
    for factor, stream in zip((3, 2), streams.values(), strict=True):
        stream["connector"] = {"type": "stack", "factor": factor}
    pytest.importorskip("soundfile")
    backbone = {
        **BACKBONE,
        "freeze": True,
        "lora": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
    }
    model = built(
        {
            "inputs": streams,
            "backbone": backbone,
            "tasks": {"hear": {"type": "asr", "prompt": "<audio><lips>"}},
        }
    )
    names = trained(model)
    assert names and all("connector" in name or "lora" in name for name in names)
    for part in ("audio.connector", "lips.connector", "lora_A", "lora_B"):
        assert any(part in name for name in names), part
    factors = [model.stream(name).connector.factor for name in streams]  # type: ignore[union-attr]
    assert factors == [3, 2]


def video(layers: int = 2, width: int = 32, queries: int = 4) -> dict[str, Any]:
    """One configuration for captioning, retrieval and classes of clips (Youku-mPLUG)."""
    resampler = {"type": "resampler", "queries": queries, "depth": 1, "heads": 2}
    resampler["positions"] = True
    text = {
        "modality": "text",
        "encoder": {"type": "transformers", "config": {
            "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32,
        }, "tokenizer": "bytes", "max_length": 32, "freeze": True},
        "connector": "linear",
    }  # fmt: skip
    llama = {**LLAMA, "hidden_size": width, "num_hidden_layers": layers}
    llama |= {"intermediate_size": 4 * width, "num_attention_heads": 4, "num_key_value_heads": 4}
    return {
        "inputs": {
            "video": {"modality": "image", "encoder": FRAMES, "connector": resampler},
            "title": text,
        },
        "backbone": {**BACKBONE, "config": llama, "freeze": True},
        "tasks": {
            "caption": {"type": "captioning", "prompt": "<video> Title:"},
            "find": {"type": "contrastive", "streams": ["video", "title"], "dim": width},
            "class": {
                "type": "captioning", "prompt": "<video> Category:", "target": "{class}",
                "max_new_tokens": 8,
            },
        },
    }  # fmt: skip


def test_one_configuration_captions_finds_and_classifies_clips() -> None:
    model = built(video())
    names = trained(model)
    allowed = ("connector", "tasks.")
    assert names and all(any(a in name for a in allowed) for name in names)
    assert not any(name.startswith("backbone") or ".encoder." in name for name in names)


def test_a_decoder_of_a_real_size_trains_under_2_percent() -> None:
    with torch.device("meta"):
        model = built(video(layers=48, width=512, queries=32))
    share = sum(trained(model).values()) / sum(p.numel() for p in model.parameters())
    assert 0.001 < share < 0.02


@pytest.mark.parametrize("positions", [True, False])
def test_a_resampler_with_positions_sees_the_order_of_frames(positions: bool) -> None:
    torch.manual_seed(0)
    connector = Resampler(8, 8, queries=2, depth=1, heads=2, positions=positions)
    clip = torch.randn(1, 5, 8)
    outputs = [
        connector(Features.dense(tokens, grid=(5,))).tokens for tokens in (clip, clip.flip(1))
    ]
    assert torch.allclose(*outputs, atol=1e-5) is not positions
    if positions:
        with pytest.raises(ValueError, match="positions: the encoder returns no grid"):
            connector(Features.dense(clip))
