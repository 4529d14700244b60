"""Control tasks with decoders of tiny size, and rows for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sensorium.backbones.base import Backbone
from sensorium.backbones.causal import Causal
from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.modalities.action.tokenizers import ActionTokenizer, BinTokenizer, FastTokenizer
from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer
from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.control.control import Control
from sensorium.tasks.control.decoders import ChunkStatistics
from sensorium.testing.context import StubContext, prepare_batch

STEPS, DIM = 12, 32
LLAMA = {
    "model_type": "llama",
    "hidden_size": DIM,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
T5 = {
    "model_type": "t5",
    "d_model": DIM,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
SPLINE = {"num_basis": 4, "degree": 3, "vocab": 32}
CASES: dict[str, tuple[dict[str, Any], Callable[[], ActionTokenizer]]] = {
    "parallel": ({}, lambda: BSplineTokenizer(**SPLINE)),
    "gripper": ({}, lambda: BSplineTokenizer(**SPLINE, grippers=[-1])),
    "tail": ({"vocabulary": "tail"}, lambda: BSplineTokenizer(**SPLINE)),
    "pinned": ({}, lambda: BSplineTokenizer(**SPLINE, start_order=1)),
    "uneven": ({}, lambda: BSplineTokenizer(num_basis=[4, 5], degree=3, vocab=32)),
    "regressed": ({"action_decoder": "continuous"}, lambda: BSplineTokenizer(**SPLINE)),
    "regressed-uneven": (
        {"action_decoder": "continuous"},
        lambda: BSplineTokenizer(num_basis=[4, 5], degree=3, vocab=32),
    ),
    "vae": (
        {"action_decoder": "continuous", "latent": 3, "kl": 0.1},
        lambda: BSplineTokenizer(**SPLINE),
    ),
    "fourier": (
        {"action_decoder": "fourier", "frequencies": 6},
        lambda: BSplineTokenizer(**SPLINE),
    ),
    "bins": ({"action_decoder": "autoregressive"}, lambda: BinTokenizer(vocab=16)),
    "bins-tail": (
        {"action_decoder": "autoregressive", "vocabulary": "tail", "attention": "prefix"},
        lambda: BinTokenizer(vocab=16),
    ),
    "fast": ({"action_decoder": "autoregressive"}, lambda: FastTokenizer(vocab=64, scale=4.0)),
}
BACKBONES = {"causal": (Causal, LLAMA), "seq2seq": (Seq2Seq, T5)}


def made_rows(count: int = 6, seed: int = 0, steps: bool = False) -> list[dict[str, Any]]:
    """Two joints (one that steps on request) whose way two numbers tell; ragged ends."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, STEPS)
    result = []
    for i in range(count):
        a, b = rng.uniform(-1, 1, 2)
        moving = a * time + b * np.sin(3 * time)
        falling = b * time**2 - a * np.cos(2 * time)
        padding = np.arange(STEPS) >= STEPS - i % 3
        chunk = np.stack([moving, np.sign(falling) if steps else falling], 1).astype(np.float32)
        row = {"action": chunk, "action_padding": padding, "previous_action": chunk[0]}
        result.append({**row, "state": [a, b], "word": ("push", "pull")[i % 2]})
    return result


class Joined(nn.Module):
    """A control task with its decoder, and a linear map from the numbers of a row to two tokens."""

    def __init__(self, case: str, kind: str, letters: Any) -> None:
        super().__init__()
        options, make = CASES[case]
        self.chunk, self.tokenizer = ChunkStatistics(), make()
        data = made_rows(40, steps=case == "gripper")
        built: Any = {"prompt": "<state>{word}", "tokenizer": self.tokenizer, "chunk": self.chunk}
        self.task = Control(**built, **options)
        for part, fitted in (("chunk", self.chunk), ("tokenizer", self.tokenizer)):
            fitted.fit([one for row in data for one in self.task.fit_examples(part, row)])
        torch.manual_seed(0)
        family, config = BACKBONES[kind]
        self.backbone: Backbone = family(tokenizer=letters, config=config)
        self.task.build({}, {"backbone": self.backbone})
        self.state = nn.Linear(2, 2 * DIM)

    def batch(self, data: Sequence[dict[str, Any]]) -> tuple[Batch, Any]:
        numbers = torch.tensor([row["state"] for row in data], dtype=torch.float32)
        tokens = self.state(numbers).unflatten(1, (2, DIM))
        batch = prepare_batch(self.task, data, decoder=self.backbone)
        return batch, StubContext({"state": Features.dense(tokens)}, self.backbone)

    def loss(self, data: Sequence[dict[str, Any]]) -> Any:
        return self.task.loss(*self.batch(data))

    @torch.no_grad()
    def predict(self, data: Sequence[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        return self.eval().task.predict(*self.batch(data), **options)


@pytest.fixture
def letters(backbone: Any) -> Any:
    return backbone.tokenizer


@pytest.fixture
def join(letters: Any) -> Callable[..., Joined]:
    return lambda case, kind="causal": Joined(case, kind, letters)


@pytest.fixture(params=CASES)
def joined(request: Any, join: Any) -> Joined:
    return join(request.param)


@pytest.fixture
def rows() -> Callable[..., list[dict[str, Any]]]:
    return made_rows
