"""Margins of error of a split's metrics, by the delete-a-group jackknife.

It takes any metric of a task, also one that is no mean over rows (F1, recall among candidates): the
metric is computed without each of `GROUPS` groups of rows, and the spread of these values
determines its standard error (Kott, The delete-a-group jackknife, Journal of Official Statistics
17, 2001).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...tasks.base import Task

GROUPS = 20
QUANTILE = 2.093
"""Of Student's t with `GROUPS - 1` degrees of freedom, for 95 %."""

SUFFIX = "_margin"
"""`accuracy_margin` is the margin of error of `accuracy`."""


def margins(
    task: Task, predictions: Sequence[Any], targets: Sequence[Mapping[str, Any]], seed: int = 0
) -> dict[str, float]:
    """Return `{metric_margin: half the width of the metric's 95 % interval}`.

    Metrics that are not finite without some group are left out, and all of them where there are
    fewer than two rows a group. The intervals are of the rows: they do not cover other seeds of
    training.
    """
    if len(predictions) < 2 * GROUPS:
        return {}
    group = np.random.default_rng(seed).permutation(len(predictions)) % GROUPS
    values: dict[str, list[float]] = {}
    for number in range(GROUPS):
        rows = np.flatnonzero(group != number).tolist()
        metrics = task.metrics()
        metrics.update([predictions[i] for i in rows], [targets[i] for i in rows])
        for name, value in metrics.compute().items():
            values.setdefault(name, []).append(float(value))
    return {
        name + SUFFIX: QUANTILE * _standard_error(np.array(each))
        for name, each in values.items()
        if len(each) == GROUPS and all(map(math.isfinite, each))
    }


def _standard_error(values: np.ndarray) -> float:
    """Return the jackknife's standard error. values: `[GROUPS]`."""
    return math.sqrt((GROUPS - 1) / GROUPS * float(((values - values.mean()) ** 2).sum()))
