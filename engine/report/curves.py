"""Charts of a run: `metrics.jsonl` and its fitted parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ...modalities.base import Chart
from ..recipe import ResolvedRecipe
from .charts import Line, LineChart, Point, line_chart, smooth

LABELS = {
    "loss": "loss, mean per item",
    "lr": "learning rate",
    "samples_per_s": "samples per second",
}
MIN_POINTS_TO_SMOOTH = 8
"""With fewer points no smoothed line is drawn."""
MAX_LINES = 5
"""Lines that can be distinguished in one chart."""

Titled = tuple[str, LineChart]


def loss_chart(lines: Iterable[Mapping[str, Any]]) -> LineChart | None:
    """Return each task's training loss: as logged, thin, with a smoothed line."""
    drawn = []
    for color, (task, points) in enumerate(logged(lines, "loss").items()):
        if len(points) < MIN_POINTS_TO_SMOOTH:
            drawn.append(Line(task, points, color, dots=True))
        else:
            drawn += [Line(task, points, color, faint=True), Line(task, smooth(points), color)]
    return line_chart(drawn, "step", LABELS["loss"])


def validation_charts(lines: Iterable[Mapping[str, Any]]) -> list[Titled]:
    """Return a task's metrics between 0 and 1 in one chart, and each other metric in its own."""
    series: dict[str, dict[str, list[Point]]] = {}
    for line in lines:
        for task, metrics in line.get("validation", {}).items():
            for name, value in metrics.items():
                if math.isfinite(value):
                    series.setdefault(task, {}).setdefault(name, []).append((line["step"], value))
    charts: list[tuple[str, str, list[Line]]] = []
    for task, metrics in series.items():
        shares = [n for n, points in metrics.items() if all(0 <= y <= 1 for _, y in points)]
        size = math.ceil(len(shares) / max(1, math.ceil(len(shares) / MAX_LINES)))
        groups = [shares[i : i + size] for i in range(0, len(shares), size or 1)]
        for names in groups:
            drawn = [Line(n, metrics[n], color, dots=True) for color, n in enumerate(names)]
            charts.append((f"{task}, validation", "value", drawn))
        charts += [
            (f"{task}, validation", name, [Line(name, points, dots=True)])
            for name, points in metrics.items()
            if name not in shares
        ]
    return _charts(charts, "step")


def other_charts(lines: Iterable[Mapping[str, Any]]) -> list[Titled]:
    """Return all other logged values: the learning rate, speed, parts of the loss."""
    lines = list(lines)
    names = dict.fromkeys(name for line in lines if "task" in line for name in line)
    charts = []
    for name in names:
        if name in ("step", "task", "loss"):
            continue
        series = enumerate(logged(lines, name).items())
        drawn = [Line(task, points, color) for color, (task, points) in series]
        charts.append((LABELS.get(name, name), LABELS.get(name, name), drawn))
    return _charts(charts, "step")


def fitted_charts(plan: ResolvedRecipe) -> list[tuple[str, list[Titled]]]:
    """Return (part, charts) of the fitted parts that have charts."""
    charts = []
    for where, part in plan.fitted().items():
        try:
            part_charts = part.charts()
        except ValueError:
            continue  # its state is missing, which the page notes
        drawn = [
            titled
            for each in part_charts
            for titled in _charts([(each.title, each.y, _lines(each))], each.x)
        ]
        if drawn:
            charts.append((str(where), drawn))
    return charts


def _charts(charts: Iterable[tuple[str, str, list[Line]]], x_label: str) -> list[Titled]:
    """Draw (title, label of the values, lines), except those without a point."""
    drawn = ((title, line_chart(lines, x_label, y_label)) for title, y_label, lines in charts)
    return [(title, chart) for title, chart in drawn if chart is not None]


def _lines(chart: Chart) -> list[Line]:
    numbered = enumerate(chart.lines.items())
    return [
        Line(name, points, i, marked_x=chart.marked_x.get(name)) for i, (name, points) in numbered
    ]


def logged(lines: Iterable[Mapping[str, Any]], name: str) -> dict[str, list[Point]]:
    """Return the finite values of one name by task, in order of steps."""
    series: dict[str, list[Point]] = {}
    for line in lines:
        value = line.get(name)
        if "task" in line and isinstance(value, (int, float)) and math.isfinite(value):
            series.setdefault(line["task"], []).append((line["step"], float(value)))
    return series
