"""CSV and Parquet files with pyarrow, and their columns as arrays of numbers.

Legend: `N` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from ..base import ReadError
from ..messages import did_you_mean

FILES = "a CSV or Parquet file of numbers"
TIME = "timestamp"
"""A column in s; where nobody asks for it, it says the rate instead of being a joint."""

JITTER = 0.5
"""How far, in steps, two rows may lie from one step apart before one is missing."""


def read_table(path: Path) -> pa.Table:
    """The rows of a file. ReadError where it is not there, empty, broken or of another kind."""
    kinds = {".csv": csv.read_csv, ".parquet": parquet.read_table}
    if path.suffix.lower() not in kinds:
        raise ReadError(path, f"its name ends in {path.suffix!r}", FILES)
    try:
        table: pa.Table = kinds[path.suffix.lower()](str(path))
    except FileNotFoundError:
        raise ReadError(path, "there is no such file", FILES) from None
    except (pa.ArrowException, OSError) as error:
        raise ReadError(path, f"broken ({' '.join(str(error).split())})", FILES) from error
    if not table.num_rows:
        raise ReadError(path, "it has no rows", FILES)
    return table


def columns_of(
    table: pa.Table, names: Sequence[str] | None, source: object
) -> tuple[np.ndarray, float | None]:
    """Columns side by side `[N, dof]`, and the rate in Hz that `timestamp` says.

    names: which ones, in this order; by default all but `timestamp`. A column of lists of one
    length gives as many joints. Raises ReadError.
    """
    known = table.column_names
    wanted = [n for n in known if n != TIME] if names is None else list(names)
    if not wanted:
        raise ReadError(source, f"no columns of joints among {', '.join(known)}", FILES)
    for name in wanted:
        if name not in known:
            cure = f"one of {', '.join(known)}{did_you_mean(str(name), known)}"
            raise ReadError(source, f"no column {name!r}", cure)
    parts = [column(table, name, source) for name in wanted]
    values = np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)
    timed = TIME in known and TIME not in wanted and table.num_rows > 1
    return values, rate_of(column(table, TIME, source), source) if timed else None


def column(table: pa.Table, name: str, source: object) -> np.ndarray:
    """One column as an array `[N, ...]`; lists (of lists) must all have one length."""
    chunks = table.column(name).combine_chunks()
    values = chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks)
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


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
    )


def innermost(kind: pa.DataType) -> pa.DataType:
    """The type of the values in a column of lists (of lists)."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def rate_of(time: np.ndarray, source: object) -> float:
    """Steps a second of times `[N]` in s. ReadError where a frame is missing."""
    gaps = np.diff(time.astype(np.float64))
    step = float(np.median(gaps))
    if not step > 0:
        raise ReadError(source, f"{TIME} goes on by {step:g} s a row", "times that grow, in s")
    late = np.flatnonzero(np.abs(gaps - step) > JITTER * step)
    if len(late):
        row = int(late[0]) + 1
        raise ReadError(
            source,
            f"{gaps[row - 1]:.4g} s before row {row}, {step:.4g} s elsewhere: missing frames",
            "one row a step",
        )
    return 1 / step
