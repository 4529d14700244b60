"""Time series as people have them -> one canonical value: channels by samples, and their rate.

Arrays, CSV, Parquet, NPZ, WFDB and EDF files, and cells that name a part of one. Nothing is
normalized or resampled here; a value that was not measured is NaN.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..base import ReadError, only_read_errors
from ..paths import cell_files, folder_cells
from .files import HEADERS, SIGNALS, read_file
from .series import ARRAY, LazySeries, Series, checked, checked_rate

KEYS = ("path", "values", "rate", "channels", "time", "start", "end")
"""What a cell may hold. channels: the names of an array's channels, or those to read of a file.
time: the column of a table's time stamps. start, end: s from the first sample."""


@only_read_errors("a time series")
def read(source: Any) -> Series:
    """Any source of a time series -> `Series`.

    source: a `Series` or `LazySeries`, an array, tensor or list `[N]` or `[C, N]`, the path of a
    CSV, Parquet, NPZ, WFDB (`.hea`, or the record's name) or EDF/BDF file, or a cell with `path` or
    `values` and further `KEYS`. Raise ReadError for irregular time stamps, one sample, no measured
    value, infinity, and other keys.
    """
    if isinstance(source, LazySeries):
        source = source.series()
    if isinstance(source, Series):
        return checked(source, source.values)
    if isinstance(source, Mapping):
        return _from_cell(source)
    if isinstance(source, (str, Path)):
        return _from_cell({"path": source})
    if isinstance(source, torch.Tensor) or hasattr(source, "__array__"):
        return _from_array(source, {})
    if isinstance(source, (list, tuple)):
        return _from_array(source, {})
    raise ReadError(source, f"a {type(source).__name__} is no time series", ARRAY)


def files(cell: Any) -> list[Path]:
    """Return the files that `read` opens for a cell: those it names, and of a WFDB record the
    other files of its name."""
    paths = cell_files(cell)
    for path in list(paths):
        if path.suffix in (*HEADERS, *SIGNALS):
            paths += [p for p in sorted(path.parent.glob(f"{path.stem}.*")) if p not in paths]
    return paths


def cells(folder: Path) -> list[Path]:
    """Return the cells of a folder: a WFDB record is one, named by its header."""
    paths = folder_cells(folder)
    headers = {path.with_suffix("") for path in paths if path.suffix in HEADERS}
    return [p for p in paths if p.suffix in HEADERS or p.with_suffix("") not in headers]


def _from_cell(cell: Mapping[str, Any]) -> Series:
    name = cell.get("path") or "a cell"
    unknown = sorted(str(key) for key in cell if key not in KEYS and cell[key] is not None)
    if unknown:
        raise ReadError(name, f"unknown keys {', '.join(unknown)}", ", ".join(KEYS))
    if (cell.get("values") is None) == (not cell.get("path")):
        raise ReadError(name, f"the keys {sorted(map(str, cell))}", "one of 'path' and 'values'")
    span = _span(cell, name)
    if cell.get("values") is not None:
        series = _from_array(cell["values"], cell)
        return series if span is None else checked(series.segment(*span), name)
    return checked(read_file(Path(cell["path"]), cell, span), name)


def _span(cell: Mapping[str, Any], name: object) -> tuple[float, float | None] | None:
    """Return start and end in s of the segment that a cell names; None if it names none."""
    for key in ("start", "end"):
        value = cell.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ReadError(name, f"{key} is {value!r}", "a number of seconds")
    start, end = cell.get("start") or 0.0, cell.get("end")
    if not 0 <= start < float("inf") or (end is not None and not end > start):
        raise ReadError(name, f"a segment from {start} to {end} s", "0 <= start < end")
    return None if cell.get("start") is None and end is None else (float(start), end)


def _from_array(array: Any, cell: Mapping[str, Any]) -> Series:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    try:
        values = np.asarray(array)
    except ValueError as error:
        raise ReadError(array, "channels of different lengths", ARRAY) from error
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf":
        raise ReadError(array, f"an array {values.dtype} {values.shape}", ARRAY)
    values = np.atleast_2d(values)
    names = cell.get("channels") or [str(number) for number in range(len(values))]
    if len(names) != len(values) or len(set(names)) < len(names):
        wrong = f"the names {', '.join(map(str, names))} for {len(values)} channels"
        raise ReadError(array, wrong, "one name for each channel")
    return checked(Series(values, checked_rate(cell.get("rate"), array), tuple(names)), array)


def example(rng: np.random.Generator) -> Series:
    """Five seconds of two noisy channels at 50 Hz, for dry runs."""
    time = np.arange(250) / 50
    waves = np.stack([np.sin(2 * np.pi * rng.uniform(0.5, 3) * time + k) for k in (0.0, 1.0)])
    return Series(waves + rng.normal(0, 0.1, waves.shape), 50.0, ("a", "b"))
