"""Actions and states as people have them -> one canonical value: numbers, steps by joints.

Arrays, tensors, lists, CSV and Parquet files, and dicts that name which columns of a file are
wanted. What is not finite, ragged, empty or text is refused: a robot is driven by it.

Legend: `steps` of time, `dof` degrees of freedom (joints), rate in Hz.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..base import Annotations, ReadError, only_read_errors
from .table import columns_of, read_table

ARRAY = "finite numbers of [steps, dof], or [dof] for one step"
CELL = "'values' or 'path' in it, and if need be 'columns' and 'rate'"
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
WIDTH, HEIGHT = 320, 120


@dataclass(frozen=True, eq=False)
class Trajectory:
    """values: `[steps, dof]` float32, finite. rate: steps a second; None if unknown."""

    values: np.ndarray
    rate: float | None = None

    @property
    def steps(self) -> int:
        return len(self.values)

    @property
    def dof(self) -> int:
        return self.values.shape[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype, copy=copy)


@only_read_errors("numbers of the shape [dof] or [steps, dof]")
def read(source: Any) -> Trajectory:
    """Any source of actions or states -> `Motion`.

    source: an array, tensor or list `[steps, dof]` (or `[dof]`: one step), the path of a CSV or
    Parquet file (its columns are the joints; `timestamp`, in s, defines the rate), or a dict with
    `values` or `path`, and if need be `columns` (names) and `rate` (Hz). Raise `ReadError`.
    """
    if isinstance(source, Trajectory):
        return source
    if isinstance(source, Mapping):
        return _from_cell(source)
    if isinstance(source, (str, Path)):
        return _from_file(Path(source), None, None)
    if isinstance(source, torch.Tensor):
        values = source.detach().cpu()
        return Trajectory(
            _checked(values.float() if values.is_floating_point() else values, source)
        )
    if hasattr(source, "__array__") or isinstance(source, (list, tuple)):
        return Trajectory(_checked(source, source))
    raise ReadError(source, f"a {type(source).__name__} is no motion", ARRAY)


def _from_cell(cell: Mapping[str, Any]) -> Trajectory:
    rate = cell.get("rate")
    if rate is not None and not (isinstance(rate, (int, float)) and 0 < rate < float("inf")):
        raise ReadError(cell, f"a rate of {rate!r}", "Hz, above 0")
    if cell.get("values") is not None:
        return Trajectory(read(cell["values"]).values, rate)
    if cell.get("path"):
        return _from_file(Path(cell["path"]), cell.get("columns"), rate)
    raise ReadError(cell, f"a cell with the keys {sorted(map(str, cell))}", CELL)


def _from_file(path: Path, names: Sequence[str] | None, rate: float | None) -> Trajectory:
    values, file_rate = columns_of(read_table(path), names, path)
    return Trajectory(_checked(values, path), rate or file_rate)


def _checked(values: Any, source: object) -> np.ndarray:
    """Anything -> float32 `[steps, dof]`, or a ReadError with the problem."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ReadError(source, "rows of different lengths", ARRAY) from error
    if array.dtype.kind not in "biuf":
        raise ReadError(source, f"values of type {array.dtype}", ARRAY)
    if array.ndim not in (1, 2) or not array.size:
        raise ReadError(source, f"an array of shape {array.shape}", ARRAY)
    with np.errstate(over="ignore"):
        checked: np.ndarray = np.atleast_2d(array).astype(np.float32, copy=False)
    if not np.isfinite(checked).all():
        step, joint = np.argwhere(~np.isfinite(checked))[0]
        raise ReadError(source, f"{checked[step, joint]} at step {step}, joint {joint}", ARRAY)
    return checked


def example(rng: np.random.Generator) -> Trajectory:
    """Eight steps of four joints that swing at their own speeds, for dry runs."""
    speed, phase = rng.uniform(0.5, 2, 4), rng.uniform(0, 6, 4)
    time = np.linspace(0, 1, 8)[:, None]
    return Trajectory(np.sin(speed * time + phase).astype(np.float32), 10.0)


def preview(motion: Trajectory, marks: Annotations | None = None) -> str:
    """Return an `<svg>` with one line for each joint over the steps, all on one scale; for a single
    step, a bar for each joint. Annotations are ignored."""
    low, high = float(motion.values.min()), float(motion.values.max())
    draw = _lines if motion.steps > 1 else _bars
    lines = "".join(draw(motion.values, low, high))
    rate = "" if motion.rate is None else f" at {motion.rate:g} Hz"
    unit = "step" if motion.steps == 1 else "steps"
    text = html.escape(f"{motion.steps} {unit} of {motion.dof} joints{rate}")
    return (
        f'<figure style="margin:0"><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="{text}"><rect width="{WIDTH}" height="{HEIGHT}" fill="#f6f6f6"/>{lines}</svg>'
        f"<figcaption>{text}, from {low:.3g} to {high:.3g}</figcaption></figure>"
    )


def _lines(values: np.ndarray, low: float, high: float) -> Iterator[str]:
    """Yield one polyline a joint."""
    x = np.linspace(4, WIDTH - 4, len(values))
    span = (high - low) or 1.0
    for joint, column in enumerate(values.T):
        y = HEIGHT - 4 - (column - low) / span * (HEIGHT - 8)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        colour = COLOURS[joint % len(COLOURS)]
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _bars(values: np.ndarray, low: float, high: float) -> Iterator[str]:
    """Yield one bar a joint, from zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    unit, wide = (HEIGHT - 8) / ((high - low) or 1.0), (WIDTH - 8) / values.shape[1]
    for joint, value in enumerate(values[0].tolist()):
        top = 4 + (high - max(value, 0.0)) * unit
        tall = max(abs(value) * unit, 1.0)
        yield (
            f'<rect x="{4 + joint * wide:.1f}" y="{top:.1f}" width="{wide * 0.8:.1f}" '
            f'height="{tall:.1f}" fill="{COLOURS[0]}"/>'
        )
