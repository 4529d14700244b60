"""B-spline tokens: both forms, any ids, any rate, pinned ends, uneven joints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline, make_lsq_spline
from torch import Tensor

from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer, knots


def chunks(count: int = 100, steps: int = 20, dof: int = 3, seed: int = 0) -> Tensor:
    """Random walks, smoothed: curves that bases describe well, and no two alike."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.linspace(0, 1, steps)[None, :, None]
    parts = [
        torch.randn(count, 1, dof, generator=rng) * torch.cos(torch.pi * k * u) / (1 + k)
        for k in range(4)
    ]
    return torch.stack(parts).sum(0)


def fitted(data: Tensor | None = None, **options: Any) -> BSplineTokenizer:
    built = BSplineTokenizer(**options)
    built.fit(chunks() if data is None else data)
    return built


@pytest.mark.parametrize(
    ("steps", "num_basis", "dof", "tokens"), [(20, 10, 7, 70), (10, 5, 7, 35), (100, 20, 3, 60)]
)
def test_the_number_of_tokens_is_bases_times_joints(
    steps: int, num_basis: int, dof: int, tokens: int
) -> None:
    data = chunks(steps=steps, dof=dof)
    built = fitted(data, num_basis=num_basis)
    assert built.length(steps) == built.length(2 * steps) == tokens
    assert built.encode(data).shape == (len(data), tokens)
    assert built.grid == (num_basis, dof)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 6), st.integers(0, 30), st.booleans())
def test_both_forms_come_back_for_every_dof(
    dof: int, degree: int, more: int, spare: int, continuous: bool
) -> None:
    """A curve that was decoded is encoded as itself: 2-D, and 3-D."""
    num_basis = degree + 1 + more
    steps = 2 * num_basis + spare
    built = fitted(chunks(30, steps, dof), num_basis=num_basis, degree=degree)
    rng = torch.Generator().manual_seed(steps)
    ids = torch.randint(0, 256, (5, num_basis * dof), generator=rng)
    encode, decode = built.encode, built.decode
    tokens = ids
    if continuous:
        encode, decode = built.encode_continuous, built.decode_continuous
        tokens = torch.rand(5, num_basis * dof, generator=rng) * 2 - 1
    flat = decode(tokens, steps=steps)
    assert flat.shape == (5, steps, dof)
    assert torch.equal(flat, decode(tokens.unflatten(1, (num_basis, dof)), steps=steps))
    torch.testing.assert_close(encode(flat), tokens, atol=1e-3, rtol=0)


def test_tokens_are_basis_major() -> None:
    """Token `n * dof + d` moves joint `d` alone, around the place of basis `n`."""
    built = fitted(num_basis=8)
    ids = torch.full((1, 24), 128)
    still = built.decode(ids, steps=50)
    for n, d in [(0, 0), (3, 1), (7, 2)]:
        moved = ids.clone()
        moved[0, n * 3 + d] = 255
        change = (built.decode(moved, steps=50) - still)[0].abs()
        assert change.sum(0).argmax() == d
        assert (change.sum(0) > 0).sum() == 1
        assert abs(float(change[:, d].argmax()) / 49 - n / 7) < 0.15


def test_the_curve_is_scipys() -> None:
    data = chunks().double()
    built = fitted(data, quantiles=(0, 1))
    back = built.decode_continuous(built.encode_continuous(data), steps=33)
    for chunk, result in zip(data[:5].numpy(), back, strict=False):
        ends = knots(10, 4)
        curve = make_lsq_spline(np.linspace(0, 1, 20), chunk, ends, 4)
        np.testing.assert_allclose(result.numpy(), curve(np.linspace(0, 1, 33)), atol=1e-8)


