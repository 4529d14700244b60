"""Windows of recordings: what was measured, and what came after it.

Recordings are files of any format that `read` takes, or one that the library statsmodels carries.

Legend: `C` channels, `N` samples of a recording.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...base import Count, Fraction, PositiveFloat, PositiveInt, ReadError, Source
from ...paths import files_within, stamp
from ..read import cells, files, read
from ..series import LazySeries, Series


class Window(LazySeries):
    """Samples `first` to `last` of a recording."""

    def __init__(self, recording: Series, first: int, last: int) -> None:
        self.recording, self.first, self.last = recording, first, last

    def series(self) -> Series:
        return self.recording.slice(self.first, self.last)


class SeriesWindows(Source):
    """Rows `series, future, recording`: windows of `context` samples and the `horizon` samples
    after each.

    path: files, or folders of them. name: in place of it, a recording of statsmodels: `elnino`
    (monthly temperature of the sea, 1950 to 2010), `co2` (weekly, 1958 to 2001, with gaps),
    `sunspots` (yearly, 1700 to 2008). channels, time, rate: of the files, as in a cell. stride:
    samples from one window to the next.

    split: of `test` the future lies in the last `test_share` of a recording, of `validation` in the
    `validation_share` before; `train` are the windows that lie before both as a whole. `all`: every
    window. examples: the row holds as column
    `example` the window of `context + horizon` samples that ends where `series` begins, so many
    windows long. Windows without a measured value in the context or the future are left out, and
    recordings without any window are listed (`ignored`). A recording that cannot be read is one row
    that fails.
    """

    def __init__(
        self,
        *,
        context: PositiveInt,
        horizon: PositiveInt,
        path: str | list[str] | None = None,
        name: Literal["elnino", "co2", "sunspots"] | None = None,
        channels: list[str] | None = None,
        time: str | None = None,
        rate: PositiveFloat | None = None,
        stride: PositiveInt = 1,
        split: Literal["train", "validation", "test", "all"] = "all",
        test_share: Fraction = 0.25,
        validation_share: Fraction = 0.1,
        examples: Count = 0,
    ) -> None:
        if (path is None) == (name is None):
            raise ValueError("path: found both or neither of path and name, expected one of them")
        if context < 2:
            raise ValueError(f"context: found {context}, expected at least 2 samples")
        self.context, self.horizon, self.stride, self.split = context, horizon, stride, split
        if test_share + validation_share >= 1:
            raise ValueError(f"test_share: found {test_share}, with validation_share 1 or more")
        self.examples, self.shares = examples, (test_share, validation_share)
        self.files = [] if path is None else _files(path)
        keys = {"channels": channels, "time": time, "rate": rate}
        self._cell = {key: value for key, value in keys.items() if value is not None}
        self._name = name
        self.columns = ("series", "future", *(["example"] if examples else []), "recording")

    @functools.cached_property
    def recordings(self) -> list[tuple[str, Series | ReadError]]:
        """Name and values of each recording, or why it cannot be read."""
        if self._name is not None:
            return [(self._name, RECORDINGS[self._name]())]
        return [(file.stem, self._read(file)) for file in self.files]

    def _read(self, file: Path) -> Series | ReadError:
        try:
            return read({"path": str(file), **self._cell})
        except ReadError as error:
            return error

    @functools.cached_property
    def _places(self) -> list[tuple[int, int]]:
        """Recording and first sample of each row."""
        places, before = list[tuple[int, int]](), self.examples * (self.context + self.horizon)
        for number, (_, series) in enumerate(self.recordings):
            if isinstance(series, ReadError):
                places.append((number, 0))
                continue
            test = series.steps - round(self.shares[0] * series.steps)
            validation = test - round(self.shares[1] * series.steps)
            begin, end = {
                "train": (0, validation), "validation": (validation, test),
                "test": (test, series.steps), "all": (0, series.steps),
            }[self.split]  # fmt: skip
            first, last = max(before, begin - self.context), end - self.context - self.horizon
            seen: np.ndarray = np.any(series.mask, axis=0)
            for start in range(first, last + 1, self.stride):
                middle = start + self.context
                if seen[start:middle].any() and seen[middle : middle + self.horizon].any():
                    places.append((number, start))
        if not places:
            steps = max(s.steps for _, s in self.recordings if isinstance(s, Series))
            raise ValueError(
                f"context: no window of {self.context} + {self.horizon} samples"
                f"{f' after {before} of examples' if before else ''} in the split {self.split} of "
                f"recordings of up to {steps} samples; shorten it, or the horizon"
            )
        return places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, first = self._places[index]
        name, series = self.recordings[number]
        if isinstance(series, ReadError):
            raise series
        middle = first + self.context
        before = self.examples * (self.context + self.horizon)
        row: dict[str, Any] = {
            "series": Window(series, first, middle),
            "future": Window(series, middle, middle + self.horizon).series(),
        }
        if self.examples:
            row["example"] = Window(series, first - before, first)
        return {**row, "recording": name}

    def key(self, index: int) -> str:
        number, first = self._places[index]
        return f"{self.recordings[number][0]}/{number}/{first}"

    @property
    def groups(self) -> Sequence[object]:
        """The recording of each row: windows of one overlap."""
        return [number for number, _ in self._places]

    @functools.cached_property
    def faults(self) -> Mapping[int, str]:  # type: ignore[override]
        failed = {
            number: str(series)
            for number, (_, series) in enumerate(self.recordings)
            if isinstance(series, ReadError)
        }
        rows = enumerate(self._places)
        return {row: failed[number] for row, (number, _) in rows if number in failed}

    @functools.cached_property
    def ignored(self) -> Mapping[str, str]:  # type: ignore[override]
        """Recordings without a window."""
        used = {number for number, _ in self._places}
        return {
            str(self.files[number]): f"no window of {self.context} + {self.horizon} samples"
            for number in range(len(self.recordings))
            if number not in used
        }

    def fingerprint(self) -> str:
        options = (
            self.context, self.horizon, self.stride, self.split, self.shares, self.examples,
            self._cell, self._name,
        )  # fmt: skip
        stamps = [stamp(each) for file in self.files for each in files(str(file))]
        return hashlib.sha256(f"series_windows {options} {stamps}".encode()).hexdigest()


def _files(path: str | list[str]) -> list[Path]:
    """Return the recordings of files and folders. Raise ValueError if there are none."""
    listed: list[Path] = []
    for name in [path] if isinstance(path, str) else path:
        place = Path(name).expanduser().absolute()
        if not place.exists() and not place.with_suffix(".hea").exists():
            raise ValueError(f"path: there is no file or folder {place}")
        listed += cells(place) if place.is_dir() else files_within(place) or [place]
    if not listed:
        raise ValueError(f"path: found no files in {path}")
    return listed


def _statsmodels(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of statsmodels, without importing it. Raise ValueError without
    it."""
    spec = importlib.util.find_spec("statsmodels")
    if spec is None or spec.origin is None:
        raise ValueError(
            f"name: {name} is a recording of statsmodels, which is not installed: "
            "pip install 'sensorium[series]'"
        )
    file = Path(spec.origin).parent / "datasets" / name / f"{name}.csv"
    with file.open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


