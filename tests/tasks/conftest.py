"""Small stand-ins for what a task is given: a tokenizer, a decoder, streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensorium.backbones.base import Backbone
from sensorium.modalities.base import Features, Tokenizer
from sensorium.testing.context import StubContext

DIM = 16


class Letters(Tokenizer):
    """A byte is a token; 0 pads, 1 ends, 2 begins."""

    size, pad_id, eos_id, bos_id = 259, 0, 1, 2

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i - 3 for i in ids if i > 2).decode(errors="replace")

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


class Recurrent(Backbone):
    """An embedding and a GRU that reads the real tokens of each row, one row at a time."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.dim, self.tokenizer = dim, Letters()
        self.table = nn.Embedding(self.tokenizer.size, dim)
        self.cell = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, self.tokenizer.size)

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def logits(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        return self.out(hidden) if ids is None else self.out(hidden)[..., ids]

    def teacher_force(
        self, context: Features, ids: Tensor, mask: Tensor, attention: str = "causal"
    ) -> Tensor:
        rows = []
        for tokens, real, target in zip(context.tokens, context.mask, ids, strict=True):
            before = tokens[real]
            hidden, _ = self.cell(torch.cat([before, self.embed(target[:-1])])[None])
            rows.append(hidden[0, len(before) - 1 :])
        return torch.stack(rows)

    @torch.no_grad()
    def generate(
        self, context: Features, attention: str = "causal", *, max_new_tokens: int
    ) -> Tensor:
        rows = []
        for tokens, real in zip(context.tokens, context.mask, strict=True):
            hidden, state = self.cell(tokens[real][None])
            generated: list[int] = []
            while len(generated) < max_new_tokens and self.tokenizer.eos_id not in generated:
                generated.append(int(self.logits(hidden[0, -1]).argmax()))
                last = torch.tensor([[generated[-1]]], device=hidden.device)
                hidden, state = self.cell(self.embed(last), state)
            rows.append(torch.tensor(generated))
        return nn.utils.rnn.pad_sequence(rows, True, self.tokenizer.pad_id)


def streams(**features: Features) -> StubContext:
    return StubContext(features)


class Head(nn.Module):
    """A linear head on the mean token."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        pooled = self.linear(features.mean())
        return Features.dense(pooled[:, None]).replace(pooled=pooled)


def ragged(rows: int, longest: int, dim: int = DIM, seed: int = 0) -> Features:
    """Random features of uneven lengths, the padding full of noise."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(rows, longest, dim, generator=generator, requires_grad=True)
    lengths = torch.tensor([1 + (row * 2 + seed) % longest for row in range(rows)])
    return Features(tokens, torch.arange(longest) < lengths[:, None])


@pytest.fixture
def backbone() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent()


@pytest.fixture
def make_streams() -> Callable[..., StubContext]:
    return streams


@pytest.fixture
def make_ragged() -> Callable[..., Features]:
    return ragged


@pytest.fixture
def make_head() -> type[Head]:
    return Head


@pytest.fixture
def make_backbone() -> type[Recurrent]:
    return Recurrent
