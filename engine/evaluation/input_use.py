"""What `evaluation.json` says: a table a task and split, and whether the model uses its input.

A model that ignores a stream gives the same answers when that stream is shuffled among rows.
One that answers otherwise may still gain nothing from it, so the change is held against what
so many rows can tell: three standard errors of the difference of two shares, or, for a metric
that is no share, three times `1 / sqrt(rows)` of its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP = "batch_gap"
BATCH_GAP_TOLERANCE = 1e-3
"""A change of a metric by the batch's size that is more than rounding."""

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Finding:
    """good: None where it cannot be said. short: the same for a table, of a stream's use."""

    good: bool | None
    text: str
    short: str = ""


@dataclass(frozen=True)
class Table:
    """rows: (metric, value, value with each stream shuffled). headline: the metric
    that the sentences are about. count: rows that were scored, where known."""

    label: str
    streams: tuple[str, ...]
    rows: list[tuple[str, float | None, list[float | None]]]
    headline: str
    sentences: list[Finding]
    count: int | None = None


def read_table(
    label: str, values: Values, streams: Sequence[str], best: str | None, count: int | None
) -> Table:
    """label: `task` or `task@split`. best: the metric that training kept its weights by, as
    `task/metric`. count: rows that were scored, where known."""
    moved = {_shuffled(m, s): s for m in values for s in streams if _shuffled(m, s) in values}
    metrics = [name for name in values if name != GAP and name not in moved]
    shown = tuple(s for s in streams if s in moved.values())
    rows = [(m, values[m], [values.get(_shuffled(m, s)) for s in shown]) for m in metrics]
    task, _, metric = (best or "").partition("/")
    wanted = metric if task == label.partition("@")[0] and metric in metrics else None
    headline = wanted or next((m for m in metrics if values[m] is not None), "")
    sentences = [_use(rows, headline, s, place, count) for place, s in enumerate(shown)]
    gap = values.get(GAP)
    if gap is not None:
        sentences.append(_batches(gap))
    return Table(label, shown, rows, headline, sentences, count)


def _shuffled(metric: str, stream: str) -> str:
    return f"{metric}_{stream}_shuffled"


def _use(
    rows: Sequence[tuple[str, float | None, list[float | None]]],
    headline: str,
    stream: str,
    place: int,
    count: int | None,
) -> Finding:
    yes, no, unknown = f"{stream}: yes", f"{stream}: not shown", f"{stream}: cannot be said"
    named = f"“{stream}”"
    if all(own == others[place] for _, own, others in rows):
        text = f"Shuffling {named} among the rows changes nothing: the model does not use it."
        return Finding(False, text, f"{stream}: no")
    own, other = next((v, others[place]) for m, v, others in rows if m == headline)
    if own is None or other is None:
        text = f"Whether the model uses {named} cannot be said: {headline} is not defined."
        return Finding(None, text, unknown)
    change = f"With {named} shuffled among the rows {headline} goes from {own:.3g} to {other:.3g}"
    if count is None:
        return Finding(None, f"{change}.", unknown)
    if abs(own - other) > noise(own, other, count):
        return Finding(True, f"{change}: the model uses it.", yes)
    text = f"{change}, which chance alone may do with {count:,} rows: that the model uses it "
    return Finding(False, f"{text}does not show.", no)


def noise(first: float, second: float, count: int) -> float:
    """The difference of two readings of `count` rows that chance alone explains."""
    if not (0 <= first <= 1 and 0 <= second <= 1):
        return 3 * max(abs(first), abs(second)) / math.sqrt(count)
    # Two successes and two failures more (Agresti & Coull 1998): no error of zero at 0 and 1.
    shares = [(value * count + 2) / (count + 4) for value in (first, second)]
    return 3 * math.sqrt(sum(share * (1 - share) for share in shares) / (count + 4))


def _batches(gap: float) -> Finding:
    if gap <= BATCH_GAP_TOLERANCE:
        return Finding(True, "The metrics do not depend on the size of the batch.")
    return Finding(
        False,
        f"Scored one by one, the first rows' metrics change by up to {gap:.3g}: they depend on "
        "the size of the batch.",
    )
