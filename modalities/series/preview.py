"""A time series in a report: one line for each channel, gaps left open.

Legend: `C` channels, `N` samples, `X` columns of the picture.
"""

from __future__ import annotations

import html

import numpy as np

from ..base import Annotations
from .series import Series

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
WIDTH, ROW, MOST = 480, 56, 12
"""px of the picture and of a channel in it, and the channels that are drawn."""


def preview(series: Series, marks: Annotations | None = None) -> str:
    """Return an `<svg>` with the channels below each other, each on its own scale.

    marks: `forecast`, (predicted, true) `[C][H]`, drawn behind the end: predicted dashed.
    """
    predicted, true = (marks or {}).get("forecast") or (None, None)
    rows = min(len(series.channels), MOST)
    ahead = [np.asarray(v, float) for v in (predicted, true) if v is not None]
    further = max((v.shape[1] for v in ahead if v.ndim == 2), default=0)
    lines = [
        _channel(series, row, [_row(v, row) for v in (true, predicted)], series.steps + further)
        for row in range(rows)
    ]
    shown = "" if rows == len(series.channels) else f", the first {rows} drawn"
    rate = "" if series.rate is None else f" {pace(series.rate)}"
    gaps = 1 - series.mask.mean()
    channels = f"{len(series.channels)} channel{'s' if len(series.channels) > 1 else ''}"
    text = (
        f"{channels} of {series.steps} samples{rate}{shown}, from "
        f"{series.time(0)} to {series.time(series.steps - 1)}"
        f"{f', {100 * gaps:.1f} % missing' if gaps else ''}"
    )
    caption = html.escape(text)
    return (
        f'<figure style="margin:0"><svg viewBox="0 0 {WIDTH} {rows * ROW}" width="{WIDTH}" '
        f'role="img" aria-label="{caption}"><rect width="{WIDTH}" height="{rows * ROW}" '
        f'fill="#f6f6f6"/>{"".join(lines)}</svg><figcaption>{caption}</figcaption></figure>'
    )


def pace(rate: float) -> str:
    """Return a rate in Hz in words: `at 50 Hz`, or below 1 Hz the time between two samples."""
    if rate >= 1:
        return f"at {rate:.4g} Hz"
    units = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
    unit = next(u for u, seconds in units.items() if 1 / rate >= seconds * (1 - 1e-9))
    return f"every {1 / rate / units[unit]:.4g} {unit}"


def _row(values: object, row: int) -> np.ndarray | None:
    array = np.asarray(values, float) if values is not None else np.empty(0)
    return array[row] if array.ndim == 2 and row < len(array) else None


def _channel(series: Series, row: int, ahead: list[np.ndarray | None], steps: int) -> str:
    past = series.values[row]
    drawn = [past, *(a for a in ahead if a is not None)]
    seen = np.concatenate([v[np.isfinite(v)] for v in drawn])
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    colour, top = COLOURS[row % len(COLOURS)], row * ROW
    parts = [_path(past, 0, steps, low, high, top, colour, "")]
    for values, dash in zip(ahead, ("", ' stroke-dasharray="4 3"'), strict=True):
        if values is not None:
            shade = colour if not dash else "#000"
            parts.append(_path(values, series.steps, steps, low, high, top, shade, dash))
    label = html.escape(f"{series.channels[row]}: {low:.3g} to {high:.3g}")
    parts.append(f'<text x="4" y="{top + 11}" font-size="10" fill="#555">{label}</text>')
    return "".join(parts)


def _path(
    values: np.ndarray, first: int, steps: int, low: float, high: float, top: int, colour: str,
    dash: str,
) -> str:  # fmt: skip
    """Return a `<path>`; of many samples the least and greatest of each column are drawn."""
    span = (high - low) or 1.0
    points: list[str] = []
    down = False
    block = max(1, len(values) // (2 * WIDTH))
    for start in range(0, len(values), block):
        part = values[start : start + block]
        if not np.isfinite(part).any():
            down = False
            continue
        x = 4 + (first + start) / max(1, steps - 1) * (WIDTH - 8)
        for value in dict.fromkeys((float(np.nanmin(part)), float(np.nanmax(part)))):
            y = top + ROW - 4 - (value - low) / span * (ROW - 18)
            points.append(f"{'L' if down else 'M'}{x:.1f},{y:.1f}")
            down = True
    return f'<path d="{" ".join(points)}" fill="none" stroke="{colour}"{dash}/>'
