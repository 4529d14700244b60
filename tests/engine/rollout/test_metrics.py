"""Figures of episodes: intervals, jerk, films, the table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sensorium.engine.rollout import format_summaries, wilson
from sensorium.engine.rollout.metrics import Episode, mean_squared_jerk, summary
from sensorium.engine.rollout.video import write_video
from sensorium.engine.utils import ConfigError


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_shares_that_a_score_test_would_not_refuse(
    count: int, data: st.DataObject
) -> None:
    """Its ends solve |k / n - p| = z sqrt(p (1 - p) / n)."""
    successes = data.draw(st.integers(0, count))
    z, share = 1.959963984540054, successes / count
    low, high = wilson(successes, count)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            right = z * math.sqrt(end * (1 - end) / count)
            assert math.isclose(abs(share - end), right, rel_tol=1e-9)


@given(st.integers(1, 300), st.data())
def test_wilson_is_symmetric_and_shrinks(count: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, count))
    low, high = wilson(successes, count)
    mirrored = wilson(count - successes, count)
    np.testing.assert_allclose((low, high), (1 - mirrored[1], 1 - mirrored[0]), atol=1e-12)
    wide, tight = (high - low), np.ptp(wilson(4 * successes, 4 * count))
    assert tight < wide


def test_no_episode_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(4, 30), st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_jerk_of_a_cubic_is_its_third_difference(n: int, a: float, b: float, c: float) -> None:
    t = np.arange(n, dtype=float)
    path = np.stack([a * t**3 + b * t**2 + c, b * t], 1)
    assert math.isclose(mean_squared_jerk(path), 36 * a * a, rel_tol=1e-6, abs_tol=1e-9)


def test_jerk_of_three_steps_is_not_defined() -> None:
    assert math.isnan(mean_squared_jerk(np.zeros((3, 2))))


def episode(successes: list[bool], seed: int = 0) -> Episode:
    result = Episode(seed)
    for i, success in enumerate(successes):
        result.record(np.array([float(i)]), success, None)
    return result


def test_a_summary_counts_success_at_any_step_and_at_the_last() -> None:
    three = [[False, True, False], [False, False, True], [False] * 3]
    result = summary([episode(s) for s in three])
    assert result["episodes"] == 3 and result["steps"] == 9
    assert math.isclose(result["success"], 2 / 3)
    assert math.isclose(result["success_at_end"], 1 / 3)
    assert result["success_interval"] == wilson(2, 3)
    assert result["steps_to_success"] == 2.5
    assert result["command_jerk"] is None and result["hand_jerk"] is None
    lines = format_summaries({"a/x": result, "a/y": result}).splitlines()
    assert [line.split()[0] for line in lines] == ["environment", "a/x", "a/y", "mean"]


FRAMES = [np.full((17, 33, 3), 20 * i, np.uint8) for i in range(5)]


@pytest.mark.parametrize(("fps", "pause"), [(10, 100), (80, 20)])
def test_a_gif_has_its_frames_and_loops(tmp_path: Path, fps: float, pause: int) -> None:
    with Image.open(write_video(tmp_path / "film.gif", FRAMES, fps)) as film:
        assert film.n_frames == 5 and film.info["loop"] == 0
        for number, frame in enumerate(FRAMES):
            film.seek(number)
            assert film.info["duration"] == pause  # ms; a viewer takes no less than 20
            np.testing.assert_array_equal(np.asarray(film.convert("RGB")), frame)


@pytest.mark.slow
def test_an_mp4_has_its_frames_with_even_sides(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(write_video(tmp_path / "film.mp4", FRAMES, 12.5))) as film:
        (stream,) = film.streams.video
        assert stream.codec_context.name == "h264" and stream.average_rate == 12.5
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    assert [frame.shape for frame in frames] == [(16, 32, 3)] * 5
    assert np.abs([f.mean() - i * 20 for i, f in enumerate(frames)]).max() < 6  # it is lossy


def test_a_film_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws no picture"):
        write_video(tmp_path / "a.gif", [], 10)
    with pytest.raises(ConfigError, match=r"found '.avi', expected .gif or .mp4"):
        write_video(tmp_path / "a.avi", [np.zeros((2, 2, 3), np.uint8)], 10)
