"""B-spline bases and their least squares: scipy's, and the identities of BEAST's notes."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline, make_lsq_spline

from sensorium.modalities.action.tokenizers.bspline import knots, phases
from sensorium.modalities.action.tokenizers.bspline.basis import basis, greville
from sensorium.modalities.action.tokenizers.bspline.least_squares import Curve, solve

DEGREES = st.integers(0, 5)
RNG = np.random.default_rng(0)


def whole(steps: int) -> np.ndarray:
    return np.ones(steps, bool)


@settings(deadline=None, max_examples=60)
@given(DEGREES, st.integers(0, 12), st.integers(2, 60), st.integers(0, 3))
def test_the_basis_is_scipys(degree: int, more: int, steps: int, derivative: int) -> None:
    count = degree + 1 + more
    u = np.sort(np.concatenate([phases(steps), RNG.random(5), knots(count, degree)]))
    result = basis(u, count, degree, derivative)
    assert result.shape == (len(u), count)
    if derivative > degree:
        assert not result.any()
        return
    ends = knots(count, degree)
    curves = [BSpline(ends, unit, degree, extrapolate=False) for unit in np.eye(count)]
    expected = np.stack([c.derivative(derivative)(u) if derivative else c(u) for c in curves], 1)
    assert np.abs(result - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())
    if not derivative:
        matrix = BSpline.design_matrix(u, ends, degree).toarray()
        np.testing.assert_allclose(result, matrix, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(DEGREES, st.integers(0, 12), st.integers(2, 60))
def test_the_basis_obeys_the_recursion_of_cox_and_de_boor(
    degree: int, more: int, steps: int
) -> None:
    """Each degree from the one below; the last piece holds its right end."""
    count = degree + 1 + more
    u, ends = phases(steps), knots(count, degree)
    piece = np.clip(np.searchsorted(ends, u, side="right") - 1, 0, count - 1)
    rows = np.eye(count + degree)[piece]
    for order in range(1, degree + 1):
        spans = ends[order:] - ends[:-order]
        inverse = np.divide(1.0, spans, out=np.zeros_like(spans), where=spans > 0)
        left = (u[:, None] - ends[: -order - 1]) * inverse[:-1] * rows[:, :-1]
        right = (ends[order + 1 :] - u[:, None]) * inverse[1:] * rows[:, 1:]
        rows = left + right
    np.testing.assert_allclose(basis(u, count, degree), rows, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(DEGREES, st.integers(0, 12), st.integers(2, 60))
def test_the_basis_is_a_partition_of_unity(degree: int, more: int, steps: int) -> None:
    result = basis(phases(steps), degree + 1 + more, degree)
    assert np.abs(result.sum(1) - 1).max() <= 1e-12
    assert result.min() >= 0
    assert (result > 0).sum(1).max() <= degree + 1
    assert result[0, 0] == result[-1, -1] == 1  # end points are control points, exactly


def test_knots_and_rows_of_the_notes() -> None:
    sixths = np.arange(1, 6) / 6
    np.testing.assert_array_equal(knots(10, 4), [*[0] * 5, *sixths, *[1] * 5])
    np.testing.assert_array_equal(knots(5, 3), [0, 0, 0, 0, 0.5, 1, 1, 1, 1])
    rows = basis(np.array([0.25, 0.5]), 5, 3)
    np.testing.assert_allclose(rows[0], [0.125, 0.59375, 0.25, 0.03125, 0], atol=1e-15)
    np.testing.assert_allclose(rows[1], [0, 0.25, 0.5, 0.25, 0], atol=1e-15)


@pytest.mark.parametrize(("count", "degree"), [(5, 3), (10, 4), (5, 4), (8, 1), (12, 5)])
def test_a_line_has_greville_control_points(count: int, degree: int) -> None:
    points = solve(Curve(count, degree), whole(40)).points @ phases(40)
    np.testing.assert_allclose(points, greville(count, degree), atol=1e-10)


def test_greville_of_the_notes() -> None:
    np.testing.assert_allclose(greville(5, 3), [0, 1 / 6, 1 / 2, 5 / 6, 1], atol=1e-15)


@pytest.mark.parametrize(("steps", "count", "degree"), [(20, 10, 4), (10, 5, 4), (50, 8, 3)])
@pytest.mark.parametrize("ridge", [0.0, 1e-9])
def test_polynomials_up_to_the_degree_come_back(
    steps: int, count: int, degree: int, ridge: float
) -> None:
    u = phases(steps)
    back = basis(u, count, degree) @ solve(Curve(count, degree), whole(steps), ridge).points
    for power in range(degree + 1):
        assert np.abs(back @ u**power - u**power).max() < 2e-9
    above = u ** (degree + 1)
    assert np.abs(back @ above - above).max() > 1e-6


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 10), st.integers(0, 40), st.integers(1, 4))
def test_the_fit_is_scipys(degree: int, more: int, spare: int, dof: int) -> None:
    count = degree + 1 + more
    steps = count + spare
    chunk = np.random.default_rng(steps).normal(size=(steps, dof))
    result = solve(Curve(count, degree), whole(steps))
    expected = make_lsq_spline(phases(steps), chunk, knots(count, degree), degree).c
    assert np.abs(result.points @ chunk - expected).max() <= 1e-8


def test_a_step_of_degree_0_comes_back() -> None:
    curve = Curve(10, 0)
    rows = basis(phases(20), 10, 0)
    np.testing.assert_array_equal(rows.argmax(1), np.arange(20) // 2)
    step = (np.arange(20) >= 10).astype(float)
    np.testing.assert_allclose(rows @ (solve(curve, whole(20)).points @ step), step, atol=1e-12)


@pytest.mark.parametrize("count", range(1, 13))
def test_every_piece_of_degree_0_has_a_sample(count: int) -> None:
    for steps in range(count, 30):
        assert basis(phases(steps), count, 0).sum(0).min() >= 1


def test_more_bases_fit_a_sine_better() -> None:
    u = phases(50)
    wave = np.sin(2 * np.pi * u)
    errors = []
    for count in (5, 7, 10, 15):
        back = basis(u, count, 4) @ (solve(Curve(count, 4), whole(50)).points @ wave)
        errors.append(((back - wave) ** 2).mean())
    assert all(later < earlier / 50 for earlier, later in itertools.pairwise(errors))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_padding_has_no_say_and_its_curve_stays_near(
    degree: int, more: int, data: st.DataObject
) -> None:
    count = degree + more
    steps = count + data.draw(st.integers(1, 20))
    remaining = data.draw(st.integers(1, steps))
    real = np.arange(steps) < remaining
    result = solve(Curve(count, degree), real)
    assert not result.points[:, ~real].any()
    # A constant that ends early goes on as it was.
    np.testing.assert_allclose(result.points @ real.astype(float), 1.0, atol=1e-7)


@pytest.mark.parametrize("orders", [(1, 0), (2, 0), (0, 1), (0, 2), (2, 2)])
def test_known_ends_are_met(orders: tuple[int, int]) -> None:
    start, end = orders
    curve = Curve(10, 4, *orders)
    given_ends = RNG.normal(size=start + end)
    samples = RNG.normal(size=30)
    result = solve(curve, whole(30))
    points = curve.conditioned() @ given_ends
    points[curve.free] = result.points @ samples + result.shift @ given_ends
    ends = np.array([0.0, 1.0])
    met = [(basis(ends, 10, 4, order) @ points) for order in (0, 1)]
    np.testing.assert_allclose([m[0] for m in met][:start], given_ends[:start], atol=1e-12)
    np.testing.assert_allclose([m[1] for m in met][:end], given_ends[start:], atol=1e-12)


def test_a_bad_condition_is_told() -> None:
    from sensorium.modalities.action.tokenizers.bspline.least_squares import warn

    with pytest.warns(UserWarning, match="num_basis: 20 bases .* on 20 steps"):
        warn(Curve(20, 4), 20, 2e4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn(Curve(10, 4), 20, 1e3)
