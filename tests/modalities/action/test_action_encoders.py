"""Encoders of states and trajectories beyond the common contract, and their normalisation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from encoder_cases import ACTION, contract

from sensorium.engine.recipe import find
from sensorium.modalities.action.augment import Noise
from sensorium.modalities.action.normalizer import Normalizer
from sensorium.modalities.action.read import Trajectory, read
from sensorium.modalities.base import Encoder, Features, ReadError

DOF = 5


def motions(*lengths: int) -> list[Trajectory]:
    rng = np.random.default_rng(0)
    return [Trajectory(rng.normal(2, 3, (n, DOF)).astype(np.float32)) for n in lengths]


def normalizer(**options: Any) -> Normalizer:
    built = Normalizer(**options)
    built.fit(motions(40, 60))
    return built


def make(case: str) -> Encoder:
    return contract("action", case, motions(40, 60)).encoder


def batch(encoder: Encoder, *lengths: int) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(m) for m in motions(*lengths)])


def leaves(features: Features) -> list[torch.Tensor]:
    return [features.tokens, *([] if features.pooled is None else [features.pooled])]


@pytest.mark.parametrize("case", ACTION)
def test_one_token_a_step(case: str) -> None:
    encoder = make(case)
    features = encoder(**batch(encoder, 4, 2, 1))
    assert features.tokens.shape == (3, 4, encoder.dim) and features.grid == (4,)
    assert features.lengths.tolist() == [4, 2, 1]
    assert not features.tokens[~features.mask].any()
    assert encoder.blocks() and encoder.batch_invariant


@pytest.mark.parametrize("case", ACTION)
def test_padding_and_neighbours_change_nothing(case: str) -> None:
    encoder = make(case)
    inputs = batch(encoder, 3, 7)
    mine, alone = encoder(**inputs), encoder(**batch(encoder, 3))
    inputs["values"][0, 3:] = 100.0
    other = encoder(**inputs)
    assert torch.allclose(mine.tokens[:1, :3], alone.tokens, atol=1e-5)
    for a, b in zip(leaves(mine), leaves(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", ACTION)
def test_the_order_of_steps_matters(case: str) -> None:
    encoder = make(case)
    values, mask = torch.ones(1, 4, DOF), torch.ones(1, 4, dtype=torch.bool)
    tokens = encoder(values, mask).tokens[0]
    assert all(not torch.allclose(tokens[i], tokens[j]) for i in range(4) for j in range(i))


def test_the_last_layer_is_the_output_and_masked_steps_are_not_seen() -> None:
    encoder = make("trajectory")
    inputs = batch(encoder, 4, 2)
    deep = encoder(**inputs, hidden_states=(0, -1, -2))
    for a, b in zip(leaves(deep), leaves(deep.hidden_states[1]), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(
        encoder(**inputs, hidden_states=(1,)).hidden_states[0].tokens, deep.hidden_states[2].tokens
    )
    hidden = torch.zeros(2, 4, dtype=torch.bool)
    hidden[0, 1] = True
    masked = encoder(**inputs, token_mask=hidden)
    inputs["values"][0, 1] = 7.0
    assert torch.equal(masked.tokens, encoder(**inputs, token_mask=hidden).tokens)
    tapped = encoder(**inputs, layer_hooks={-1: lambda tokens, mask: tokens + mask[..., None]})
    assert not torch.equal(tapped.tokens, encoder(**inputs).tokens)


@pytest.mark.parametrize("case", ACTION)
def test_another_number_of_joints_is_refused(case: str) -> None:
    processor = make(case).processor
    with pytest.raises(ReadError, match=f"7 joints a step; expected {DOF}"):
        processor.prepare(read(np.zeros((2, 7))))


@pytest.mark.parametrize("how", ["mean_std", "quantiles"])
def test_normalising_and_back(how: Any) -> None:
    values = np.random.default_rng(0).normal(5, (1, 2, 0, 1e-3, 40), (500, 5))
    built = Normalizer(how=how, quantile=0.0, clip=1e9)
    built.fit(values[i : i + 50] for i in range(0, 500, 50))
    scaled = built.encode(values)
    assert np.allclose(built.decode(scaled), values, rtol=1e-5)
    moving = scaled[:, [0, 1, 3, 4]]
    spread = moving.std(0) if how == "mean_std" else np.abs(moving).max(0)
    assert np.allclose(spread, 1, atol=1e-3) and np.allclose(scaled[:, 2], 0, atol=1e-6)
    again = Normalizer(how=how, clip=1e9)
    again.load_state(json.loads(json.dumps(built.state(), default=lambda array: array.tolist())))
    assert np.array_equal(again.encode(values), scaled)


def test_a_joint_that_hardly_moved_is_cut_off() -> None:
    built = Normalizer(clip=3.0)
    built.fit([[1.0, 0.0], [1.0 + 1e-5, 1.0]])
    assert built.encode(np.array([[2.0, 100.0]])).tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no row to learn from"),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]], "row 1 has 3 joints, those before it have 2"),
        ([[1.0, float("nan")]], "nan at step 0, joint 1"),
    ],
)
def test_what_no_normalizer_learns_from(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalizer().fit(rows)


def test_a_joint_that_seldom_moves_is_no_constant() -> None:
    values = np.zeros((1000, 2), np.float32)
    values[:3, 0] = 0.04  # a gripper that opens in three steps of a thousand
    built = Normalizer(how="quantiles")
    built.fit([values])
    np.testing.assert_allclose(built.encode(values)[[0, 5]], [[1, 0], [-1, 0]], atol=1e-6)


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"^quantile: found 0\.5"):
        Normalizer(quantile=0.5)
    with pytest.raises(ValueError, match=r"^clip: found 0"):
        Normalizer(clip=0)
    with pytest.raises(ValueError, match="the recipe has quantiles"):
        Normalizer(how="quantiles").load_state(normalizer().state())
    for case, options, messages in (
        ("state", {"dim": 7}, "^dim: found 7"),
        ("state", {"hidden": 0}, "^hidden: found 0"),
        ("state", {"depth": 1}, "^depth: found 1 with hidden: None"),
        ("state", {"hidden": 8, "depth": -1}, "^depth: found -1"),
        ("trajectory", {"dim": 16, "heads": 3}, "^heads: found 3"),
    ):
        encoder: Any = find("action_encoder", case, "here")
        with pytest.raises(ValueError, match=messages):
            encoder(normalizer=normalizer(), **options)
        with pytest.raises(ValueError, match=r"^normalizer: is not fitted"):
            encoder(normalizer=Normalizer())


def test_noise_comes_from_its_generator_alone() -> None:
    sample = {"values": torch.zeros(4, 3)}
    one, same, other = (Noise(std=0.1)(sample, np.random.default_rng(i)) for i in (0, 0, 1))
    assert torch.equal(one["values"], same["values"]) and one["values"].dtype == torch.float32
    assert not torch.equal(one["values"], other["values"]) and not sample["values"].any()
    shifted = Noise(std=0, shift=0.1)(sample, np.random.default_rng(0))["values"]
    assert torch.equal(shifted[0], shifted[3]) and shifted.any()
    with pytest.raises(ValueError, match="augment: std -1"):
        Noise(std=-1)
