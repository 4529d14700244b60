"""Contact sheets of a retrieval: each query with the candidates that came first, the right one
marked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

SHEETS = 4
"""Queries shown in each direction."""


@dataclass(frozen=True)
class Sheet:
    """direction: `text to picture`. query: its preview. rank: of the right answer, from 1. hits:
    (preview, whether it is the right answer), the nearest first."""

    direction: str
    query: Markup
    rank: int
    hits: list[tuple[Markup, bool]]


def is_ranking(prediction: Any) -> bool:
    """Return whether a prediction holds the rank and the nearest rows of each direction."""
    return (
        isinstance(prediction, Mapping)
        and bool(prediction)
        and all(
            isinstance(v, Mapping) and {"rank", "nearest"} <= v.keys() for v in prediction.values()
        )
    )


def keys_of(prediction: Mapping[str, Any]) -> set[str]:
    """Return the rows that a prediction names."""
    return {key for answer in prediction.values() for key in answer["nearest"]}


def sheets(
    key: str,
    prediction: Mapping[str, Any],
    streams: Collection[str],
    show: Callable[[str, str], Markup],
) -> Iterator[Sheet]:
    """Yield a row's sheets. streams: those of the task. show: (key, stream) -> preview."""
    for direction, answer in prediction.items():
        query, stream = _streams(direction, streams)
        hits = enumerate(answer["nearest"], 1)
        shown = [(show(hit, stream), place == answer["rank"]) for place, hit in hits]
        yield Sheet(f"{query} to {stream}", show(key, query), int(answer["rank"]), shown)


def _streams(direction: str, streams: Collection[str]) -> tuple[str, str]:
    """Return the streams of `a_to_b`, whose own names may hold `_to_`."""
    return next((a, b) for a in streams for b in streams if f"{a}_to_{b}" == direction)
