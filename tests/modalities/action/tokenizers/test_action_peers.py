"""FAST and bins: the identities of their papers, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct, idct
from torch import Tensor

from sensorium.modalities.action.tokenizers import BinTokenizer, FastTokenizer
from sensorium.modalities.action.tokenizers.fast import cosines


def chunks(count: int = 100, steps: int = 20, dof: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    u = torch.linspace(0, 6, steps)[None, :, None]
    return torch.sin(u + 6 * torch.rand(count, 1, dof, generator=rng))


def unit(tokenizer: FastTokenizer | BinTokenizer, joints: int) -> None:
    """Bounds of exactly [-1, 1]: what the papers' numbers are said of."""
    tokenizer.load_state({**tokenizer.state(), "low": -np.ones(joints), "high": np.ones(joints)})


@given(st.integers(1, 64))
def test_the_transform_is_scipys(steps: int) -> None:
    ours = cosines(steps).numpy()
    eye = np.eye(steps)
    np.testing.assert_allclose(ours, dct(eye, axis=0, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(ours.T, idct(eye, axis=0, norm="ortho"), atol=1e-12)


def test_a_constant_has_one_coefficient() -> None:
    values = torch.full((8,), 0.5, dtype=torch.float64)
    result = cosines(8) @ values
    torch.testing.assert_close(float(result[0]), 2**0.5)
    assert result[1:].abs().max() < 1e-12
    built = FastTokenizer()
    built.fit(torch.stack([values, -values, 2 * values, -2 * values])[..., None])
    unit(built, 1)
    back = built.decode(built.encode(values[None, :, None]), steps=8)
    # round(10 sqrt(2)) = 14, and 14 / 10 / sqrt(8) comes back.
    torch.testing.assert_close(back, torch.full((1, 8, 1), 1.4 / 8**0.5))


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(1, 5), st.sampled_from([5.0, 10.0, 40.0]))
def test_rounding_costs_half_a_step_a_coefficient(steps: int, dof: int, scale: float) -> None:
    data = chunks(60, steps, dof)
    built = FastTokenizer(scale=scale)
    built.fit(data)
    unit(built, dof)
    back = built.decode(built.encode(data), steps=steps)
    assert ((back - data).norm(dim=1) <= 0.5 / scale * steps**0.5 + 1e-4).all()


def test_lengths_vary_and_smooth_chunks_are_short() -> None:
    built = FastTokenizer()
    data = chunks()
    built.fit(data)
    lengths = [len(ids) for ids in built.encode(data)]
    assert built.length(20) is None
    assert len(set(lengths)) > 1
    assert max(lengths) < 60  # 20 steps x 3 joints
    assert built.size <= 1024


def test_a_malformed_sequence_stands_for_no_chunk() -> None:
    built = FastTokenizer()
    data = chunks()
    built.fit(data)
    ids = built.encode(data[:3])
    message = r"ids: sequence 1 has \d+ numbers, expected 20 steps x 3 joints = 60"
    with pytest.raises(ValueError, match=message):
        built.decode([ids[0], ids[1][:-1], ids[2]], steps=20)
    with pytest.raises(ValueError, match=message):
        built.decode([ids[0], torch.cat([ids[1], ids[1][:1]]), ids[2]], steps=20)
    with pytest.raises(ValueError, match="sequence 0 has 60 numbers, expected 19 steps"):
        built.decode(ids, steps=19)


def test_more_numbers_than_ids() -> None:
    with pytest.raises(ValueError, match=r"vocab: the rounded .* use a smaller scale"):
        FastTokenizer(scale=1000, vocab=256).fit(chunks())
    with pytest.raises(ValueError, match="scale: found 0, expected more than 0"):
        FastTokenizer(scale=0)


def test_coefficients_beyond_the_fitted_are_clipped() -> None:
    built = FastTokenizer()
    built.fit(chunks())
    back = built.decode(built.encode(100 * chunks(5)), steps=20)
    assert torch.isfinite(back).all()
    assert back.abs().max() < 20


def test_openvlas_bins() -> None:
    """255 bins of [-1, 1], counted from below: its ids are 31999 minus ours."""
    built = BinTokenizer(vocab=255)
    built.fit(chunks(dof=1))
    unit(built, 1)
    requested = torch.tensor([-1.0, 0.0, 1.0, -7.0, 7.0]).view(1, 5, 1)
    ids = built.encode(requested)
    assert ids.tolist() == [[0, 127, 254, 0, 254]]
    centres = built.decode(ids, steps=5).flatten()
    expected = torch.tensor([-254, 0, 254, -254, 254]) / 255
    torch.testing.assert_close(centres, expected, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(2, 300))
def test_bins_are_half_a_bin_off_at_most(steps: int, dof: int, vocab: int) -> None:
    data = chunks(60, steps, dof)
    built = BinTokenizer(vocab=vocab, quantiles=(0.0, 1.0))
    built.fit(data)
    assert built.length(steps) == steps * dof
    back = built.decode(built.encode(data), steps=steps)
    half = (data.amax((0, 1)) - data.amin((0, 1))) / (2 * vocab)
    assert ((back - data).abs().amax((0, 1)) <= half * (1 + 1e-4) + 1e-6).all()


def test_bins_take_any_ids_of_the_right_number() -> None:
    built = BinTokenizer()
    built.fit(chunks())
    ids = torch.randint(0, 256, (1000, 60), generator=torch.manual_seed(0))
    result = built.decode(ids, steps=20)
    assert result.abs().max() <= 1
    assert torch.equal(built.encode(result), ids)
    assert torch.equal(result, built.decode(ids.view(-1, 20, 3), steps=20))
    with pytest.raises(ValueError, match=r"ids: found \(1000, 60\), expected \[B, 57\]"):
        built.decode(ids, steps=19)


@pytest.mark.parametrize("make", [FastTokenizer, BinTokenizer])
def test_they_pin_no_start(make: type[FastTokenizer | BinTokenizer]) -> None:
    built = make()
    built.fit(chunks())
    assert not built.fixed_start
    with pytest.raises(ValueError, match="start: this tokenizer pins no start"):
        built.encode(chunks(), start=chunks()[:, 0])
