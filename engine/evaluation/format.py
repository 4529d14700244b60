"""Metrics as lines of a terminal, the score with shuffled inputs beside each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..recipe import ResolvedRecipe
from ..utils import format_table
from .input_use import GAP, read_table
from .margins import SUFFIX
from .metric_names import explain


def input_streams(plan: ResolvedRecipe) -> dict[str, tuple[str, ...]]:
    """Return the input streams of each task."""
    return {name: tuple(planned.task.inputs()) for name, planned in plan.tasks.items()}


def metric_names(plan: ResolvedRecipe) -> dict[str, str]:
    """Return the tasks' descriptions of their own metrics."""
    return {k: v for planned in plan.tasks.values() for k, v in planned.task.metric_names.items()}


def format_evaluation(
    metrics: Mapping[str, Mapping[str, float]],
    streams: Mapping[str, Sequence[str]],
    metric_names: Mapping[str, str] | None = None,
) -> str:
    """Return a line a metric, `task/metric`, its value and that with each stream shuffled among
    the rows; then a line a name.

    metrics: as returned by `evaluate`. streams: the input streams of each task. metric_names:
    the tasks' descriptions of their own metrics.
    """
    lines: list[tuple[str, str, str]] = []
    for label, values in metrics.items():
        table = read_table(label, values, streams[label.partition("@")[0]], None, None)
        for name, value, shuffled in table.rows:
            score = _number(value) + _margin(table.margins.get(name))
            lines.append((f"{label}/{name}", score, _shuffled(table.streams, shuffled)))
        if GAP in values:
            lines.append((f"{label}/{GAP}", _number(values[GAP]), ""))
        if not values:
            lines.append((label, "no metrics", ""))
    text = format_table(lines, right=(1,))
    names = explain(
        (n for values in metrics.values() for n in values if not n.endswith(("_shuffled", SUFFIX))),
        metric_names,
    )
    return f"{text}\n\n{format_table(names)}" if names else text


def _shuffled(streams: Sequence[str], values: Sequence[float | None]) -> str:
    """Return `(shuffled input 0.1)`, or the same by the streams' names if there are several."""
    if not streams:
        return ""
    names = streams if len(streams) > 1 else ("input",)
    pairs = [f"{name} {_number(value)}" for name, value in zip(names, values, strict=True)]
    return f"(shuffled {', '.join(pairs)})"


def _margin(value: float | None) -> str:
    """Return ` ± 0.0312`, or nothing where no margin was computed."""
    return "" if value is None else f" ± {_number(value)}"


def _number(value: float | None) -> str:
    return "not defined" if value is None or not math.isfinite(value) else f"{value:.4f}"
