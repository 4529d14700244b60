"""Two conditions of a generator (DIFFSTE), and tokens of causal or several encoders (LI-DiT)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.causal import Causal
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tasks.generation.refiner import Refiner

SIDE, WIDTH, OTHER = 8, 16, 5


def halves(generator: torch.Generator, rows: int) -> tuple[list[Features], Tensor]:
    """Conditions and pictures: the first condition tells the brightness of the left half, the
    second, of another width, that of the right half."""
    labels = torch.randint(2, (rows, 2), generator=generator)
    conditions = [
        Features.dense(F.one_hot(labels[:, i], width).float()[:, None] * 2)
        for i, width in enumerate((WIDTH, OTHER))
    ]
    values = (labels * 2.0 - 1)[:, None, :, None].expand(rows, SIDE, 2, 3)
    return conditions, values.repeat_interleave(SIDE // 2, 2) * 0.8


@pytest.mark.slow
def test_without_a_condition_its_part_alone_gets_worse() -> None:
    """Ji et al., 2023: each stream is read through its own cross-attention, and the two are
    averaged."""
    diffusers = pytest.importorskip("sensorium.modalities.image.decoders.diffusers")
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "block_out_channels": [16, 32], "attention_head_dim": 2, "norm_num_groups": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": WIDTH,
    }  # fmt: skip
    decoder = diffusers.Diffusers(
        name="tiny-unet", options=options, size=SIDE, second="average", second_dim=OTHER, steps=8,
        condition_dropout=0.15, scheduler_options={"prediction_type": "sample"},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(decoder.parameters(), 3e-3)
    for _ in range(150):
        conditions, values = halves(generator, 32)
        optimizer.zero_grad()
        (decoder.loss(conditions, {"values": values}).total / 32).backward()
        optimizer.step()
    decoder.eval()
    conditions, values = halves(generator, 48)

    def errors(dropped: int | None) -> list[float]:
        given = [c.replace(tokens=c.tokens * (i != dropped)) for i, c in enumerate(conditions)]
        samples = decoder.generate(given, seeds=range(48))
        off = (samples - values).square().mean((0, 1, 3))  # by column
        return [float(off[: SIDE // 2].mean()), float(off[SIDE // 2 :].mean())]

    both, no_first, no_second = errors(None), errors(0), errors(1)
    for mine, other, without in ((0, 1, no_first), (1, 0, no_second)):
        assert without[mine] > both[mine] + 0.5, (both, without)
        assert without[other] < both[other] + 0.25, (both, without)


def test_without_a_refiner_encoders_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 5, WIDTH, requires_grad=True)  # 3 of one encoder, 2 of another
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1]]).bool()
    refined = Refiner(WIDTH)(Features(tokens, mask))
    (gradient,) = torch.autograd.grad(refined.tokens[:, 0].square().sum(), tokens)
    assert (gradient[:, 3:].abs().sum(-1) > 0).all(), "of the second encoder"
    assert not gradient[1, 2].any() and not refined.tokens[1, 2].any(), "of padding"


class Phrases:
    """Texts of two clauses in either order, as states of a frozen causal language model."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        options = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4,
        }  # fmt: skip
        self.model = Causal(tokenizer=Bytes(), name="tiny-llama", options=options).eval()
        self.clauses = torch.randint(97, 123, (2, 6, 4))  # two slots, six clauses, four letters

    @torch.no_grad()
    def states(self, first: Tensor, second: Tensor, swapped: Tensor) -> Features:
        """first, second `[B]`: the clause of each slot. swapped `[B]`: the second one comes
        first."""
        a, b = self.clauses[0, first], self.clauses[1, second]
        ids = torch.where(swapped[:, None], torch.cat([b, a], 1), torch.cat([a, b], 1))
        hidden = self.model(self.model.embed(ids))
        assert isinstance(hidden, Tensor)
        return Features.dense(hidden)


def position_bias(phrases: Phrases, refine: Any) -> float:
    """How far the pooled vector moves with the order of the clauses, as a share of how far it moves
    with what they say."""
    grid = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    first, second = grid[:, 0], grid[:, 1]
    orders = [torch.full_like(first, value).bool() for value in (False, True)]
    with torch.no_grad():
        one, other = (refine(phrases.states(first, second, o)).pool() for o in orders)
    moved = (one - other).norm(dim=1).mean()
    return float(moved / torch.cdist(one, one).sum().div(36 * 35))


@pytest.mark.slow
def test_a_refiner_takes_the_position_bias_of_a_causal_model_away() -> None:
    """Ma et al., 2024: after training, moving a clause changes the pooled vector less than before;
    as training that a causal mask restricts does not."""
    phrases, before = Phrases(), position_bias(Phrases(), lambda states: states)
    torch.manual_seed(0)
    refiner, heads = Refiner(32, depth=2), nn.ModuleList(nn.Linear(32, 6) for _ in range(2))
    optimizer = torch.optim.AdamW([*refiner.parameters(), *heads.parameters()], 3e-3)
    for _ in range(300):
        first, second = torch.randint(6, (2, 64))
        states = phrases.states(first, second, torch.rand(64) < 0.5)
        pooled = refiner(states).pool()
        losses = [
            F.cross_entropy(h(pooled), t) for h, t in zip(heads, (first, second), strict=True)
        ]
        optimizer.zero_grad()
        sum(losses[1:], losses[0]).backward()
        optimizer.step()
    after = position_bias(phrases, refiner)
    untrained = position_bias(phrases, Refiner(32, depth=2))
    assert after < 0.5 * before and after < 0.5 * untrained, (before, untrained, after)
