"""Files of time series: tables (CSV, Parquet), NPZ, WFDB records and EDF/BDF recordings.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from ..base import ReadError
from ..messages import did_you_mean
from .series import Series, checked_rate
from .time_axis import regular

FORMATS = "a CSV, Parquet, NPZ, WFDB (.hea) or EDF/BDF file"
TIME_NAMES = ("timestamp", "time", "date", "datetime")
"""Columns of time stamps, if a cell names none: dates, or s."""

HEADERS, SIGNALS = (".hea",), (".dat", ".mat")
"""Suffixes of the two kinds of files of a WFDB record."""

Span = tuple[float, float | None] | None
Cell = Mapping[str, Any]


def read_file(path: Path, cell: Cell, span: Span) -> Series:
    """Return the series of a file: the channels that the cell names, within the span in s."""
    suffix = path.suffix.lower()
    if not suffix and path.with_suffix(".hea").is_file():
        path, suffix = path.with_suffix(".hea"), ".hea"
    if suffix not in READERS:
        raise ReadError(path, f"its name ends in {path.suffix!r}", FORMATS)
    if not path.is_file():
        raise ReadError(path, "there is no such file", FORMATS)
    series = READERS[suffix](path, cell, span)
    rate = checked_rate(cell.get("rate"), path)
    if rate is None or suffix in TABLES:
        return series
    if series.rate is not None and abs(series.rate / rate - 1) > 1e-6:
        raise ReadError(path, f"has {series.rate:g} Hz beside rate: {rate:g}", "the file's own")
    return series


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        cure = "it: pip install 'sensorium[series]'"
        raise ReadError(path, f"the library {name} is not installed", cure) from None


def chosen_channels(cell: Cell, names: Sequence[str], path: Path) -> list[int]:
    """Return the places of the channels that a cell names, in its order; of all by default. Raise
    ReadError for an unknown name, and for one that is there twice."""
    chosen = names if cell.get("channels") is None else cell["channels"]
    for name in chosen:
        if name not in names:
            cure = f"one of {', '.join(names)}{did_you_mean(str(name), names)}"
            raise ReadError(path, f"no channel {name!r}", cure)
        if list(names).count(name) > 1:
            raise ReadError(path, f"two channels are called {name!r}", "channels of other names")
    return [list(names).index(name) for name in chosen]


def _one_rate(rates: Mapping[str, float], path: Path) -> float:
    """Return the one rate of the chosen channels. Raise ReadError if there are several."""
    by_rate: dict[float, list[str]] = {}
    for name, rate in rates.items():
        by_rate.setdefault(rate, []).append(name)
    if len(by_rate) > 1:
        lists = "; ".join(f"{rate:g} Hz: {', '.join(n[:4])}" for rate, n in by_rate.items())
        raise ReadError(path, f"channels of several rates ({lists})", "channels: [...] of one rate")
    return next(iter(by_rate))


def _read_table(path: Path, cell: Cell, span: Span) -> Series:
    table = _csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    names = table.column_names
    time = cell.get("time") or next((n for n in names if n.lower() in TIME_NAMES), None)
    if time is not None and time not in names:
        cure = f"one of {', '.join(names)}{did_you_mean(time, names)}"
        raise ReadError(path, f"no column {time!r} of time stamps", cure)
    channels = [name for name in names if name != time]
    places = chosen_channels(cell, channels, path)
    if not places or not table.num_rows:
        raise ReadError(path, f"no values in the columns {', '.join(names)}", FORMATS)
    columns = [_numbers(table, channels[place], path) for place in places]
    values, chosen = np.stack(columns), tuple(channels[place] for place in places)
    rate, start = checked_rate(cell.get("rate"), path), None
    if time is not None:
        seconds, dated = _seconds(table.column(time), time, path)
        values, stamped, first = regular(seconds, values, path)
        if rate is not None and abs(rate / stamped - 1) > 0.01:
            wrong = f"time stamps at {stamped:g} Hz beside rate: {rate:g}"
            raise ReadError(path, wrong, "one of the two")
        rate, start = rate or stamped, first if dated else None
    series = Series(values, rate, chosen, start)
    return series if span is None else series.segment(*span)


def _csv(path: Path) -> pa.Table:
    block = csv.ReadOptions(block_size=min(2**31 - 1, max(1 << 20, path.stat().st_size + 1)))
    table = csv.read_csv(str(path), read_options=block)
    double = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if double:
        raise ReadError(path, f"the column {double[0]!r} is there twice", FORMATS)
    return table


def _numbers(table: pa.Table, name: str, path: Path) -> np.ndarray:
    """Return a column as float64 `[N]`; empty cells are NaN."""
    column = table.column(name)
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise ReadError(path, f"the column {name!r} holds {kind}", "numbers; name the channels")
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _seconds(column: pa.ChunkedArray, name: str, path: Path) -> tuple[np.ndarray, bool]:
    """Return time stamps in s `[N]`, and whether they are dates (s since 1970)."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = pc.cast(column, pa.timestamp("us")).to_numpy(zero_copy_only=False)
        seconds = stamps.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(stamps), np.nan, seconds), True
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False)), False
    wrong = f"the time stamps in {name!r} are {kind}"
    raise ReadError(path, wrong, "dates (2024-01-31 12:00:00) or numbers of seconds")


