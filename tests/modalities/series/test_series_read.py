"""Time series of every format: the values are those of the library that defines it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from sensorium.modalities.base import ReadError
from sensorium.modalities.series.preview import pace, preview
from sensorium.modalities.series.read import cells, files, read
from sensorium.modalities.series.series import Series

RATE = 100.0
START = datetime(2024, 3, 1, 12, 30)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.round(np.cumsum(rng.normal(size=(3, 500)), 1), 3)


def write(kind: str, folder: Path, values: np.ndarray) -> Path:
    """Write a file of one kind with the channels a, b, c at 100 Hz from `START`."""
    names, path = ["a", "b", "c"], folder / f"record.{kind}"
    if kind in ("csv", "parquet"):
        table = pandas.DataFrame(values.T, columns=names)
        steps = pandas.to_timedelta(np.arange(values.shape[1]) * 10, unit="ms")
        table.insert(0, "time", pandas.Timestamp(START) + steps)
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    elif kind == "npz":
        np.savez(path, values=values, rate=RATE, channels=names)
    elif kind == "hea":
        wfdb = pytest.importorskip("wfdb")
        wfdb.wrsamp(
            "record", fs=RATE, units=["mV"] * 3, sig_name=names, p_signal=values.T,
            fmt=["16"] * 3, base_datetime=START, write_dir=str(folder),
        )  # fmt: skip
    else:
        write_edf(path, values, [RATE] * 3, names)
    return path


def write_edf(path: Path, values: Any, rates: list[float], names: list[str]) -> None:
    library = pytest.importorskip("pyedflib")
    with library.EdfWriter(str(path), len(names), file_type=library.FILETYPE_EDFPLUS) as writer:
        writer.setStartdatetime(START)
        writer.setSignalHeaders(
            [
                {
                    "label": name, "dimension": "uV", "sample_frequency": rate,
                    "physical_min": -100.0, "physical_max": 100.0, "digital_min": -32768,
                    "digital_max": 32767, "transducer": "", "prefilter": "",
                }
                for name, rate in zip(names, rates, strict=True)
            ]
        )  # fmt: skip
        writer.writeSamples([np.ascontiguousarray(row) for row in values])


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "hea", "edf"])
def test_a_file_holds_what_was_written(kind: str, tmp_path: Path, values: np.ndarray) -> None:
    path = write(kind, tmp_path, values)
    series = read(path)
    assert series.channels == ("a", "b", "c") and series.rate == pytest.approx(RATE)
    np.testing.assert_allclose(series.values, values, atol=4e-3)
    dated = None if kind == "npz" else (START - datetime(1970, 1, 1)).total_seconds()
    assert series.start == dated
    part = read({"path": str(path), "channels": ["c", "a"], "start": 1.0, "end": 3.0})
    assert part.channels == ("c", "a")
    np.testing.assert_array_equal(part.values, series.values[[2, 0], 100:300])
    assert part.start == (None if dated is None else dated + 1)


def test_files_of_a_library_are_read_as_it_reads_them() -> None:
    library = pytest.importorskip("pyedflib")
    path = Path(library.__file__).parent / "data" / "test_generator.edf"
    with library.EdfReader(str(path)) as reader:
        names = [label.strip() for label in reader.getSignalLabels()]
        expected = np.stack([reader.readSignal(i) for i in range(len(names))])
        rates = {float(reader.getSampleFrequency(i)) for i in range(len(names))}
    series = read(path)
    assert series.channels == tuple(names) and {series.rate} == rates
    np.testing.assert_array_equal(series.values, expected)


def test_a_record_is_one_cell_and_its_files_are_its_own(tmp_path: Path, values: np.ndarray) -> None:
    header = write("hea", tmp_path, values)
    assert cells(tmp_path) == [header]
    assert set(files(str(header))) == {header, header.with_suffix(".dat")}
    np.testing.assert_array_equal(read(tmp_path / "record").values, read(header).values)


def test_gaps_are_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("timestamp,x,y\n0,1,5\n1,2,\n4,3,7\n5,,8\n")
    series = read(path)
    expected = [[1, 2, np.nan, np.nan, 3, np.nan], [5, np.nan, np.nan, np.nan, 7, 8]]
    np.testing.assert_array_equal(series.values, expected)
    assert series.rate == 1.0 and series.mask.sum() == 6


def test_months_are_regular(tmp_path: Path) -> None:
    path = tmp_path / "months.csv"
    months = pandas.date_range("1990-01-01", periods=120, freq="MS").drop("1995-03-01")
    pandas.DataFrame({"date": months, "x": range(119)}).to_csv(path, index=False)
    series = read(path)
    assert series.steps == 120 and np.flatnonzero(~series.mask[0]).tolist() == [62]
    assert series.time(119).startswith("1999-12-0")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("time,x\n0,1\n1,2\n1.6,3\n2.6,4\n3.6,5\n", "irregular time stamps: 0.6 s before row 2"),
        ("time,x\n0,1\n1,2\n1,3\n", "rows 1 and 2 have the same time"),
        ("time,x\n0,1\n2,2\n1,3\n", "the time of row 2 is 1 s before that of the row above"),
        ("time,x\n0,1\n,2\n2,3\n", "row 1 has no time stamp"),
        ("time,x\n0,1\n1,2\n1000,3\n", "gaps of 998 samples between 3 rows"),
        ("time,x\n0,1\n", "one sample"),
        ("x\n1\n", "one sample"),
        ("x,y\n1,\n,\n", None),
        ("x,y\n,\n,\n", "not one measured value: all are NaN"),
        ("x,note\n1,left\n2,right\n", "the column 'note' holds string"),
        ("x,x\n1,2\n3,4\n", "the column 'x' is there twice"),
        ("time,x\nmonday,1\ntuesday,2\n", "the time stamps in 'time' are string"),
        ("x,y\n1,inf\n3,4\n", "inf at sample 0 of 'y'"),
    ],
)
def test_a_bad_table_is_one_line(text: str, line: str | None, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    if line is None:
        read(path)
        return
    with pytest.raises(ReadError) as error:
        read(path)
    assert line in str(error.value) and "\n" not in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ({"values": [[1, 2], [3, 4]], "channels": ["a"]}, "the names a for 2 channels"),
        ({"values": [1.0], "rate": 1.0}, "one sample"),
        ({"values": [1.0, 2.0], "rate": 0}, "a rate of 0; expected Hz, above 0"),
        ({"values": [1.0, 2.0], "rate": "fast"}, "a rate of 'fast'"),
        ({"values": [np.nan, np.nan]}, "not one measured value"),
        ({"values": np.zeros((2000, 3))}, "2000 channels of 3 samples; expected [C, N]"),
        ({"values": [1.0, 2.0], "start": 0.5}, "a segment in s of a series without a rate"),
        ({"values": [1.0, 2.0], "Rate": 3.0}, "unknown keys Rate"),
        ({"values": [["a"]]}, "an array <U1 (1, 1)"),
        ({"path": "gone.edf"}, "there is no such file"),
        ({"path": "gone.txt"}, "its name ends in '.txt'"),
        ({}, "expected one of 'path' and 'values'"),
        (3, "a int is no time series"),
    ],
)
def test_a_bad_cell_is_one_line(cell: Any, line: str) -> None:
    with pytest.raises(ReadError) as error:
        read(cell)
    assert line in str(error.value) and "\n" not in str(error.value), str(error.value)


@pytest.mark.parametrize("kind", ["csv", "npz", "hea", "edf"])
def test_an_unknown_channel_is_named_with_the_nearest(
    kind: str, tmp_path: Path, values: np.ndarray
) -> None:
    path = write(kind, tmp_path, values)
    with pytest.raises(ReadError, match="no channel 'd'; expected one of a, b, c"):
        read({"path": str(path), "channels": ["d"]})


def test_an_edf_of_several_rates_is_read_by_channels_of_one(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "night.edf"
    write_edf(
        path, [rng.normal(size=400), rng.normal(size=4), rng.normal(size=400)],
        [100.0, 1.0, 100.0], ["Fp1", "Temp", "Fp2"],
    )  # fmt: skip
    with pytest.raises(ReadError) as error:
        read(path)
    assert "several rates (100 Hz: Fp1, Fp2; 1 Hz: Temp)" in str(error.value)
    assert read({"path": str(path), "channels": ["Fp1", "Fp2"]}).values.shape == (2, 400)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, list])
def test_arrays_of_any_kind_are_series(make: Any) -> None:
    series = read(make([[1.0, 2.0, float("nan")], [4.0, 5.0, 6.0]]))
    assert series.channels == ("0", "1") and series.rate is None and series.steps == 3


def test_a_preview_draws_each_channel_and_leaves_gaps_open() -> None:
    values = np.sin(np.arange(200) / 9)[None].repeat(2, 0)
    values[0, 50:60] = np.nan
    page = preview(Series(values, 10.0, ("<a>", "b")), {"forecast": ([[1.0]] * 2, [[2.0]] * 2)})
    assert page.count("<path") == 6 and "&lt;a&gt;" in page and "2.5 % missing" in page
    first = page.split("<path")[1]
    assert first.count("M") == 2  # one line before the gap, one after


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (250.0, "at 250 Hz"),
        (1.0, "at 1 Hz"),
        (0.5, "every 2 s"),
        (1 / 900, "every 15 min"),
        (1 / 3600, "every 1 h"),
        (1 / 86_400, "every 1 d"),
        (1 / 604_800, "every 7 d"),
    ],
)
def test_a_slow_rate_is_told_by_its_period(rate: float, text: str) -> None:
    assert pace(rate) == text
