"""Small line charts as inline SVG: axes, ticks, units, a legend; no library and no script.

Legend: a point is `(step, value)`; a position in the drawing is in its own px, y downwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]

WIDTH, HEIGHT = 380, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 42
DECADES = 1.3
"""Values that span more powers of ten than this are drawn on a logarithmic axis."""
FINEST = 300
"""Places along the x axis beyond which a line keeps only the extremes of each."""


@dataclass(frozen=True)
class Line:
    """color: its place in the page's palette. faint: thin, without a legend of its own.
    dots: every point is marked, for values that are few. at: the x whose value stands beside its
    name, and whose point is marked; the last, if not said."""

    name: str
    points: Sequence[Point]
    color: int = 0
    faint: bool = False
    dots: bool = False
    at: float | None = None

    @property
    def end(self) -> Point:
        """The point that stands for the line in a legend."""
        return next((point for point in self.points if point[0] == self.at), self.points[-1])


def chart(lines: Sequence[Line], x_label: str, y_label: str) -> Markup:
    """A `<figure>` of the lines that have points; empty where none has."""
    lines = [line for line in lines if line.points]
    if not lines:
        return Markup("")
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    log = min(ys) > 0 and math.log10(max(ys) / min(ys)) > DECADES
    x_ticks = [t for t in ticks(min(xs), max(xs)) if min(xs) <= t <= max(xs)]
    y_ticks = log_ticks(min(ys), max(ys)) if log else ticks(min(ys), max(ys))
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, log)
    label = f"{y_label} over {x_label}. " + "; ".join(_told(ln) for ln in lines if not ln.faint)
    return Markup(
        '<figure class="chart"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>'
        '<ul class="legend">{}</ul></figure>'
    ).format(
        WIDTH,
        HEIGHT,
        label,
        Markup("").join(_row(up(t), t) for t in (_powers(y_ticks) if log else y_ticks)),
        Markup("").join(_column(across(t), t) for t in x_ticks)
        + _labels(x_label, y_label + (" (log)" if log else "")),
        Markup("").join(_drawn(line, across, up) for line in lines),
        Markup("").join(_entry(line) for line in lines if not line.faint),
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, 1, 2 or 5 apart times a power of ten, that cover `low` to `high`."""
    if low == high:
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that cover `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [part * 10.0**power for power in powers for part in (1, 2, 5)]
    start = max(i for i, tick in enumerate(every) if tick <= low * 1.001)
    end = min(i for i, tick in enumerate(every) if tick >= high * 0.999)
    return every[start : end + 1]


def _powers(found: list[float]) -> list[float]:
    """The powers of ten among logarithmic ticks that are too many to be read."""
    return found if len(found) < 9 else [t for t in found if math.log10(t) % 1 < 1e-9]


def short(value: float) -> str:
    """A number as a tick or a legend says it: `0.05`, `2,000`, `35k`, `1e-4`."""
    size = abs(value)
    if 0 < size < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= max(unit, 1e4):
            return f"{value / unit:.4g}{sign}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def smooth(points: Sequence[Point]) -> list[Point]:
    """The mean of each point and its neighbours, a thirtieth of them on either side."""
    reach = max(2, len(points) // 30)
    found = []
    for i, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, i - reach) : i + reach + 1]]
        found.append((x, sum(near) / len(near)))
    return found


def thinned(points: Sequence[Point], count: int = FINEST) -> list[Point]:
    """The lowest and highest point of each of `count` stretches, so that no spike is lost."""
    if len(points) <= 2 * count:
        return list(points)
    cuts = [len(points) * i // count for i in range(count + 1)]
    found: list[Point] = []
    for start, end in itertools.pairwise(cuts):
        part = sorted(points[start:end], key=lambda point: point[1])
        found += sorted({part[0], part[-1]})
    return found


def _scale(
    low: float, high: float, start: float, end: float, log: bool = False
) -> Callable[[float], float]:
    if log:
        low, high = math.log10(low), math.log10(high)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return start + (end - start) * ((math.log10(value) if log else value) - low) / span

    return place


def _row(y: float, tick: float) -> Markup:
    return Markup('<path class="rule" d="M{} {:.1f}H{}"/>').format(LEFT, y, WIDTH - RIGHT) + Markup(
        '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT - 7, y + 4, short(tick))


def _column(x: float, tick: float) -> Markup:
    low = HEIGHT - BOTTOM
    return Markup('<path class="rule" d="M{:.1f} {}v5"/>').format(x, low) + Markup(
        '<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
    ).format(x, low + 18, short(tick))


def _labels(x_label: str, y_label: str) -> Markup:
    middle, centre = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    return Markup(
        '<path class="base" d="M{} {}H{}"/>'
        '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text class="axis" transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>'
    ).format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, middle, HEIGHT - 6, x_label, centre, y_label)


def _drawn(line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    kind = f"line c{line.color % 6}" + (" faint" if line.faint else "")
    places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in thinned(line.points))
    drawn = Markup('<polyline class="{}" points="{}"/>').format(kind, places)
    marked = line.points if line.dots or len(line.points) == 1 else [line.end]
    if marked == [line.end] and line.at is None and len(line.points) > 1:
        return drawn
    dot = Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
    return drawn + Markup("").join(
        dot.format(line.color % 6, across(x), up(y), f"{line.name}, {x:,.0f}: {y:.4g}")
        for x, y in marked
    )


def _entry(line: Line) -> Markup:
    return Markup(
        '<li><svg class="swatch" viewBox="0 0 24 8" aria-hidden="true">'
        '<path class="line c{}" d="M0 4H24"/></svg>{} <b>{}</b></li>'
    ).format(line.color % 6, escape(line.name), short(line.end[1]))


def _told(line: Line) -> str:
    (first, start), (last, end) = line.points[0], line.points[-1]
    return f"{line.name}: {short(start)} at {short(first)}, {short(end)} at {short(last)}"
