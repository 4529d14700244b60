"""One contract for every text encoder of the catalogue."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.modalities.base import Encoder
from sensorium.modalities.text import TEXT
from sensorium.modalities.text.causal_lm import CausalLM
from sensorium.modalities.text.open_clip import OpenClipText
from sensorium.modalities.text.tokenizers import BPE
from sensorium.modalities.text.transformers import TransformersText

TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal, slowly", "né <image> 猫"]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}
Maker = Callable[[], Encoder]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("a test went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def made(part: type[Encoder], options: dict[str, Any], **fitted: Any) -> Encoder:
    """As the engine does it: resolve, then build."""
    encoder: Encoder = part(**part.resolve(options), **fitted)
    return encoder.eval()


@pytest.fixture
def makers(tmp_path: Path, bpe: BPE, save_clip: Callable[..., str]) -> dict[str, Maker]:
    def hub(kind: str) -> dict[str, Any]:
        return {"config": {"model_type": kind, **SMALL}, "max_length": 64}

    name = save_clip(tmp_path)
    return {
        "transformers": lambda: made(TransformersText, hub("bert"), tokenizer=bpe),
        "causal_lm": lambda: made(CausalLM, hub("llama"), tokenizer=bpe),
        "open_clip": lambda: made(OpenClipText, {"name": name}),
    }


@pytest.fixture(params=TEXT.encoders)
def make(request: pytest.FixtureRequest, makers: dict[str, Maker]) -> Maker:
    maker = makers[request.param]
    module, _, name = TEXT.encoders[request.param].partition(":")
    assert type(maker()) is getattr(importlib.import_module(module), name)
    return maker


def encoded(encoder: Encoder, texts: list[str], **options: Any) -> Any:
    batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
    return encoder(**batch, **options)


def test_contract(make: Maker) -> None:
    encoder = make()
    given = encoded(encoder, TEXTS)
    assert given.dim == encoder.dim == given.pooled.shape[1]
    assert given.tokens[~given.mask].eq(0).all() and (~given.mask).any()
    assert torch.equal(given.mask, given.mask.cummin(1).values) and given.mask[:, 0].all()
    assert given.grid is None
    assert len(encoder.blocks()) == 2


def test_batch_invariance(make: Maker) -> None:
    """Neighbours and padding change nothing."""
    encoder = make()
    assert encoder.batch_invariant
    whole = encoded(encoder, TEXTS)
    for row, text in enumerate(TEXTS):
        alone = encoded(encoder, [text])
        length = int(alone.mask.sum())
        assert length == int(whole.mask[row].sum())
        torch.testing.assert_close(
            alone.tokens[0, :length], whole.tokens[row, :length], rtol=1e-5, atol=2e-6
        )
        torch.testing.assert_close(alone.pooled[0], whole.pooled[row], rtol=1e-5, atol=2e-6)


def test_what_stands_in_the_padding_does_not_matter(make: Maker) -> None:
    encoder = make()
    if isinstance(encoder, OpenClipText):
        pytest.skip("open_clip finds the end of a text in the ids: its padding is its own")
    batch = encoder.collate([encoder.processor.prepare(text) for text in TEXTS])
    known = encoder(**batch)
    batch["ids"][~batch["mask"]] = 9
    torch.testing.assert_close(encoder(**batch).tokens, known.tokens, rtol=1e-5, atol=2e-6)


def test_gradients_reach_all(make: Maker) -> None:
    encoder = make()
    given = encoded(encoder, TEXTS)
    (given.tokens.square().sum() + given.pooled.square().sum()).backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_meta(make: Maker) -> None:
    real = make()
    batch = real.collate([real.processor.prepare(text) for text in TEXTS])
    with torch.device("meta"):
        encoder = make()
        given = encoder(**{key: value.to("meta") for key, value in batch.items()})
    assert all(p.is_meta for p in encoder.parameters())
    known = real(**batch)
    assert given.tokens.shape == known.tokens.shape and given.pooled.shape == known.pooled.shape


def test_state_round_trip_and_processor_travels(make: Maker) -> None:
    first, second = make(), make()
    second.load_state_dict(first.state_dict())
    known = encoded(first, TEXTS)
    assert torch.equal(encoded(second, TEXTS).tokens, known.tokens)
    twin = pickle.loads(pickle.dumps(first.processor))
    for text in TEXTS:
        sample, again = first.processor.prepare(text), twin.prepare(text)
        assert sample.keys() == again.keys()
        assert all(torch.equal(sample[key], again[key]) for key in sample)
    assert json.loads(json.dumps(twin.settings())) == first.processor.settings()
