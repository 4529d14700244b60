"""The curves of a run: what `metrics.jsonl` holds and what was fitted, as charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from ..modalities.base import Chart
from ._charts import Line, Point, chart, smooth
from .plan import RecipePlan

LABELS = {
    "loss": "loss, mean per item",
    "lr": "learning rate",
    "samples_per_s": "samples per second",
}
FEW = 8
"""Below so many points a smoothed line would only hide them."""
MOST = 5
"""Lines that can be told apart in one chart."""


def loss_chart(lines: Iterable[Mapping[str, Any]]) -> Markup:
    """Each task's training loss: as logged, thin, and smoothed on top."""
    drawn = []
    for color, (task, points) in enumerate(logged(lines, "loss").items()):
        if len(points) < FEW:
            drawn.append(Line(task, points, color, dots=True))
        else:
            drawn += [Line(task, points, color, faint=True), Line(task, smooth(points), color)]
    return chart(drawn, "step", LABELS["loss"])


def validation_charts(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """(title, chart): a task's shares of one together, each other metric on a scale of its own."""
    found: dict[str, dict[str, list[Point]]] = {}
    for line in lines:
        for task, metrics in line.get("validation", {}).items():
            for name, value in metrics.items():
                if math.isfinite(value):
                    found.setdefault(task, {}).setdefault(name, []).append((line["step"], value))
    charts = []
    for task, metrics in found.items():
        shares = [n for n, points in metrics.items() if all(0 <= y <= 1 for _, y in points)]
        size = math.ceil(len(shares) / max(1, math.ceil(len(shares) / MOST)))
        groups = [shares[i : i + size] for i in range(0, len(shares), size or 1)]
        for names in groups:
            drawn = [Line(n, metrics[n], color, dots=True) for color, n in enumerate(names)]
            charts.append((f"{task}, validation", chart(drawn, "step", "share of 1")))
        charts += [
            (f"{task}, validation", chart([Line(name, points, dots=True)], "step", name))
            for name, points in metrics.items()
            if name not in shares
        ]
    return charts


def other_charts(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """(title, chart) for whatever else was logged: the learning rate, speed, parts of the loss."""
    lines = list(lines)
    names = dict.fromkeys(name for line in lines if "task" in line for name in line)
    charts = []
    for name in names:
        if name in ("step", "task", "loss"):
            continue
        series = enumerate(logged(lines, name).items())
        drawn = [Line(task, points, color) for color, (task, points) in series]
        charts.append((LABELS.get(name, name), chart(drawn, "step", LABELS.get(name, name))))
    return [(title, drawing) for title, drawing in charts if drawing]


def fitted_charts(plan: RecipePlan) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """(part, [(title, chart)]) of the fitted parts that have something to look at."""
    found = []
    for where, part in plan.fitted().items():
        try:
            known = part.charts()
        except ValueError:
            continue  # its state is not there, which the page says
        drawn = [(each.title, chart(_lines(each), each.x, each.y)) for each in known]
        if drawn:
            found.append((str(where), drawn))
    return found


def _lines(known: Chart) -> list[Line]:
    named = enumerate(known.lines.items())
    return [Line(name, points, i, at=known.at.get(name)) for i, (name, points) in named]


def logged(lines: Iterable[Mapping[str, Any]], name: str) -> dict[str, list[Point]]:
    """The finite values of one name by task, in order of steps."""
    found: dict[str, list[Point]] = {}
    for line in lines:
        value = line.get(name)
        if "task" in line and isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(line["task"], []).append((line["step"], float(value)))
    return found
