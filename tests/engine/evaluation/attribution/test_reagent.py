"""ReAGent on a model whose decisive token is planted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.engine.evaluation.attribution import TextTokens, reagent
from sensorium.engine.evaluation.attribution.reagent import masked_model_tokens, random_tokens
from sensorium.modalities.base import Tokenizer
from sensorium.tasks.base import Unit


class Numbers(Tokenizer):
    size, pad_id, eos_id, bos_id, mask_id = 40, 0, 1, 2, 3

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Any) -> None:
        pass


class Planted:
    """Two words: the first is likely if 7 stands in the text, the second if 9 does."""

    units = (Unit("a"), Unit("b"))
    calls = 0

    def score_many(self, place: Any, values: Sequence[Tensor]) -> Tensor:
        assert not any(v.requires_grad for v in values)
        self.calls += len(values)
        likely = [[bool((v == 7).any()), bool((v == 9).any())] for v in values]
        return torch.where(torch.tensor(likely), 0.9, 0.05).log()


IDS = torch.tensor([2, 11, 7, 12, 13, 9, 14, 15, 1])


@pytest.fixture
def text() -> TextTokens:
    fixed = torch.tensor([int(i) < 4 for i in IDS])
    return TextTokens(("text", "ids"), IDS, Numbers(), fixed)


def test_planted_tokens_rank_first(text: TextTokens) -> None:
    right = 0
    for seed in range(20):
        importance = reagent(Planted(), text, seed=seed, runs=1, keep=2, max_steps=60)  # type: ignore[arg-type]
        np.testing.assert_allclose(importance.sum(1), 1)
        assert not importance[:, [0, -1]].any()  # special tokens are never replaced
        right += list(importance.argmax(1)) == [2, 5]
    assert right >= 18


def test_a_prediction_that_needs_no_token_has_no_favourite(text: TextTokens) -> None:
    class Blind(Planted):
        def score_many(self, place: Any, values: Sequence[Tensor]) -> Tensor:
            return torch.full((len(values), 2), 0.5).log()

    importance = np.mean([reagent(Blind(), text, seed=s) for s in range(10)], axis=0)  # type: ignore[arg-type]
    assert importance.max() < 0.5


def test_proposals_keep_what_is_not_chosen() -> None:
    chosen = torch.tensor([False, True, True, False, True, False, True, True, False])
    proposals = [random_tokens(Numbers())]
    proposals.append(masked_model_tokens(lambda ids: torch.zeros(*ids.shape, 40), 3, Numbers()))
    for propose in proposals:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.stack([propose(IDS, chosen, generator) for _ in range(40)])
        assert torch.equal(drawn[:, ~chosen], IDS[~chosen].expand(40, -1))
        assert int(drawn[:, chosen].min()) > 3  # no special token
        assert len(drawn[:, chosen].unique()) > 10
