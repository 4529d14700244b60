"""Forecasts without a model."""

from __future__ import annotations

import numpy as np

from sensorium.tasks.forecast.baselines import (
    LinearBaseline,
    filled,
    last_value,
    seasonal_naive,
)


def test_baselines_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    season = rng.normal(size=(2, 6))
    context = np.tile(season, 4)[:, :20]
    expected = np.tile(season, 6)[:, 20:32]
    np.testing.assert_array_equal(seasonal_naive(context, 12, 6), expected)
    gaps = context.copy()
    gaps[0, 14:] = np.nan  # the last season: the one before answers
    np.testing.assert_array_equal(seasonal_naive(gaps, 12, 6), expected)
    np.testing.assert_array_equal(last_value(gaps, 2)[:, 0], [context[0, 13], context[1, 19]])
    assert filled(np.array([[np.nan, 2.0, np.nan, 3.0]])).tolist() == [[2, 2, 2, 3]]


def test_the_linear_map_is_the_least_squares_solution() -> None:
    """On series that a linear map continues, up to the scale of each: nothing is left."""
    rng, steps = np.random.default_rng(0), np.arange(30)
    triples = []
    for _ in range(40):
        wave = rng.normal() * np.sin(steps / 3 + rng.uniform(0, 6)) + rng.normal()
        triples.append((("a",), wave[None, :24], wave[None, 24:]))
    linear = LinearBaseline(ridge=1e-9)
    linear.fit(triples)
    forecast = linear.forecast(triples[0][1], 6)
    assert forecast is not None
    np.testing.assert_allclose(forecast, triples[0][2], atol=1e-3)
    assert linear.forecast(triples[0][1], 7) is None
    assert linear.forecast(triples[0][1][:, 1:], 6) is None