def _elnino() -> Series:
    rows = _statsmodels("elnino")
    values = [float(cell) for row in rows for key, cell in row.items() if key != "YEAR"]
    return _dated(values, "temperature", f"{rows[0]['YEAR']}-01-15", f"{rows[-1]['YEAR']}-12-15")


def _co2() -> Series:
    rows = _statsmodels("co2")
    values = [float(row["co2"]) if row["co2"] else np.nan for row in rows]
    days = ["-".join((d[:4], d[4:6], d[6:])) for d in (row["date"] for row in rows)]
    return _dated(values, "co2", days[0], days[-1])


def _sunspots() -> Series:
    rows = _statsmodels("sunspots")
    years = [row["YEAR"] for row in rows]
    values = [float(row["SUNACTIVITY"]) for row in rows]
    return _dated(values, "sunspots", f"{years[0]}-07-01", f"{years[-1]}-07-01")


def _dated(values: Sequence[float], name: str, first: str, last: str) -> Series:
    """Return a series of even steps between two dates."""
    ends = [np.datetime64(day, "s").astype(np.int64) for day in (first, last)]
    rate = (len(values) - 1) / float(ends[1] - ends[0])
    return Series(np.array([values], np.float64), rate, (name,), float(ends[0]))


RECORDINGS: Mapping[str, Any] = {"elnino": _elnino, "co2": _co2, "sunspots": _sunspots}
