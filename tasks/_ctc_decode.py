"""Connectionist temporal classification, read out: greedy and by prefixes.

A path names a token or the blank at each frame; its text is what is left when runs are merged
and blanks dropped (Graves et al., "Connectionist Temporal Classification", 2006). Prefix beam
search sums over the paths of a text: Hannun et al., "First-Pass Large Vocabulary Continuous
Speech Recognition using Bi-Directional Recurrent DNNs", 2014.

Legend: `T` frames, `V` classes, the blank among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ._lexicon import Node

PRUNED = 1e-4
"""A class less likely than this at a frame starts no new prefix there."""


@dataclass(frozen=True)
class Spelled:
    """Tokens of one utterance, in order. spans: first frame and the frame behind the last, a token.
    scores: the highest posterior that a token has in its frames."""

    ids: list[int]
    spans: list[tuple[int, int]]
    scores: list[float]


def greedy(log_probs: Tensor, blank: int) -> Spelled:
    """The best path of `[T, V]`: runs merged, blanks dropped."""
    best, path = log_probs.max(-1)
    ids, counts = torch.unique_consecutive(path, return_counts=True)
    found = Spelled([], [], [])
    start, values = 0, best.tolist()
    for token, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if token != blank:
            found.ids.append(token)
            found.spans.append((start, start + count))
            found.scores.append(math.exp(max(values[start : start + count])))
        start += count
    return found


def prefix_beam(
    log_probs: Tensor, blank: int, beam: int, pruned: float = PRUNED, tree: Node | None = None
) -> list[tuple[list[int], float]]:
    """The `beam` most likely texts of `[T, V]` with their log probabilities, best first.

    Exact where the beam holds every prefix and nothing is pruned. tree: the texts that there are;
    where no prefix in the beam is whole at the end, the prefixes are given as they are.
    """
    frames: list[list[float]] = log_probs.double().tolist()
    floor = math.log(pruned) if pruned > 0 else -math.inf
    found: _Prefixes = {(): (0.0, -math.inf, tree)}
    for frame in frames:
        likely = [c for c, value in enumerate(frame) if value >= floor and c != blank]
        found = dict(_best(_step(found, frame, likely, blank), beam))
    whole = {ids: of for ids, of in found.items() if of[2] and of[2].whole}
    return [(list(ids), _total(of)) for ids, of in _best(whole or found, beam)]


_State = tuple[float, float, Node | None]
"""Log probabilities of a prefix's paths that end in the blank and of the others; its node."""

_Prefixes = dict[tuple[int, ...], _State]


def _step(found: _Prefixes, frame: list[float], likely: list[int], blank: int) -> _Prefixes:
    """Every prefix goes on by one frame."""
    grown: _Prefixes = {}

    def add(prefix: tuple[int, ...], in_blank: float, in_token: float, node: Node | None) -> None:
        b, t, _ = grown.get(prefix, (-math.inf, -math.inf, None))
        grown[prefix] = (_log_add(b, in_blank), _log_add(t, in_token), node)

    for prefix, (in_blank, in_token, node) in found.items():
        either = _log_add(in_blank, in_token)
        last = prefix[-1] if prefix else None
        same = -math.inf if last is None else in_token + frame[last]
        add(prefix, either + frame[blank], same, node)
        for token in likely:
            if node is not None and token not in node.after:
                continue
            # A token comes twice only with a blank between.
            before = in_blank if token == last else either
            after = None if node is None else node.after[token]
            add((*prefix, token), -math.inf, before + frame[token], after)
    return grown


def _best(found: _Prefixes, beam: int) -> list[tuple[tuple[int, ...], _State]]:
    return sorted(found.items(), key=lambda item: -_total(item[1]))[:beam]


def _total(of: _State) -> float:
    return _log_add(of[0], of[1])


def _log_add(a: float, b: float) -> float:
    high, low = (a, b) if a > b else (b, a)
    return float(high if low == -math.inf else high + math.log1p(math.exp(low - high)))


def frames_needed(ids: list[int]) -> int:
    """Frames that the shortest path of a text has: its tokens, and a blank within each pair."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))