def test_any_ids_stay_inside_the_bounds() -> None:
    built = fitted(chunks(500), num_basis=6)
    low, high = (torch.from_numpy(end).float() for end in built.bounds())
    slack = 1e-6 * (high - low)
    rng = torch.Generator().manual_seed(0)
    for _ in range(10):
        ids = torch.randint(0, 256, (10_000, 18), generator=rng)
        result = built.decode(ids, steps=20)
        assert (result >= low - slack).all()
        assert (result <= high + slack).all()
    wild = 1e6 * torch.randn(1000, 18, generator=rng)
    result = built.decode_continuous(wild, steps=20)
    assert ((result >= low - slack) & (result <= high + slack)).all()


@pytest.mark.parametrize("vocab", [16, 256, 1024])
def test_rounding_costs_at_most_half_a_bin(vocab: int) -> None:
    data = chunks(200)
    built = fitted(data, vocab=vocab, quantiles=(0.0, 1.0))
    curve = built.decode_continuous(built.encode_continuous(data), steps=40)
    rounded = built.decode(built.encode(data), steps=40)
    width = (built.state()["high"] - built.state()["low"]).reshape(10, 3).max(0)
    bound = torch.from_numpy(width / (2 * (vocab - 1))).float() * (1 + 1e-4) + 1e-6
    assert ((curve - rounded).abs().amax((0, 1)) <= bound).all()


def test_any_rate_and_its_derivatives() -> None:
    built = fitted()
    tokens = built.encode_continuous(chunks().double())
    fine = built.decode_continuous(tokens, steps=401, duration=2.0)
    times = torch.arange(401, dtype=torch.float64) / 200
    torch.testing.assert_close(built.decode_continuous(tokens, times=times, duration=2.0), fine)
    torch.testing.assert_close(
        fine[:, ::40], built.decode_continuous(tokens, steps=11), atol=1e-12, rtol=0
    )
    for derivative in (1, 2):
        below = built.decode_continuous(tokens, steps=401, duration=2.0, derivative=derivative - 1)
        result = built.decode_continuous(tokens, steps=401, duration=2.0, derivative=derivative)
        slope = (below[:, 2:] - below[:, :-2]) * 100  # 1 / (2 * 2 s / 400)
        torch.testing.assert_close(result[:, 1:-1], slope, atol=0.05, rtol=0.01)
    ids = built.encode(chunks())
    assert not built.decode(ids, steps=20, derivative=5).any()
    for wrong in ({}, {"steps": 20, "times": times}, {"steps": 0}, {"times": times}):
        with pytest.raises(ValueError, match=r"^(decode: expected either )?(steps|times)"):
            built.decode(ids, **wrong)


def test_a_pinned_start_leaves_no_jump() -> None:
    built = fitted(start_order=1)
    data = chunks(seed=1)
    assert built.fixed_start
    ids = built.encode(data)
    assert ids.shape[1] == built.length(20) == 27
    back = built.decode(ids, steps=20, start=data[:, 0])
    assert torch.equal(back[:, 0], data[:, 0])
    free = fitted()
    loss = (free.decode(free.encode(data), steps=20) - data).abs().mean()
    assert (back - data).abs().mean() < 1.1 * loss
    last = torch.randn(len(data), 3)
    assert torch.equal(
        built.decode(built.encode(data, start=last), steps=9, start=last)[:, 0], last
    )
    with pytest.raises(ValueError, match=r"start: is missing, .* give start \[100, 3\]"):
        built.decode(ids, steps=20)
    with pytest.raises(ValueError, match=r"start: found \[100, 2\], expected \[100, 3\]"):
        built.decode(ids, steps=20, start=last[:, :2])
    with pytest.raises(ValueError, match="start: holds numbers that are not finite"):
        built.decode(ids, steps=20, start=last * torch.nan)
    with pytest.raises(ValueError, match="start: is set, but start_order is 0"):
        fitted().decode(fitted().encode(data), steps=20, start=last)


def test_pinned_velocities_are_met() -> None:
    built = fitted(start_order=2, end_order=2, num_basis=12)
    tokens = torch.rand(4, built.length(20), dtype=torch.float64) * 2 - 1
    ends = {name: torch.randn(4, 2, 3, dtype=torch.float64) for name in ("start", "end")}
    for order in (0, 1):
        result = built.decode_continuous(tokens, steps=30, derivative=order, **ends)
        torch.testing.assert_close(result[:, 0], ends["start"][:, order])
        torch.testing.assert_close(result[:, -1], ends["end"][:, order])


