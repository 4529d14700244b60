"""Tables of `evaluation.json`, and whether the model uses its input.

A model that ignores a stream returns the same predictions if that stream is shuffled among rows.
All metrics of a task are computed, since a stream may change one and not another. Each
difference is compared with its sampling error: three standard errors of the difference of two
proportions, or, for other metrics, three times `1 / sqrt(rows)` of their size, and more than three
the more metrics are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from ..recipe import ResolvedRecipe
from .margins import SUFFIX

GAP = "batch_gap"
BATCH_GAP_TOLERANCE = 1e-3
"""A change of a metric by the batch size that is more than rounding."""

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Finding:
    """good: None if undecided. short: the same for a table, about a stream's use."""

    good: bool | None
    text: str
    short: str = ""


@dataclass(frozen=True)
class Table:
    """rows: (metric, value, value with each stream shuffled). headline: the metric that
    findings name first. count: number of scored rows, if known. margins: metric -> half the width
    of its 95 % interval, where it was computed."""

    label: str
    streams: tuple[str, ...]
    rows: list[tuple[str, float | None, list[float | None]]]
    headline: str
    findings: list[Finding]
    count: int | None = None
    margins: Mapping[str, float | None] = field(default_factory=dict)


def read_table(
    label: str, values: Values, streams: Sequence[str], best: str | None, count: int | None
) -> Table:
    """Return the table of a label, `task` or `task@split`. best: the metric of the first column,
    `task/metric` (see `main_metric`). count: number of scored rows, if known."""
    shuffled_stream_of = {
        _shuffled(m, s): s for m in values for s in streams if _shuffled(m, s) in values
    }
    margins = {m: values[m + SUFFIX] for m in values if m + SUFFIX in values}
    other = {GAP, *shuffled_stream_of, *(name + SUFFIX for name in margins)}
    metrics = [name for name in values if name not in other]
    shuffled = tuple(s for s in streams if s in shuffled_stream_of.values())
    rows = [(m, values[m], [values.get(_shuffled(m, s)) for s in shuffled]) for m in metrics]
    task, _, metric = (best or "").partition("/")
    preferred = metric if task == label.partition("@")[0] and metric in metrics else None
    headline = preferred or next((m for m in metrics if values[m] is not None), "")
    findings = [_use(rows, headline, s, index, count) for index, s in enumerate(shuffled)]
    gap = values.get(GAP)
    if gap is not None:
        findings.append(_batches(gap))
    return Table(label, shuffled, rows, headline, findings, count, margins)


def main_metric(plan: ResolvedRecipe, label: str) -> str | None:
    """Return the main metric of a label, `task/metric`: the one by which training kept
    its weights, or the task's; None if neither names one."""
    task, rule = label.partition("@")[0], plan.recipe.train.validate_
    if rule is not None and (rule.metric or "").partition("/")[0] == task:
        return rule.metric
    metric = plan.tasks[task].task.main_metric
    return metric and f"{task}/{metric}"


def _shuffled(metric: str, stream: str) -> str:
    return f"{metric}_{stream}_shuffled"


def _use(
    rows: Sequence[tuple[str, float | None, list[float | None]]],
    headline: str,
    stream: str,
    index: int,
    count: int | None,
) -> Finding:
    """Return whether a stream is used: whether any metric changes by more than chance explains."""
    yes, no, unknown = f"{stream}: yes", f"{stream}: not shown", f"{stream}: cannot be determined"
    quoted = f"“{stream}”"
    pairs = {
        name: (score, other)
        for name, score, shuffled in rows
        if (other := shuffled[index]) is not None and score is not None
        if math.isfinite(score) and math.isfinite(other)
    }
    if not pairs:
        text = f"Whether the model uses {quoted} cannot be determined: no metric is defined."
        return Finding(None, text, unknown)
    changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not changed:
        text = f"Shuffling {quoted} among the rows changes nothing: the model does not use it."
        return Finding(False, text, f"{stream}: no")
    ratios = {
        name: abs(a - b) / noise(a, b, count or 1, len(changed)) for name, (a, b) in changed.items()
    }
    best = max(ratios, key=ratios.__getitem__)
    metric = headline if ratios.get(headline, 0) > 1 or ratios[best] <= 1 else best
    metric = metric if metric in pairs else best
    score, other = pairs[metric]
    change = f"With {quoted} shuffled among the rows {metric} goes from {score:.3g} to {other:.3g}"
    if count is None:
        return Finding(None, f"{change}.", unknown)
    if ratios[best] > 1:
        number = sum(ratio > 1 for ratio in ratios.values())
        agreement = f" ({number} of {len(pairs)} metrics show it)" if len(pairs) > 1 else ""
        return Finding(True, f"{change}: the model uses it{agreement}.", yes)
    others_clause = (
        f", and no other of {len(pairs)} metrics changes by more" if len(pairs) > 1 else ""
    )
    text = f"{change}, which chance alone may do with {count:,} rows{others_clause}: "
    return Finding(False, f"{text}that the model uses it does not show.", no)


def noise(first: float, second: float, count: int, comparisons: int = 1) -> float:
    """Return the difference of two scores of `count` rows that chance explains.

    comparisons: number of metrics that are compared, any of which may differ by chance
    (Bonferroni).
    """
    errors = -NormalDist().inv_cdf(NormalDist().cdf(-3) / comparisons)
    if not (0 <= first <= 1 and 0 <= second <= 1):
        return errors * max(abs(first), abs(second)) / math.sqrt(count)
    # Two successes and two failures more (Agresti & Coull 1998): no error of zero at 0 and 1.
    shares = [(value * count + 2) / (count + 4) for value in (first, second)]
    return errors * math.sqrt(sum(share * (1 - share) for share in shares) / (count + 4))


def _batches(gap: float) -> Finding:
    if gap <= BATCH_GAP_TOLERANCE:
        return Finding(True, "The metrics do not depend on the size of the batch.")
    return Finding(
        False,
        f"Scored one by one, the first rows' metrics change by up to {gap:.3g}: they depend on "
        "the size of the batch.",
    )
