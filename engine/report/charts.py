"""Line charts for the report, drawn by matplotlib as inline SVG.

Legend: a point is `(step, value)`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ...modalities.figures import COLORS, DASHES, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]

WIDTH, HEIGHT = 320, 205
"""Pixels: the width of a narrow column of the page."""
BOX = (50 / WIDTH, 40 / HEIGHT, (WIDTH - 60) / WIDTH, (HEIGHT - 48) / HEIGHT)
"""Left, bottom, width and height of the axes, as fractions of the figure."""
DECADES = 1.3
"""Values that span more powers of ten than this are drawn on a logarithmic axis."""
MAX_POINTS = 600
"""Number of points beyond which a line keeps only the extremes of each stretch."""
MAX_LABEL = 24
"""Characters beside the axis."""
PALETTE = 6


@dataclass(frozen=True)
class Line:
    """color: its index in the page's palette. faint: thin, without a legend entry. dots: every
    point is marked, for few values. marked_x: the x whose value is shown beside its name, and whose
    point is marked; by default the last."""

    name: str
    points: Sequence[Point]
    color: int = 0
    faint: bool = False
    dots: bool = False
    marked_x: float | None = None

    @property
    def end(self) -> Point:
        """The point of the line in a legend."""
        return next((point for point in self.points if point[0] == self.marked_x), self.points[-1])

    @property
    def marked(self) -> list[Point]:
        """The points that are drawn as dots."""
        if self.dots or len(self.points) == 1:
            return list(self.points)
        return [] if self.marked_x is None else [self.end]


@dataclass(frozen=True)
class LineChart:
    """An SVG, and its legend: (name, value, index in the palette)."""

    svg: Markup
    legend: list[tuple[str, str, int]]


def line_chart(lines: Sequence[Line], x_label: str, y_label: str) -> LineChart | None:
    """Return a chart of the lines that have points; None if none has."""
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    labelled = [line for line in lines if not line.faint]
    label = f"{y_label} over {x_label}. " + "; ".join(map(_in_words, labelled))
    titles: dict[str, str] = {}
    with new_figure(WIDTH, HEIGHT) as figure:
        axes = figure.add_axes(BOX)
        for number, line in enumerate(lines):
            titles |= _draw(axes, line, number)
        _scale(axes, [y for line in lines for _, y in line.points])
        axes.set_xlabel(x_label)
        name = y_label if len(y_label) <= MAX_LABEL else f"{y_label[: MAX_LABEL - 1]}…"
        axes.set_ylabel(f"{name} (log)" if axes.get_yscale() == "log" else name)
        svg = to_svg(figure, label, titles)
    legend = [(line.name, format_tick(line.end[1]), line.color % PALETTE) for line in labelled]
    return LineChart(Markup(svg), legend)


def _draw(axes: Axes, line: Line, number: int) -> dict[str, str]:
    """Draw a line and its dots; return the tooltip of each dot."""
    color, dashes = COLORS[f"c{line.color % PALETTE}"], DASHES[line.color % PALETTE]
    x, y = zip(*downsample(line.points), strict=True)
    if line.faint:
        axes.plot(x, y, color=color, linewidth=1, alpha=0.35)
    else:
        axes.plot(x, y, color=color, linestyle=dashes)
    titles = {}
    for index, (step, value) in enumerate(line.marked):
        gid = f"dot-{number}-{index}"
        axes.plot([step], [value], "o", markersize=5, color=color, clip_on=False, gid=gid)
        titles[gid] = f"{line.name}, {step:,.0f}: {value:.4g}"
    return titles


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Choose a linear or a logarithmic axis, and its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    short = FuncFormatter(lambda value, _: format_tick(value))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(short)
    low, high = min(values), max(values)
    if low > 0 and math.log10(high / low) > DECADES:
        axes.set_yscale("log")
        narrow = math.log10(high / low) < 2.5
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(short)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def format_tick(value: float) -> str:
    """Return a number as a tick or legend label: `0.05`, `2,000`, `35k`, `1e-4`."""
    size = abs(value)
    if 0 < size < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= max(unit, 1e4):
            return f"{value / unit:.4g}{sign}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return the mean of each point and its neighbours, a thirtieth of them on either side."""
    reach = min(max(2, len(points) // 30), (len(points) - 1) // 2)
    values, window = np.array([y for _, y in points]), np.ones(2 * reach + 1)
    sums, counts = (np.convolve(v, window, "same") for v in (values, np.ones_like(values)))
    return [(x, float(y)) for (x, _), y in zip(points, sums / counts, strict=True)]


def downsample(points: Sequence[Point], count: int = MAX_POINTS) -> list[Point]:
    """Return the lowest and highest point of each stretch, so that no spike is lost."""
    if len(points) <= count:
        return list(points)
    bounds = [len(points) * i // (count // 2) for i in range(count // 2 + 1)]
    selected: list[Point] = []
    for start, end in itertools.pairwise(bounds):
        part = sorted(points[start:end], key=lambda point: point[1])
        selected += sorted({part[0], part[-1]})
    return selected


def _in_words(line: Line) -> str:
    (first, start), (last, end) = line.points[0], line.points[-1]
    begin = f"{format_tick(start)} at {format_tick(first)}"
    return f"{line.name}: {begin}, {format_tick(end)} at {format_tick(last)}"
