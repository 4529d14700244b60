"""CTC decoding: greedy and prefix beam search.

A path has a token or the blank at each frame; its text is what remains when runs are merged and
blanks dropped (Graves et al., "Connectionist Temporal Classification", 2006). Prefix beam search
sums over the paths of a text: Hannun et al., "First-Pass Large Vocabulary Continuous Speech
Recognition using Bi-Directional Recurrent DNNs", 2014.

Legend: `T` frames, `V` classes, the blank among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..batch import Batch
from .lexicon import TrieNode

PRUNED = 1e-4
"""A class with a lower probability at a frame starts no new prefix there."""


@dataclass(frozen=True)
class CTCHypothesis:
    """Tokens of one utterance, in order. spans: first frame of each and the frame behind its last.
    scores: the highest posterior of each in its frames."""

    ids: list[int]
    spans: list[tuple[int, int]]
    scores: list[float]


def greedy(log_probs: Tensor, blank: int) -> CTCHypothesis:
    """Return the best path of `[T, V]`: runs merged, blanks dropped."""
    best, path = log_probs.max(-1)
    ids, counts = torch.unique_consecutive(path, return_counts=True)
    hypothesis = CTCHypothesis([], [], [])
    start, values = 0, best.tolist()
    for token, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if token != blank:
            hypothesis.ids.append(token)
            hypothesis.spans.append((start, start + count))
            hypothesis.scores.append(math.exp(max(values[start : start + count])))
        start += count
    return hypothesis


def prefix_beam_search(
    log_probs: Tensor, blank: int, beam: int, pruned: float = PRUNED, tree: TrieNode | None = None
) -> list[tuple[list[int], float]]:
    """Return the `beam` most likely texts of `[T, V]` with their log probabilities, best first.

    Exact if the beam holds every prefix and nothing is pruned. tree: the allowed texts; if no
    prefix in the beam is complete at the end, incomplete ones are returned.
    """
    frames: list[list[float]] = log_probs.double().tolist()
    floor = math.log(pruned) if pruned > 0 else -math.inf
    prefixes: _Beam = {_Prefix(None, None, tree): (0.0, -math.inf)}
    for frame in frames:
        likely = [c for c, value in enumerate(frame) if value >= floor and c != blank]
        prefixes = dict(_best(_step(prefixes, frame, likely, blank), beam))
    complete = {
        prefix: of for prefix, of in prefixes.items() if prefix.node and prefix.node.is_word
    }
    return [(prefix.ids(), _log_add(*of)) for prefix, of in _best(complete or prefixes, beam)]


class _Prefix:
    """A linked list of tokens, shared by prefixes, so that long texts cost no more than short ones.
    node: position in a lexicon's tree."""

    __slots__ = ("after", "before", "last", "node")

    def __init__(self, before: _Prefix | None, last: int | None, node: TrieNode | None) -> None:
        self.before, self.last, self.node = before, last, node
        self.after: dict[int, _Prefix] = {}

    def then(self, token: int) -> _Prefix:
        """Return this prefix with one more token, which the lexicon allows."""
        if token not in self.after:
            node = self.node.after[token] if self.node else None
            self.after[token] = _Prefix(self, token, node)
        return self.after[token]

    def ids(self) -> list[int]:
        tokens: list[int] = []
        prefix: _Prefix | None = self
        while prefix is not None and prefix.last is not None:
            tokens.append(prefix.last)
            prefix = prefix.before
        return tokens[::-1]


_Beam = dict[_Prefix, tuple[float, float]]
"""For each prefix the log probability of its paths that end in the blank, and of the others."""


def _step(prefixes: _Beam, frame: list[float], likely: list[int], blank: int) -> _Beam:
    """Extend every prefix by one frame."""
    grown: _Beam = {}

    def add(prefix: _Prefix, in_blank: float, in_token: float) -> None:
        b, t = grown.get(prefix, (-math.inf, -math.inf))
        grown[prefix] = (_log_add(b, in_blank), _log_add(t, in_token))

    for prefix, (in_blank, in_token) in prefixes.items():
        either = _log_add(in_blank, in_token)
        same = -math.inf if prefix.last is None else in_token + frame[prefix.last]
        add(prefix, either + frame[blank], same)
        for token in likely:
            if prefix.node is not None and token not in prefix.node.after:
                continue
            # A token is repeated only after a blank.
            before = in_blank if token == prefix.last else either
            add(prefix.then(token), -math.inf, before + frame[token])
    return grown


def _best(prefixes: _Beam, beam: int) -> list[tuple[_Prefix, tuple[float, float]]]:
    return sorted(prefixes.items(), key=lambda item: -_log_add(*item[1]))[:beam]


def _log_add(a: float, b: float) -> float:
    high, low = (a, b) if a > b else (b, a)
    return float(high if low == -math.inf else high + math.log1p(math.exp(low - high)))


def frames_needed(ids: list[int]) -> int:
    """Return the frames of a text's shortest path: its tokens, and a blank within each pair."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def fitting_rows(
    batch: Batch, frames: Sequence[int]
) -> tuple[list[int], list[list[int]], list[tuple[str, str]]]:
    """Return the rows whose text fits their frames, their ids, and of the others key and reason.

    frames: the number of frames of each row. The ids are the label `ids`. Raise ValueError if a
    row has no text.
    """
    labels = batch.label("ids", "has no text; add the columns of `target`")
    padded = [[0] * labels.shape[1]] * len(labels) if labels.is_meta else labels.tolist()
    lengths = batch.label_masks["ids"].sum(1).tolist()
    rows: list[int] = []
    targets: list[list[int]] = []
    failed: list[tuple[str, str]] = []
    for row, (ids, length, available) in enumerate(zip(padded, lengths, frames, strict=True)):
        ids = ids[:length]
        needed = frames_needed(ids)
        if needed <= available:
            rows.append(row)
            targets.append(ids)
            continue
        text = batch.references[row].get("text")
        reason = (
            f"target: longer than the frames allow; {text!r} needs {needed} ({length} tokens, "
            f"{needed - length} repeats), the signal has {available}: is it the right text, or "
            "does the encoder shorten too much?"
        )
        failed.append((batch.keys[row], reason))
    return rows, targets, failed
