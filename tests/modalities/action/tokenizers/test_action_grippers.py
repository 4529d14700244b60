"""Joints that move in steps: switch tokens are exact, degree-0 splines are what they are."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer
from sensorium.modalities.action.tokenizers.bspline.gripper import decode, encode, longest

Kind = Literal["degree0", "switch_times"]


def steps_at(switches: list[list[int]], steps: int, first: float = -1.0) -> Tensor:
    """`[B, steps, 2]`: a wave, and a gripper that flips at the samples of each list."""
    flips = torch.zeros(len(switches), steps)
    for row, places in zip(flips, switches, strict=True):
        row[places] = 1
    gripper = first * (1 - 2 * (flips.cumsum(1) % 2))
    wave = torch.sin(torch.linspace(0, 5, steps)) * torch.linspace(0.5, 1, len(switches))[:, None]
    return torch.stack([wave, gripper], -1)


def fitted(data: Tensor, gripper: Kind = "switch_times", **options: Any) -> BSplineTokenizer:
    built = BSplineTokenizer(grippers=[-1], gripper=gripper, **options)
    built.fit(data)
    return built


@pytest.mark.parametrize("steps", [10, 20, 50, 200])
def test_a_switch_at_every_sample_is_exact(steps: int) -> None:
    up = steps_at([[], *([k] for k in range(1, steps))], steps)
    data = torch.cat([up, up * torch.tensor([1.0, -1.0])])
    built = fitted(data, num_basis=[5, 2])
    assert built.length(steps) == 7
    back = built.decode(built.encode(data), steps=steps)
    assert torch.equal(back[..., 1], data[..., 1])
    again = built.decode_continuous(built.encode_continuous(data), steps=steps)
    assert torch.equal(again[..., 1], data[..., 1])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_so_many_switches_are_exact(data: st.DataObject) -> None:
    steps = data.draw(st.integers(2, longest(256)))
    places = data.draw(st.lists(st.integers(1, steps - 1), unique=True, max_size=12))
    spare = data.draw(st.integers(0, 3))
    chunk = steps_at([places], steps)[:, :, 1] > 0
    z = encode(chunk, 1 + len(places) + spare)
    assert z.shape == (1, 1 + len(places) + spare)
    assert ((z >= 0) & (z <= 1)).all()
    rounded = (z * 255).round() / 255
    u = torch.arange(steps) / max(steps - 1, 1)
    assert torch.equal(decode(rounded, u), chunk)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_any_ids_give_one_of_two_states(steps: int, count: int, seed: int) -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    built = fitted(data, num_basis=[5, count])
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (50, built.length(20)), generator=rng)
    result = built.decode(ids, steps=steps)[..., 1]
    assert set(result.unique().tolist()) <= {-1.0, 1.0}
    low, high = built.bounds()
    assert (low[1], high[1]) == (-1.0, 1.0)


def test_a_small_error_makes_no_switch_out_of_nothing() -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    built = fitted(data, num_basis=[5, 4])
    tokens = built.encode_continuous(data)
    off = tokens + 0.05 * torch.randn(tokens.shape, generator=torch.manual_seed(0))
    result = built.decode_continuous(off, steps=20)[..., 1]
    # An error of 0.05 in [-1, 1] moves a switch by a sample or so, and adds none.
    assert ((result[:, 1:] != result[:, :-1]).sum(1) <= 1).all()
    assert ((result != data[..., 1]).sum(1) <= 3).all()


def test_the_first_switches_are_kept() -> None:
    data = steps_at([[3, 6, 9, 12]], 20)
    built = fitted(torch.cat([data, steps_at([[5]], 20)]), num_basis=[5, 3])
    result = built.decode(built.encode(data), steps=20)[..., 1]
    assert torch.equal(result[:, :9], data[:, :9, 1])
    assert (result[:, 9:] == result[:, 8:9]).all()
    assert built.clipped()[1] == 0.5
    assert built.clipped(data)[1] == 1.0


@pytest.mark.parametrize("levels", [(0.0, 1.0), (-1.0, 1.0), (0.02, 0.08)])
def test_states_have_the_values_of_the_data(levels: tuple[float, float]) -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    data[..., 1] = torch.where(data[..., 1] > 0, levels[1], levels[0])
    built = fitted(data, num_basis=[5, 2])
    assert torch.equal(built.decode(built.encode(data), steps=20)[..., 1], data[..., 1])


def test_a_gripper_that_never_moves() -> None:
    data = steps_at([[]] * 5, 20)
    built = fitted(data)
    back = built.decode(built.encode(data), steps=20)
    assert torch.equal(back[..., 1], data[..., 1])


def test_a_step_on_a_piece_of_degree_0_is_exact_and_others_are_not() -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    built = fitted(data, "degree0", quantiles=(0.0, 1.0))
    assert built.length(20) == 20
    back = built.decode(built.encode(data), steps=20)
    off = (back[..., 1] - data[..., 1]).abs().amax(1) > 1e-5
    # Sample k lies in piece k // 2: row k - 1 of the data switches at sample k.
    assert torch.equal(off, torch.arange(1, 20) % 2 == 1)


def test_padding_keeps_the_last_state() -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    built = fitted(data, num_basis=[5, 2])
    padding = (torch.arange(20) >= 12).expand(len(data), -1)
    shown = data.masked_fill(padding[..., None], 7.0)
    back = built.decode(built.encode(shown, padding=padding), steps=20)[..., 1]
    assert torch.equal(back[:, :12], data[:, :12, 1])
    assert torch.equal(back[:, 12:], data[:, 11:12, 1].expand(-1, 8))
    other = BSplineTokenizer(grippers=[-1], num_basis=[5, 2])
    other.fit(zip(shown, padding, strict=True))
    assert other.bounds()[1][1] == 1.0


def test_a_pinned_start_leaves_grippers_alone() -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    built = fitted(data, num_basis=[6, 3], start_order=1)
    assert built.length(20) == 5 + 3
    start = data[:, 0] * torch.tensor([1.0, -1.0])
    back = built.decode(built.encode(data, start=start), steps=20, start=start)
    assert torch.equal(back[:, 0, 0], data[:, 0, 0])
    assert torch.equal(back[..., 1], data[..., 1])


def test_grippers_alone() -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)[..., 1:]
    built = fitted(data, num_basis=2)
    assert built.grid == (2, 1)
    assert torch.equal(built.decode(built.encode(data), steps=20), data)
    assert built.clipped() == built.clipped(data) == [0.0]
    bad = data.clone()
    bad[3, 2] = torch.nan
    with pytest.raises(ValueError, match="chunk 3 has nan at step 2, joint 0"):
        built.encode(bad)


def test_more_steps_than_bins_tell_apart() -> None:
    assert longest(256) == 227
    data = steps_at([[5]], 228)
    with pytest.raises(ValueError, match=r"vocab: 256 bins distinguish .* 227 steps, found .* 228"):
        fitted(data)
    fitted(data, vocab=258)
    fitted(data, "degree0")


def test_the_report_counts_switches() -> None:
    data = steps_at([[4, 9], [5, 13]], 20)
    built = fitted(data)
    report = built.errors()[1]
    assert report.num_basis[:3] == [1, 2, 3]
    assert report.max[:3] == [2.0, 2.0, 0.0]
    assert built.suggest(1e-3, measure="max")[1] == 3
    derivative = built.decode(built.encode(data), steps=20, derivative=1)
    assert not derivative[..., 1].any()


def test_a_joint_with_more_values_is_told() -> None:
    data = steps_at([[k] for k in range(1, 20)], 20)
    data[..., 1] = torch.linspace(-1, 1, 20)
    with pytest.warns(UserWarning, match="grippers: joint 1 has more than two values"):
        fitted(data)
