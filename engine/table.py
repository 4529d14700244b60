"""Metrics as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """A line a metric, a column a task; a shuffled input's score beside its own."""
    lines = []
    for task, metrics in found.items():
        lines.append(task)
        width = max((len(name) for name in metrics), default=0)
        lines += [f"  {name.ljust(width)}  {value:.4f}" for name, value in metrics.items()]
    return "\n".join(lines)
