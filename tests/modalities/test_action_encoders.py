"""The contract of every encoder of states and trajectories, and of their normalisation."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.modalities.action import ACTION
from sensorium.modalities.action.normalizer import Normalizer
from sensorium.modalities.action.processor import Noise
from sensorium.modalities.action.read import Motion, read
from sensorium.modalities.base import Encoder, Features, ReadError

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "state linear": ("state", {"dim": 16}),
    "state perceptron": ("state", {"dim": 16, "hidden": 24}),
    "state deep": ("state", {"dim": 16, "hidden": 24, "depth": 2}),
    "trajectory": ("trajectory", {"dim": 16, "depth": 3, "heads": 2}),
}
DOF = 5


def motions(*lengths: int) -> list[Motion]:
    rng = np.random.default_rng(0)
    return [Motion(rng.normal(2, 3, (n, DOF)).astype(np.float32)) for n in lengths]


def normalizer(**options: Any) -> Normalizer:
    made = Normalizer(**options)
    made.fit(motions(40, 60))
    return made


def make(case: str) -> Encoder:
    module, _, name = ACTION.encoders[CASES[case][0]].partition(":")
    torch.manual_seed(0)
    kind = getattr(importlib.import_module(module), name)
    made: Encoder = kind(normalizer=normalizer(), **CASES[case][1])
    return made.eval()


def batch(encoder: Encoder, *lengths: int) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(m) for m in motions(*lengths)])


def leaves(features: Features) -> list[torch.Tensor]:
    return [features.tokens, *([] if features.pooled is None else [features.pooled])]


def test_every_encoder_of_the_catalogue_is_tried() -> None:
    assert {name for name, _ in CASES.values()} == set(ACTION.encoders)


@pytest.mark.parametrize("case", CASES)
def test_one_token_a_step(case: str) -> None:
    encoder = make(case)
    features = encoder(**batch(encoder, 4, 2, 1))
    assert features.tokens.shape == (3, 4, encoder.dim) and features.grid == (4,)
    assert features.lengths.tolist() == [4, 2, 1]
    assert not features.tokens[~features.mask].any()
    assert encoder.blocks() and encoder.batch_invariant


@pytest.mark.parametrize("case", CASES)
def test_padding_and_neighbours_change_nothing(case: str) -> None:
    encoder = make(case)
    given = batch(encoder, 3, 7)
    mine, alone = encoder(**given), encoder(**batch(encoder, 3))
    given["values"][0, 3:] = 100.0
    other = encoder(**given)
    assert torch.allclose(mine.tokens[:1, :3], alone.tokens, atol=1e-5)
    for a, b in zip(leaves(mine), leaves(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_steps_matters(case: str) -> None:
    encoder = make(case)
    values, mask = torch.ones(1, 4, DOF), torch.ones(1, 4, dtype=torch.bool)
    tokens = encoder(values, mask).tokens[0]
    assert all(not torch.allclose(tokens[i], tokens[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_every_parameter(case: str) -> None:
    encoder = make(case).train()
    given = batch(encoder, 4, 2)
    if "token_mask" in encoder.supports:
        given["token_mask"] = torch.tensor([[True, False, False, False], [False] * 4])
    sum((t * torch.randn_like(t)).sum() for t in leaves(encoder(**given))).backward()
    lost = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lost


@pytest.mark.parametrize("case", CASES)
def test_the_meta_device_gives_the_same_shapes(case: str) -> None:
    real = make(case)
    given = batch(real, 3, 2)
    with torch.device("meta"):
        encoder = make(case)
    assert all(p.is_meta for p in encoder.parameters())
    found, want = encoder(**{k: v.to("meta") for k, v in given.items()}), real(**given)
    assert found.tokens.is_meta
    assert [t.shape for t in leaves(found)] == [t.shape for t in leaves(want)]


@pytest.mark.parametrize("case", CASES)
def test_state_comes_back_from_safetensors(case: str, tmp_path: Path) -> None:
    encoder, path = make(case), tmp_path / "state.safetensors"
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, path)
    other, given = make(case), batch(encoder, 3, 2)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    assert not torch.equal(other(**given).tokens, encoder(**given).tokens)
    other.load_state_dict(load_file(path))
    for a, b in zip(leaves(other(**given)), leaves(encoder(**given)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", [c for c in CASES if "trajectory" in c])
def test_hidden_layers_masks_and_hooks(case: str) -> None:
    encoder = make(case)
    given = batch(encoder, 4, 2)
    deep = encoder(**given, layers=(0, -1, -2))
    for a, b in zip(leaves(deep), leaves(deep.layers[1]), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(encoder(**given, layers=(1,)).layers[0].tokens, deep.layers[2].tokens)
    with pytest.raises(ValueError, match="there is no layer 99"):
        encoder(**given, layers=(99,))
    hidden = torch.zeros(2, 4, dtype=torch.bool)
    hidden[0, 1] = True
    masked = encoder(**given, token_mask=hidden)
    given["values"][0, 1] = 7.0
    assert torch.equal(masked.tokens, encoder(**given, token_mask=hidden).tokens)
    tapped = encoder(**given, layer_hooks={-1: lambda tokens, mask: tokens + mask[..., None]})
    assert not torch.equal(tapped.tokens, encoder(**given).tokens)


@pytest.mark.parametrize("case", CASES)
def test_processors_are_small_values(case: str) -> None:
    processor = make(case).processor
    again = pickle.loads(pickle.dumps(processor))
    (motion,) = motions(3)
    assert torch.equal(again.prepare(motion)["values"], processor.prepare(motion)["values"])
    assert json.loads(json.dumps(again.settings())) == json.loads(json.dumps(processor.settings()))
    with pytest.raises(ReadError, match=f"7 joints a step; expected {DOF}"):
        processor.prepare(read(np.zeros((2, 7))))


@pytest.mark.parametrize("how", ["mean_std", "quantiles"])
def test_normalising_and_back(how: Any) -> None:
    values = np.random.default_rng(0).normal(5, (1, 2, 0, 1e-3, 40), (500, 5))
    made = Normalizer(how=how, quantile=0.0, clip=1e9)
    made.fit(values[i : i + 50] for i in range(0, 500, 50))
    scaled = made.encode(values)
    assert np.allclose(made.decode(scaled), values, rtol=1e-5)
    moving = scaled[:, [0, 1, 3, 4]]
    spread = moving.std(0) if how == "mean_std" else np.abs(moving).max(0)
    assert np.allclose(spread, 1, atol=1e-3) and np.allclose(scaled[:, 2], 0, atol=1e-6)
    again = Normalizer(how=how, clip=1e9)
    again.load_state(json.loads(json.dumps(made.state(), default=lambda array: array.tolist())))
    assert np.array_equal(again.encode(values), scaled)


def test_a_joint_that_hardly_moved_is_cut_off() -> None:
    made = Normalizer(clip=3.0)
    made.fit([[1.0, 0.0], [1.0 + 1e-5, 1.0]])
    assert made.encode(np.array([[2.0, 100.0]])).tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no row to learn from"),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]], "row 1 has 3 joints, those before it have 2"),
        ([[1.0, float("nan")]], "nan at step 0, joint 1"),
    ],
)
def test_what_no_normalizer_learns_from(rows: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Normalizer().fit(rows)


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"^quantile: found 0\.5"):
        Normalizer(quantile=0.5)
    with pytest.raises(ValueError, match=r"^clip: found 0"):
        Normalizer(clip=0)
    with pytest.raises(ValueError, match="the recipe says quantiles"):
        Normalizer(how="quantiles").load_state(normalizer().state())
    for case, options, told in (
        ("state", {"dim": 7}, "^dim: found 7"),
        ("state", {"hidden": 0}, "^hidden: found 0"),
        ("state", {"depth": 1}, "^depth: found 1 with hidden: None"),
        ("state", {"hidden": 8, "depth": -1}, "^depth: found -1"),
        ("trajectory", {"dim": 16, "heads": 3}, "^heads: found 3"),
    ):
        module, _, name = ACTION.encoders[case].partition(":")
        with pytest.raises(ValueError, match=told):
            getattr(importlib.import_module(module), name)(normalizer=normalizer(), **options)
        with pytest.raises(ValueError, match=r"^normalizer: is not fitted"):
            getattr(importlib.import_module(module), name)(normalizer=Normalizer())


def test_noise_comes_from_its_generator_alone() -> None:
    sample = {"values": torch.zeros(4, 3)}
    one, same, other = (Noise(std=0.1)(sample, np.random.default_rng(i)) for i in (0, 0, 1))
    assert torch.equal(one["values"], same["values"]) and one["values"].dtype == torch.float32
    assert not torch.equal(one["values"], other["values"]) and not sample["values"].any()
    shifted = Noise(std=0, shift=0.1)(sample, np.random.default_rng(0))["values"]
    assert torch.equal(shifted[0], shifted[3]) and shifted.any()
    with pytest.raises(ValueError, match="augment: std -1"):
        Noise(std=-1)
