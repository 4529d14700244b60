"""Generated and recorded series: what a row says is what its values show."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.data.holdout import hold_out
from sensorium.engine.recipe import Holdout
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import ReadError
from sensorium.modalities.series.datasets.beats import RHYTHMS
from sensorium.modalities.series.datasets.ecg import Ecg
from sensorium.modalities.series.datasets.waves import HELD_OUT, Waves
from sensorium.modalities.series.datasets.windows import RECORDINGS, SeriesWindows
from sensorium.modalities.series.read import read
from sensorium.testing import check_source

CARRIED = {"name": "elnino", "context": 48, "horizon": 12}
SOURCES: list[tuple[type, dict[str, Any]]] = [
    (Waves, {"split": "train", "count": 20, "channels": 2}),
    (Waves, {"split": "held_out", "count": 20, "missing": 0.2}),
    (Ecg, {"split": "train", "count": 20, "seconds": 2.0}),
    (SeriesWindows, {**CARRIED, "split": "train"}),
    (SeriesWindows, {"name": "co2", "context": 52, "horizon": 26, "examples": 1, "stride": 9}),
]


@pytest.mark.parametrize(("source", "options"), SOURCES)
def test_a_source_meets_the_contract(source: type, options: dict[str, Any]) -> None:
    if "name" in options:
        pytest.importorskip("statsmodels")
    check_source(source, **options)


def test_no_future_of_the_test_was_seen_in_training() -> None:
    pytest.importorskip("statsmodels")
    splits = [SeriesWindows(**CARRIED, split=s) for s in ("train", "validation", "test")]
    for before, after in itertools.pairwise(splits):
        ends = max(f + 60 for _, f in before._places), min(f + 48 for _, f in after._places)
        assert ends[0] <= ends[1]
    test = splits[-1]
    row, (_, first) = test[0], test._places[0]
    whole = test.recordings[0][1]
    past, future = read(row["series"]), read(row["future"])
    np.testing.assert_array_equal(past.values, whole.values[:, first : first + 48])
    np.testing.assert_array_equal(future.values, whole.values[:, first + 48 : first + 60])
    assert future.start == pytest.approx(past.start + 48 / past.rate)


@pytest.mark.parametrize(("name", "steps"), [("elnino", 732), ("co2", 2284), ("sunspots", 309)])
def test_recordings_are_those_of_statsmodels(name: str, steps: int) -> None:
    pytest.importorskip("statsmodels")
    series = RECORDINGS[name]()
    assert series.steps == steps
    days = {"elnino": ("1950-01-15", "2010-12-15"), "co2": ("1958-03-29", "2001-12-29")}
    if name in days:
        assert (series.time(0), series.time(steps - 1)) == days[name]


def test_files_of_a_user_become_windows(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        rows = "\n".join(f"{i},{i % 7},{i}" for i in range(50))
        (tmp_path / f"{name}.csv").write_text(f"time,flow,level\n{rows}\n")
    source = SeriesWindows(path=str(tmp_path), context=10, horizon=5, channels=["flow"], stride=5)
    assert [source[0]["recording"], source[len(source) - 1]["recording"]] == ["monday", "tuesday"]
    assert read(source[0]["series"]).channels == ("flow",) and len(set(source.groups)) == 2


def test_one_bad_recording_fails_alone_and_a_short_one_is_listed(tmp_path: Path) -> None:
    lengths = {"a": 50, "b": 50, "short": 12}
    for name, steps in lengths.items():
        rows = "\n".join(f"{i},{i % 7}" for i in range(steps))
        (tmp_path / f"{name}.csv").write_text(f"time,flow\n{rows}\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_text("time,flow\n0,high\n1,low\n")
    source = SeriesWindows(path=str(tmp_path), context=10, horizon=5)
    assert len(source) == 36 + 36 + 2 and len(source.faults) == 2
    for row, reason in source.faults.items():
        with pytest.raises(ReadError, match=r"(empty|words)\.csv") as caught:
            source[row]
        assert str(caught.value) == reason and "\n" not in reason
    assert [Path(name).name for name in source.ignored] == ["short.csv"]


@pytest.mark.parametrize("recordings", [1, 3])
def test_overlapping_windows_are_never_parted(tmp_path: Path, recordings: int) -> None:
    for name in range(recordings):
        rows = "\n".join(f"{i},{i % 7}" for i in range(50))
        (tmp_path / f"{name}.csv").write_text(f"time,flow\n{rows}\n")
    source = SeriesWindows(path=str(tmp_path), context=10, horizon=5)
    holdout = Holdout(share=0.34)
    if recordings == 1:
        with pytest.raises(ConfigError, match=r"0\.34 of 1 groups is 0"):
            hold_out(source, holdout, "holdout", skip=False)
        return
    parts = hold_out(source, holdout, "holdout", skip=False)
    names = [{part.key(i).split("/")[0] for i in range(len(part))} for part in parts]
    assert not names[0] & names[1] and len(names[1]) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"context": 48, "horizon": 12}, "found both or neither of path and name"),
        ({**CARRIED, "context": 1}, "context: found 1, expected at least 2"),
        ({**CARRIED, "horizon": 900}, r"no window of 48 \+ 900 samples"),
        ({"path": "gone.csv", "context": 4, "horizon": 2}, "there is no file or folder"),
    ],
)
def test_windows_that_cannot_be_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        len(SeriesWindows(**options))


def test_a_wave_goes_on_as_it_was_and_splits_differ() -> None:
    options: dict[str, Any] = {"count": 30, "noise": 0.0, "context": 96, "horizon": 32}
    for row in Waves(split="train", **options):  # type: ignore[attr-defined]
        whole = np.concatenate([read(row[k]).values for k in ("series", "future")], 1)[0]
        assert (row["shape"], row["trend"]) not in HELD_OUT
        assert row["caption"] == f"a {row['speed']} {row['shape']} wave, {row['trend']}"
        if row["trend"] == "level" and row["shape"] == "sine":
            steps = np.arange(len(whole)) / row["period"] * 2 * np.pi
            basis = np.stack([np.sin(steps), np.cos(steps), np.ones_like(steps)], 1)
            rest = whole - basis @ np.linalg.lstsq(basis, whole, rcond=None)[0]
            assert np.abs(rest).max() < 1e-6 * np.abs(whole).max()
    for row in Waves(split="held_out", **options):  # type: ignore[attr-defined]
        assert (row["shape"], row["trend"]) in HELD_OUT


def r_peaks(values: np.ndarray, rate: float) -> np.ndarray:
    """Return the times of the R peaks of lead II without noise."""
    from scipy.signal import find_peaks

    places, _ = find_peaks(values, height=0.55, distance=round(0.2 * rate))
    return places / rate


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_a_rhythm_shows_in_the_beats(rhythm: str) -> None:
    source = Ecg(
        split="train", count=6, rhythms=[rhythm], leads=["II"], noise=0.0, seconds=20, rate=250
    )
    rates, spread = [], []
    for row in source:  # type: ignore[attr-defined]
        intervals = np.diff(r_peaks(read(row["series"]).values[0], 250))
        rates.append(60 / intervals.mean() / row["beats_per_minute"])
        spread.append(intervals.std() / intervals.mean())
    expected = {"second-degree block": 0.75}.get(rhythm, 1.0)
    assert np.mean(rates) == pytest.approx(expected, rel=0.08)
    irregular = {"atrial fibrillation", "ventricular ectopic beats", "second-degree block"}
    assert (np.mean(spread) > 0.1) == (rhythm in irregular)


def test_limb_leads_follow_from_two() -> None:
    leads = ["I", "II", "III", "aVR", "aVL", "aVF"]
    row = Ecg(split="train", leads=leads, noise=0.0, seconds=2.0)[0]
    values = read(row["series"]).values
    spread = np.ptp(values, 1)
    slow = np.ptp(values[0] + values[2] - values[1])  # the baselines wander apart
    assert slow < 0.35 < spread.max()
    with pytest.raises(ValueError, match="leads: found 'IV', expected I, II"):
        Ecg(split="train", leads=["IV"])