@pytest.mark.parametrize("start_order", [0, 1])
def test_bases_may_differ_by_joint(start_order: int) -> None:
    data = chunks()
    built = fitted(data, num_basis=[5, 9, 7], start_order=start_order)
    assert built.dof == 3
    assert built.length(20) == 21 - 3 * start_order
    assert built.grid is None
    start = {"start": data[:, 0]} if start_order else {}
    back = built.decode(built.encode(data), steps=20, **start)
    for d, count in enumerate([5, 9, 7]):
        joint_data = data[:, :, [d]]
        alone = fitted(joint_data, num_basis=count, start_order=start_order)
        first = {"start": joint_data[:, 0]} if start_order else {}
        expected = alone.decode(alone.encode(joint_data), steps=20, **first)
        torch.testing.assert_close(back[:, :, [d]], expected, atol=1e-5, rtol=0)


def test_padding_changes_nothing_before_it() -> None:
    data = chunks(seed=2)
    built = fitted(data)
    padding = torch.arange(20) >= torch.randint(1, 21, (100, 1), generator=torch.manual_seed(0))
    other = data.masked_fill(padding[..., None], 1e3)
    ids = built.encode(data, padding=padding)
    assert torch.equal(ids, built.encode(other, padding=padding))
    error = (built.decode(ids, steps=20) - data).abs().masked_fill(padding[..., None], 0)
    whole = (built.decode(built.encode(data), steps=20) - data).abs()
    assert error.max() < 2 * whole.max()


def test_regressed_tokens_have_gradients() -> None:
    built = fitted()
    tokens = torch.zeros(2, 30, requires_grad=True)
    built.decode_continuous(tokens, steps=20).square().sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad != 0).all()
    with pytest.raises(ValueError, match="tokens: hold numbers that are not finite"):
        built.decode_continuous(tokens.detach() * torch.nan, steps=20)


def test_another_kind_of_evaluation_is_the_same_curve() -> None:
    built = fitted(quantiles=(0, 1))
    tokens = built.encode_continuous(chunks().double())
    low, high = built.state()["low"], built.state()["high"]
    points = (tokens[0].numpy() / 2 + 0.5) * (high - low) + low
    curve = BSpline(knots(10, 4), points.reshape(10, 3), 4)
    result = built.decode_continuous(tokens[:1], steps=17)[0].numpy()
    np.testing.assert_allclose(result, curve(np.linspace(0, 1, 17)), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_basis": 4}, "num_basis: found 4 for joint 0, expected at least 5 for degree 4"),
        ({"num_basis": [5, 5], "dof": 3}, "num_basis: found 2 numbers, expected one a joint: 3"),
        ({"degree": -1}, "degree: found -1, expected 0 to 10"),
        ({"degree": 0, "start_order": 1}, "degree: found 0, a curve with known ends"),
        ({"vocab": 1}, "vocab: found 1, expected at least 2"),
        ({"grippers": [3], "dof": 3}, "grippers: there is no column 3; the actions have 3"),
        ({"quantiles": (0.9, 0.1)}, "quantiles: found 0.9 and 0.1"),
        ({"ridge": -1.0}, "ridge: found -1.0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BSplineTokenizer(**options)


def test_a_chunk_shorter_than_the_bases() -> None:
    message = "num_basis: 10 bases cannot be found from a chunk of 8 steps; the largest usable .* 8"
    with pytest.raises(ValueError, match=message):
        fitted(chunks(steps=8))
    with pytest.raises(ValueError, match=message):
        fitted().encode(chunks(steps=8))
    assert fitted().decode(fitted().encode(chunks()), steps=3).shape == (100, 3, 3)
    with pytest.warns(UserWarning, match="num_basis: 30 bases of degree 4 on 30 steps"):
        fitted(chunks(steps=30), num_basis=30)
