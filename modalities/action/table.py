"""CSV and Parquet files with pyarrow, and their columns as arrays of numbers.

Legend: `N` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from ..base import ReadError
from ..messages import did_you_mean

FILES = "a CSV or Parquet file of numbers"
TIME = "timestamp"
"""A column in s; unless it is requested, it defines the rate and is no joint."""

EPISODE, FRAME = "episode_index", "frame_index"
"""The number of a row's episode, and of the row in it."""

JITTER = 0.5
"""How far, in steps, two rows may lie from one step apart before one is missing."""


def read_table(path: Path) -> pa.Table:
    """Return the rows of a file. Raise ReadError if it is missing, empty, broken or of another
    kind."""
    kinds = {".csv": _read_csv, ".parquet": parquet.read_table}
    if path.suffix.lower() not in kinds:
        raise ReadError(path, f"its name ends in {path.suffix!r}", FILES)
    try:
        table: pa.Table = kinds[path.suffix.lower()](path)
    except FileNotFoundError:
        raise ReadError(path, "there is no such file", FILES) from None
    except (pa.ArrowException, OSError) as error:
        raise ReadError(path, f"broken ({' '.join(str(error).split())})", FILES) from error
    if not table.num_rows:
        raise ReadError(path, "it has no rows", FILES)
    return table


def _read_csv(path: Path) -> pa.Table:
    """Return a CSV file whose columns hold numbers or texts; empty cells are null."""
    options = csv.ConvertOptions(
        null_values=[""], true_values=[], false_values=[], strings_can_be_null=True
    )
    # One block, so that the type of a column follows from all its cells.
    block = csv.ReadOptions(block_size=min(2**31 - 1, max(1 << 20, path.stat().st_size + 1)))
    table = csv.read_csv(str(path), read_options=block, convert_options=options)
    dates = {f.name: pa.string() for f in table.schema if pa.types.is_temporal(f.type)}
    if dates:
        options.column_types = dates
        table = csv.read_csv(str(path), read_options=block, convert_options=options)
    double = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if double:
        raise ReadError(path, f"the column {double[0]!r} appears twice in the header", FILES)
    return table


def columns_of(
    table: pa.Table, names: Sequence[str] | None, source: object, *, nulls: bool = False
) -> tuple[np.ndarray, float | None]:
    """Columns side by side `[N, dof]`, and the rate in Hz by `timestamp`.

    names: which ones, in this order; by default all but `timestamp`. A column of lists of one
    length means as many joints. nulls: an empty cell is NaN instead of an error. Raise ReadError.
    """
    names_ = table.column_names
    chosen = [n for n in names_ if n != TIME] if names is None else list(names)
    if not chosen:
        raise ReadError(source, f"no columns of joints among {', '.join(names_)}", FILES)
    for name in chosen:
        if name not in names_:
            cure = f"one of {', '.join(names_)}{did_you_mean(str(name), names_)}"
            raise ReadError(source, f"no column {name!r}", cure)
    parts = [column(table, name, source, nulls=nulls) for name in chosen]
    values = np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)
    if TIME not in names_ or TIME in chosen or table.num_rows < 2 or nulls:
        return values, None
    numbers = column(table, EPISODE, source) if EPISODE in names_ else None
    return values, rate_of(column(table, TIME, source), source, numbers)


def column(table: pa.Table, name: str, source: object, *, nulls: bool = False) -> np.ndarray:
    """Return one column as an array `[N, ...]`; lists (of lists) must all have one length.

    nulls: an empty cell is NaN (all of it, if it is a list) instead of an error.
    """
    chunks = table.column(name).combine_chunks()
    values = chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks)
    if nulls and is_number(innermost(values.type)) and has_nulls(values):
        return _with_nan(values.to_pylist(), name, source)
    shape = [len(values)]
    while is_list(values.type) and not values.null_count:
        inner = values.flatten()
        width = len(inner) // max(1, len(values))
        if pc.any(pc.not_equal(pc.list_value_length(values), width)).as_py():
            raise ReadError(source, f"column {name!r}: rows of different lengths", FILES)
        values = inner
        shape.append(width)
    if values.null_count:
        raise ReadError(source, f"column {name!r}: {values.null_count} cells are empty", FILES)
    if not is_number(values.type):
        raise ReadError(
            source, f"column {name!r} holds {values.type}", "numbers; name the columns that do"
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def has_nulls(values: pa.Array | pa.ChunkedArray) -> bool:
    """Return whether a column has an empty cell, or a list with one."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    for chunk in chunks:
        while True:
            if chunk.null_count:
                return True
            if not is_list(chunk.type):
                break
            chunk = chunk.flatten()
    return False


def _with_nan(cells: list[Any], name: str, source: object) -> np.ndarray:
    shapes = {np.shape(cell) for cell in cells if cell is not None}
    if len(shapes) > 1:
        raise ReadError(source, f"column {name!r}: rows of different lengths", FILES)
    shape = shapes.pop() if shapes else ()
    rows = [np.full(shape, np.nan) if cell is None else np.array(cell, float) for cell in cells]
    return np.stack(rows)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
    )


def innermost(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values in a column of lists (of lists)."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def rate_of(time: np.ndarray, source: object, episodes: np.ndarray | None = None) -> float | None:
    """Return the steps a second of times `[N]` in s. Raise ReadError if a frame is missing."""
    gaps = np.diff(time.astype(np.float64))
    inside = ~(gaps < 0) if (gaps > 0).any() or episodes is not None else np.ones_like(gaps, bool)
    if episodes is not None:
        inside &= np.diff(episodes.reshape(-1)) == 0
    if not inside.any():
        return None
    step = float(np.quantile(gaps[inside], 0.5, method="lower"))
    if not step > 0:
        raise ReadError(source, f"{TIME} advances by {step:g} s a row", "times that grow, in s")
    late = np.flatnonzero(inside & (np.abs(gaps - step) > JITTER * step))
    if len(late):
        row = int(late[0]) + 1
        raise ReadError(
            source,
            f"{gaps[row - 1]:.4g} s before row {row}, {step:.4g} s elsewhere: missing frames",
            "one row a step",
        )
    return 1 / step
