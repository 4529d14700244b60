"""The Fourier head against its definition by the autocorrelation of its coefficients."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from sensorium.tasks.control.decoders.fourier import FourierHead


def coefficients(frequencies: int, rows: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(frequencies)
    parts = torch.randn(2, rows, frequencies + 1, generator=generator, dtype=torch.float64)
    return torch.complex(*parts)


def correlations(a: Tensor) -> Tensor:
    """c_k = sum_l a_l conj(a_{l+k})."""
    count = a.shape[-1]
    return torch.stack([(a[:, : count - k] * a[:, k:].conj()).sum(1) for k in range(count)], 1)


def density(a: Tensor, z: Tensor) -> Tensor:
    """p(z) = 1/2 + Re sum_k (c_k / Re c_0) e^{i k pi z}."""
    c, k = correlations(a), torch.arange(1, a.shape[-1], dtype=torch.float64)
    waves = torch.exp(1j * math.pi * k[:, None] * z)
    return 0.5 + ((c[:, 1:] / c[:, :1].real) @ waves.to(c.dtype)).real


@pytest.mark.parametrize("frequencies", [0, 1, 4, 12])
def test_probabilities_are_the_paper_s_density_at_the_centres(frequencies: int) -> None:
    a, bins = coefficients(frequencies), 32
    centres = (2 * torch.arange(bins, dtype=torch.float64) + 1) / bins - 1
    expected = density(a, centres)
    expected = expected / expected.sum(1, keepdim=True)
    result = FourierHead(3, bins, frequencies).probabilities(a.real, a.imag)
    torch.testing.assert_close(result, expected)
    assert bool((result >= 0).all())
    torch.testing.assert_close(result.sum(1), torch.ones(5, dtype=torch.float64))


def test_the_density_integrates_to_one() -> None:
    for a in coefficients(6):
        result, _ = quad(lambda z, a=a: float(density(a[None], torch.tensor([z]).double())), -1, 1)
        assert result == pytest.approx(1.0)


def test_no_frequency_is_the_uniform_distribution() -> None:
    result = FourierHead(4, 8, 0)(torch.randn(3, 4)).softmax(-1)
    torch.testing.assert_close(result, torch.full((3, 8), 1 / 8))


def test_roughness_is_the_paper_s_sum() -> None:
    a = coefficients(5)
    c, k = correlations(a)[:, 1:], torch.arange(1, 6, dtype=torch.float64)
    expected = 2 * (2 * math.pi**2 * k**2 * c.abs().square()).sum(1)
    torch.testing.assert_close(FourierHead(3, 16, 5).roughness(a.real, a.imag), expected)


def test_half_precision_is_left_out_of_it() -> None:
    head, hidden = FourierHead(8, 16, 3), torch.randn(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = head(hidden)
    torch.testing.assert_close(result, head(hidden))
    assert result.dtype == torch.float32


def test_neighbouring_bins_learn_together() -> None:
    """Mass that a gradient gives to one bin reaches the next ones before the far ones."""
    torch.manual_seed(0)
    head, hidden = FourierHead(8, 64, 4), torch.randn(16, 8)
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(head(hidden), torch.full((16,), 20))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result = head(hidden).softmax(-1).mean(0)
    assert int(result.argmax()) == 20
    assert bool(result[19] > result[10] and result[21] > result[30])


def test_a_smooth_density_is_smoother_than_of_bins_with_fewer_parameters() -> None:
    """Of 300 draws of two bumps over 64 bins, the softmax learns every accident; the Fourier head,
    with fewer parameters, is smoother and no further from the density."""
    torch.manual_seed(0)
    places = torch.arange(64.0)
    density = torch.exp(-(((places - 20) / 6) ** 2)) + torch.exp(-(((places - 44) / 6) ** 2))
    density = density / density.sum()
    drawn = torch.multinomial(density, 300, replacement=True)
    hidden = torch.ones(1, 8)
    distance, roughness, sizes = {}, {}, {}
    heads = {"fourier": FourierHead(8, 64, 6), "bins": torch.nn.Linear(8, 64)}
    for name, head in heads.items():
        optimizer = torch.optim.Adam(head.parameters(), 0.02)
        for _ in range(300):
            loss = torch.nn.functional.cross_entropy(head(hidden).expand(300, -1), drawn)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        learned = head(hidden).softmax(-1)[0].detach()
        distance[name] = float((learned - density).abs().sum())
        roughness[name] = float(learned.diff(n=2).norm())
        sizes[name] = sum(p.numel() for p in head.parameters())
    assert sizes["fourier"] < sizes["bins"] / 2
    assert roughness["fourier"] < roughness["bins"] / 3, roughness
    assert distance["fourier"] < distance["bins"], distance


@pytest.mark.parametrize(
    ("bins", "frequencies", "line"), [(1, 0, "bins: found 1"), (8, 5, "frequencies: found 5")]
)
def test_wrong_sizes_are_named(bins: int, frequencies: int, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        FourierHead(4, bins, frequencies)
