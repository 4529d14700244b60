"""What a fit learns in one pass: bounds, the clipped share, and errors by number of bases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer
from sensorium.modalities.action.tokenizers.quantiles import Reservoir, bounds, scale
from sensorium.modalities.action.tokenizers.validation import BLOCK, forward_fill


def chunks(count: int = 300, steps: int = 20, dof: int = 2, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    u = torch.linspace(0, 6, steps)[None, :, None]
    amplitude = torch.rand(count, 1, dof, generator=rng)
    return amplitude * torch.sin(u + 6 * torch.rand(count, 1, dof, generator=rng))


def fitted(rows: Any, **options: Any) -> BSplineTokenizer:
    built = BSplineTokenizer(**options)
    built.fit(rows)
    return built


def test_bounds_are_quantiles_of_the_control_points() -> None:
    data = chunks().double()
    built = fitted(data, quantiles=(0.05, 0.95))
    wide = fitted(data, quantiles=(0.0, 1.0))
    state = wide.state()
    z = wide.encode_continuous(data).numpy() / 2 + 0.5
    points = state["low"] + z * (state["high"] - state["low"])
    low, high = np.quantile(points, (0.05, 0.95), axis=0)
    np.testing.assert_allclose(built.state()["low"], low, atol=1e-12)
    np.testing.assert_allclose(built.state()["high"], high, atol=1e-12)


def test_the_clipped_share_is_told_a_joint() -> None:
    data = chunks(1000)
    built = fitted(data, quantiles=(0.05, 0.95))
    assert built.clipped() == pytest.approx([0.1, 0.1], abs=0.01)
    assert built.clipped(data) == pytest.approx(built.clipped(), abs=1e-3)
    assert fitted(data, quantiles=(0.0, 1.0)).clipped() == [0.0, 0.0]
    moved = data + torch.tensor([0.0, 50.0])
    share = built.clipped(moved)
    assert share[0] == pytest.approx(0.1, abs=0.01)
    assert share[1] == 1.0
    with pytest.warns(UserWarning, match=r"actions: joint 1 lies \d+ times the width"):
        built.encode(moved)
    with pytest.raises(ValueError, match="chunk 0 has nan"):
        built.clipped(data * torch.nan)


def test_blocks_do_not_matter() -> None:
    data = chunks(BLOCK + 200)
    whole, streamed = fitted(data), fitted(iter(data))
    assert whole.state()["errors"] == streamed.state()["errors"]
    np.testing.assert_array_equal(whole.state()["low"], streamed.state()["low"])


def test_chunks_of_several_lengths() -> None:
    rows = [*chunks(50, 20), *chunks(50, 33), *chunks(50, 12)]
    built = fitted(rows)
    for steps in (12, 20, 33, 61):
        data = chunks(20, steps, seed=1)
        back = built.decode(built.encode(data), steps=steps)
        assert (back - data).abs().mean() < 0.02


def test_a_reservoir_is_an_even_sample() -> None:
    remaining = Reservoir(500)
    for block in np.arange(10_000.0).reshape(-1, 50):
        remaining.add(block[:, None])
    rows = remaining.rows()[:, 0]
    assert remaining.seen == 10_000
    assert len(rows) == len(set(rows)) == 500
    assert (np.diff(rows) > 0).all()
    counts, _ = np.histogram(rows, bins=5, range=(0, 10_000))
    assert counts.min() > 60  # 100 each, give or take four deviations


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_a_scale_never_divides_by_nothing(values: list[float]) -> None:
    rows = np.array(values)[:, None]
    low, high = bounds(rows, (0.01, 0.99))
    result = scale(low, high)
    assert np.isfinite(result).all()
    assert (result == 0).all() or (low < high).all()


def test_a_joint_that_seldom_moves_is_no_constant() -> None:
    data = chunks(1000)
    data[:, :, 1] = 0.0
    data[:3, :, 1] = 1.0
    built = fitted(data)
    back = built.decode(built.encode(data[:5]), steps=20)
    torch.testing.assert_close(back[..., 1], data[:5, :, 1], atol=1e-5, rtol=0)


def padded(data: Tensor) -> tuple[Tensor, Tensor]:
    """Tails of random lengths, filled with something else."""
    rng = torch.Generator().manual_seed(1)
    real = torch.randint(1, data.shape[1] + 1, (len(data), 1), generator=rng)
    padding = torch.arange(data.shape[1]) >= real
    return data.masked_fill(padding[..., None], 99.0), padding


def test_padded_tails_are_masked_in_the_fit() -> None:
    data = chunks()
    shown, padding = padded(data)
    other = shown.masked_fill(padding[..., None], torch.nan)
    built = fitted(zip(shown, padding, strict=True))
    twin = fitted(((c, p) for c, p in zip(other, padding, strict=True)))
    assert built.state()["errors"] == twin.state()["errors"]
    low, high = built.bounds()
    assert low.min() > -3
    assert high.max() < 3
    error = built.errors()[0]
    assert error.max[-1] < 1  # not the 99 of the padding


def test_held_repeats_the_nearest_real_sample() -> None:
    values = torch.arange(5.0).view(1, 5, 1).expand(3, -1, -1)
    real = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [1, 0, 1, 0, 1]]).bool()
    expected = [[0, 1, 1, 1, 1], [2, 2, 2, 3, 3], [0, 0, 2, 2, 4]]
    assert forward_fill(values, real)[..., 0].tolist() == expected


@pytest.mark.parametrize("options", [{}, {"start_order": 1}, {"grippers": [1], "num_basis": 8}])
def test_the_report_is_what_it_says(options: dict[str, Any]) -> None:
    """The errors of `n` bases are those of a tokenizer of `n` bases."""
    data = chunks().double()
    if "grippers" in options:
        data[..., 1] = data[..., 1].sign()
        options = {**options, "gripper": "degree0"}
    built = fitted(data, **options)
    for n in (6, 8):
        other = fitted(data, **{**options, "num_basis": n, "quantiles": (0.0, 1.0)})
        start = {"start": data[:, 0]} if "start_order" in options else {}
        back = other.decode_continuous(other.encode_continuous(data), steps=20, **start)
        off = (back - data).abs()
        for d, row in enumerate(built.errors()):
            at = row.num_basis.index(n)
            assert row.joint == d
            assert row.mean[at] == pytest.approx(float(off[..., d].mean()), abs=1e-9)
            assert row.max[at] == pytest.approx(float(off[..., d].max()), abs=1e-9)


def test_enough_bases_are_suggested() -> None:
    data = chunks().double()
    data[..., 1] /= 100
    built = fitted(data)
    for measure in ("mean", "max"):
        counts = built.suggest(1e-3, measure=measure)
        assert counts[1] < counts[0] <= 20
        other = fitted(data, num_basis=counts, quantiles=(0.0, 1.0))
        off = (other.decode_continuous(other.encode_continuous(data), steps=20) - data).abs()
        result = off.amax((0, 1)) if measure == "max" else off.mean((0, 1))
        assert (result <= 1e-3).all()
    noise = fitted(torch.randn(50, 40, 1, generator=torch.manual_seed(0)))
    with pytest.raises(ValueError, match=r"error: joint 0 stays .* with up to 32 bases"):
        noise.suggest(1e-3)


def test_the_state_is_json_and_arrays() -> None:
    data = chunks()
    data[..., 1] = data[..., 1].sign()
    state = fitted(data, grippers=[1]).state()
    arrays = {key for key, value in state.items() if isinstance(value, np.ndarray)}
    assert arrays == {"low", "high", "levels"}
    with pytest.raises(ValueError, match=r"num_basis: the saved .* 20 control points.* have 16"):
        BSplineTokenizer(num_basis=8).load_state(fitted(chunks()).state())


def test_a_generator_is_read_once() -> None:
    read = 0

    def rows() -> Iterator[Tensor]:
        nonlocal read
        for chunk in chunks():
            read += 1
            yield chunk

    fitted(rows())
    assert read == 300
