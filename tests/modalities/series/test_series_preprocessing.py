"""Channels by name, one rate, one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from sensorium.modalities.base import ReadError
from sensorium.modalities.series.augment import SeriesAugment
from sensorium.modalities.series.preprocessing import Preprocessing, SeriesProcessor, resample
from sensorium.modalities.series.read import read
from sensorium.modalities.series.series import Series

RNG = np.random.default_rng(0)


def series(values: Any, rate: float | None = 10.0, names: tuple[str, ...] = ("a", "b")) -> Series:
    return Series(np.asarray(values, float), rate, names)


@pytest.mark.parametrize("rate", [5.0, 20.0, 25.0, 360.0])
def test_a_series_is_resampled_as_scipy_does(rate: float) -> None:
    values = RNG.normal(size=(2, 200))
    up, down = {5.0: (1, 2), 20.0: (2, 1), 25.0: (5, 2), 360.0: (36, 1)}[rate]
    expected = resample_poly(values, up, down, axis=1, padtype="line")
    np.testing.assert_allclose(resample(series(values), rate).values, expected)


def test_what_lies_above_the_new_rate_is_removed() -> None:
    """A tone at 4 Hz would be one at 1 Hz after plain decimation to 5 Hz."""
    tone = np.sin(2 * np.pi * 4 * np.arange(1000) / 20)
    assert np.abs(tone[::4]).max() > 0.9
    low = resample(series([tone], 20.0, ("a",)), 5.0).values
    assert np.abs(low[0, 10:-10]).max() < 0.02


def test_gaps_stay_gaps_at_another_rate() -> None:
    values = np.ones((2, 100)) * [[3.0], [5.0]]
    values[0, 40:60] = np.nan
    half = resample(series(values), 5.0)
    assert (~half.mask).sum(1).tolist() == [10, 0]
    np.testing.assert_allclose(half.values[1], 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("raw", "rate", "line"),
    [
        (series(RNG.normal(size=(2, 9)), None), 5.0, "a series without a rate"),
        (series(RNG.normal(size=(2, 9)), 1.0), 20_001.0, "no filter of a sane size"),
    ],
)
def test_a_rate_that_cannot_be_reached_is_one_line(raw: Series, rate: float, line: str) -> None:
    with pytest.raises(ReadError, match=line):
        resample(raw, rate)


@pytest.mark.parametrize("normalize", ["sample", "fitted", "none"])
def test_values_come_back_from_the_normalized_ones(normalize: Any) -> None:
    rows = [series(RNG.normal(5, 3, (2, n)) * [[1.0], [100.0]]) for n in (40, 60)]
    rows[0].values[0, 3:9] = np.nan
    part = Preprocessing(normalize=normalize)
    part.fit(rows)
    sample = SeriesProcessor(part).prepare(rows[0])
    values, shift, scale = (sample[key].double().numpy() for key in ("values", "shift", "scale"))
    back = values * scale[:, None] + shift[:, None]
    seen = rows[0].mask
    np.testing.assert_allclose(back[seen], rows[0].values[seen], rtol=1e-4)
    assert (values[~seen] == 0).all() and (sample["mask"].numpy() == seen).all()
    if normalize == "fitted":
        every = np.concatenate([row.values for row in rows], 1)
        np.testing.assert_allclose(part.shift, np.nanmean(every, 1))
        np.testing.assert_allclose(part.scale, np.nanstd(every, 1))
    other = Preprocessing(normalize=normalize)
    other.load_state(part.state())
    assert other.settings() == part.settings()


def test_offset_and_scale_do_not_change_a_normalized_sample() -> None:
    raw = series(RNG.normal(size=(2, 50)))
    part = Preprocessing()
    part.fit([raw])
    a = SeriesProcessor(part).prepare(raw)
    b = SeriesProcessor(part).prepare(series(raw.values * 7 - 1000))
    np.testing.assert_allclose(a["values"], b["values"], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "raw", "line"),
    [
        ({}, series(np.ones((2, 9))), "the channel 'a' is constant, 1; expected one that varies"),
        ({}, series(RNG.normal(size=(2, 9)), 10.0, ("a", "x")), "no channel 'b'"),
        ({"length": 12}, series(RNG.normal(size=(2, 9))), "9 samples; expected at least length"),
        ({"channels": ["a"]}, series([[np.nan] * 9, range(9)]), "not one measured value in a"),
    ],
)
def test_a_series_that_does_not_fit_is_one_line(
    options: dict[str, Any], raw: Series, line: str
) -> None:
    part = Preprocessing(**options)
    part.fit([series(RNG.normal(size=(2, 20)))])
    with pytest.raises(ReadError) as error:
        SeriesProcessor(part).prepare(raw)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_training_rows_of_several_rates_need_one() -> None:
    rows = [series(RNG.normal(size=(2, 20)), rate) for rate in (10.0, 20.0)]
    with pytest.raises(ValueError, match="row 1 has 20 Hz, those before it 10 Hz; set rate"):
        Preprocessing().fit(rows)
    part = Preprocessing(rate=10.0)
    part.fit(rows)
    assert SeriesProcessor(part).prepare(rows[1])["values"].shape == (2, 10)


@pytest.mark.parametrize(
    "options",
    [
        {"speed": 0.3}, {"noise": 0.5}, {"gain": 0.5}, {"shift": 0.5},
        {"time_masks": 3, "time_width": 0.5}, {"drop_channel": 0.9},
    ],
)  # fmt: skip
def test_an_augment_changes_a_sample_and_hides_no_whole_one(options: dict[str, Any]) -> None:
    part = Preprocessing()
    part.fit([raw := read(series(RNG.normal(size=(2, 60))))])
    sample, augment = SeriesProcessor(part).prepare(raw), SeriesAugment(**options)
    made = [augment(sample, np.random.default_rng(seed)) for seed in range(20)]
    again = augment(sample, np.random.default_rng(3))
    assert (made[3]["values"] == again["values"]).all()
    assert any(
        m["values"].shape != sample["values"].shape or (m["values"] != sample["values"]).any()
        for m in made
    )
    for each in made:
        assert each["mask"].any() and (each["values"][~each["mask"]] == 0).all()
        assert each["values"].shape == each["mask"].shape
