"""Corruptions of a text as functions of its ids, each with the function that inverts it.

Span corruption: Raffel et al. 2020 (T5), section 3.1.4. Fill in the middle: Bavarian et al. 2022,
in the order prefix, suffix, middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]
"""First token and the one after the last."""


def sample_spans(
    length: int, rate: float, mean_span: float, rng: np.random.Generator, max_spans: int
) -> list[Span]:
    """Draw the spans of a text of `length` tokens that are corrupted, in order.

    Their tokens are `rate` of the text in the mean: `rate * length`, rounded up or down at random,
    at least 1. Their number is the tokens divided by `mean_span`, at most `max_spans`; lengths and
    gaps are uniform among all that have this number, with a token or more between two spans. T5's
    own code never corrupts the first token and always the last; here any token may be.
    """
    if length < 1:
        raise ValueError("span corruption: found an empty text, expected a token or more")
    masked = min(max(1, int(rate * length + rng.random())), length)
    visible = length - masked
    count = min(max(1, round(masked / mean_span)), max_spans, masked, visible + 1)
    sizes = _compose(masked, count, rng)
    # The gaps before the first and after the last span may be empty, so both are one too long.
    gaps = _compose(visible + 2, count + 1, rng)
    spans, position = [], -1
    for gap, size in zip(gaps, sizes, strict=False):
        position += gap
        spans.append((position, position + size))
        position += size
    return spans


def _compose(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Return `parts` positive integers of sum `total`, uniform among all such lists."""
    cuts = (
        np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.empty(0)
    )
    edges = np.concatenate([[0], cuts, [total]]).astype(int)
    return [int(size) for size in np.diff(edges)]


def corrupt_spans(
    ids: Sequence[int], spans: Sequence[Span], sentinels: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the text with a sentinel in place of each span, and the spans: each behind its
    sentinel, with one more sentinel at the end.

    Raise ValueError if there are fewer sentinels than spans and the end need.
    """
    if len(spans) >= len(sentinels):
        raise ValueError(
            f"span corruption: {len(sentinels)} sentinels, expected {len(spans) + 1} or more for "
            f"{len(spans)} spans"
        )
    source: list[int] = []
    target: list[int] = []
    end = 0
    for sentinel, (start, stop) in zip(sentinels, spans, strict=False):
        source += [*ids[end:start], sentinel]
        target += [sentinel, *ids[start:stop]]
        end = stop
    return [*source, *ids[end:]], [*target, sentinels[len(spans)]]


def restore_spans(
    source: Sequence[int], target: Sequence[int], sentinels: Sequence[int]
) -> list[int]:
    """Return the ids that `corrupt_spans` was applied to. Of a target that a decoder wrote, a span
    that is not there is empty."""
    known = set(sentinels)
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in target:
        if token in known:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [i for token in source for i in (spans.get(token, []) if token in known else [token])]


def move_middle(ids: Sequence[int], middle: Span, markers: Sequence[int]) -> list[int]:
    """Return `[PRE] prefix [SUF] suffix [MID] middle`. markers: PRE, SUF, MID."""
    (start, stop), (pre, suf, mid) = middle, markers
    return [pre, *ids[:start], suf, *ids[stop:], mid, *ids[start:stop]]


def restore_middle(moved: Sequence[int], markers: Sequence[int]) -> list[int]:
    """Return the ids that `move_middle` was applied to."""
    pre, suf, mid = (list(moved).index(marker) for marker in markers)
    return [*moved[pre + 1 : suf], *moved[mid + 1 :], *moved[suf + 1 : mid]]