def _read_npz(path: Path, cell: Cell, span: Span) -> Series:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    stored = arrays.pop("rate", None)
    rate = checked_rate(cell.get("rate") if stored is None else float(stored), path)
    stamps, names = arrays.pop("timestamps", None), arrays.pop("channels", None)
    if "values" in arrays:
        values = np.atleast_2d(arrays["values"])
        names = range(len(values)) if names is None else names
    else:
        lengths = {np.shape(array) for array in arrays.values()}
        if len(lengths) != 1 or len(next(iter(lengths))) != 1:
            wrong = f"arrays {', '.join(f'{n} {a.shape}' for n, a in arrays.items()) or 'none'}"
            raise ReadError(path, wrong, "'values' [C, N], or one array [N] for each channel")
        values, names = np.stack(list(arrays.values())), list(arrays)
    labels = [str(name) for name in names]
    if values.dtype.kind not in "biuf" or values.ndim != 2 or len(labels) != len(values):
        wrong = f"values {values.dtype} {values.shape} of {len(labels)} channels"
        raise ReadError(path, wrong, "numbers [C, N], and a name for each channel")
    places = chosen_channels(cell, labels, path)
    values, start = values[places].astype(np.float64), None
    if stamps is not None:
        dated = stamps.dtype.kind == "M"
        seconds = stamps.astype("datetime64[us]").astype(np.int64) / 1e6 if dated else stamps
        if np.shape(seconds) != values.shape[1:]:
            wrong = f"{np.shape(seconds)} time stamps of {values.shape[1]} samples"
            raise ReadError(path, wrong, "one for each sample")
        values, stamped, first = regular(seconds, values, path)
        rate, start = rate or stamped, first if dated else None
    series = Series(values, rate, tuple(labels[place] for place in places), start)
    return series if span is None else series.segment(*span)


def _read_wfdb(path: Path, cell: Cell, span: Span) -> Series:
    wfdb, stem = _library("wfdb", path), str(path.with_suffix(""))
    header = wfdb.rdheader(stem)
    names = list(getattr(header, "sig_name", None) or [])
    places = chosen_channels(cell, names, path)
    frames = getattr(header, "samps_per_frame", None) or [1] * len(names)
    rate = _one_rate({names[p]: float(header.fs * frames[p]) for p in places}, path)
    per_frame = rate / header.fs
    first = 0 if span is None else round(span[0] * rate / per_frame)
    last = None if span is None or span[1] is None else round(span[1] * rate / per_frame)
    last = last if last is None or not header.sig_len else min(last, header.sig_len)
    if header.sig_len and first >= header.sig_len:
        raise ReadError(path, f"a segment from {span and span[0]} s", "one within the recording")
    record = wfdb.rdrecord(stem, sampfrom=first, sampto=last, channels=places, smooth_frames=False)
    values = np.stack([np.asarray(signal, np.float64) for signal in record.e_p_signal])
    start = _unix(record.base_datetime)
    return Series(values, rate, tuple(names[p] for p in places), start)


def _read_edf(path: Path, cell: Cell, span: Span) -> Series:
    library = _library("pyedflib", path)
    with library.EdfReader(str(path)) as reader:
        names = [label.strip() for label in reader.getSignalLabels()]
        places = chosen_channels(cell, names, path)
        rate = _one_rate({names[p]: float(reader.getSampleFrequency(p)) for p in places}, path)
        first = 0 if span is None else round(span[0] * rate)
        last = int(reader.getNSamples()[places[0]])
        if span is not None and span[1] is not None:
            last = min(last, round(span[1] * rate))
        if first >= last:
            raise ReadError(path, f"a segment from {span and span[0]} s", "one in the recording")
        values = np.stack([reader.readSignal(p, first, last - first) for p in places])
        start = _unix(reader.getStartdatetime())
    start = None if start is None else start + first / rate
    return Series(values, rate, tuple(names[p] for p in places), start)


def _unix(moment: datetime | None) -> float | None:
    """Return a date without a zone, taken as UTC, in s since 1970."""
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()


TABLES = (".csv", ".parquet")
READERS: dict[str, Callable[[Path, Cell, Span], Series]] = {
    **dict.fromkeys(TABLES, _read_table),
    ".npz": _read_npz,
    **dict.fromkeys((*HEADERS, *SIGNALS[:1]), _read_wfdb),
    **dict.fromkeys((".edf", ".bdf"), _read_edf),
}
